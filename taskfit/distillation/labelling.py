"""The loop that lets a teacher label the rows of a ledger. One bad row never ends it; a service that is away does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from taskfit.distillation.ledger_notes import note_work
from taskfit.errors import NoScoresError, ResourceError, ServiceError, SpendingError, TaskfitError

if TYPE_CHECKING:
    from taskfit.distillation.ledger import Ledger
    from taskfit.strategy.contract import Prediction, Predictor
    from taskfit.tasks.task import Row

__all__ = ["label_all", "label_rows"]

_AT_ONCE = 64
_FEWEST_AT_ONCE = 8
_SAY_EVERY_S = 5.0
_WAIT_S = 0.2
_AWAY_AFTER = 3
_HOPELESS_AFTER = 5
_ENDING = (401, 402, 403, 404)
"""States of a service that no other row will change: the key, the account, the address."""


def label_all(ledger: Ledger, teacher: Predictor, say: Callable[[str], None]) -> None:
    """Label what is open, as :func:`label_rows` does; wait for rows that other processes are at, in case they die."""
    is_told = False
    while True:
        label_rows(ledger, teacher, say)
        counts = ledger.counts()
        if not counts["leased"] and not counts["open"]:
            return
        if not is_told:
            say(f"waiting for {counts['leased']} rows that another process labels")
            is_told = True
        time.sleep(_WAIT_S)


def label_rows(ledger: Ledger, teacher: Predictor, say: Callable[[str], None]) -> None:
    """Label all rows that are open, a few at a time; other processes may do the same.

    Rows without text are not asked about. A row that fails alone is noted and left; one that a service failed to
    answer is tried again after the others.

    Args:
        ledger: with rows to label.
        teacher: who labels them.
        say: takes one line of progress every few seconds.

    Raises:
        SpendingError: the cap is reached. ServiceError: the service is away, or refuses everything.
        TaskfitError: the first rows of all failed, so that others would, too.
        In all cases, what was labelled is kept, and the rows that were not stay open.
    """
    loop = _Loop(ledger, teacher)
    started = said = time.monotonic()
    before = ledger.counts()["done"]
    while rows := ledger.lease(_share(ledger)):
        loop.label(rows)
        note_work(ledger.connection, ledger.name, teacher.predict_work)
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(_progress(ledger, before, said - started))


class _Loop:
    """What is known of the rows so far: whether any was answered, and how many failed since."""

    def __init__(self, ledger: Ledger, teacher: Predictor) -> None:
        self._ledger, self._teacher = ledger, teacher
        self._has_answered = False
        self._failed_in_a_row = 0

    def label(self, rows: Sequence[Row]) -> None:
        """Label rows that are leased."""
        asked = []
        for row in rows:
            if self._is_empty(row):
                self._ledger.fail(row.id, "empty text", "there is nothing to label", is_final=True)
            else:
                asked.append(row)
        try:
            self._keep(list(self._teacher.predict(asked)))
        except TaskfitError as error:
            if _ends_all(error):
                raise
            for row in asked:  # answers of a service that did come are found again in its cache
                self._label_alone(row)

    def _is_empty(self, row: Row) -> bool:
        try:
            return not self._teacher.definition.input_text(row).strip()
        except TaskfitError:
            return False  # the teacher will say what is wrong with it

    def _label_alone(self, row: Row) -> None:
        try:
            self._keep(list(self._teacher.predict([row])))
        except TaskfitError as error:
            self._failed_in_a_row += 1
            may_pass = isinstance(error, ServiceError) and (error.status in (0, 429) or error.status >= 500)
            is_away = may_pass and self._failed_in_a_row >= _AWAY_AFTER
            is_hopeless = not self._has_answered and self._failed_in_a_row >= _HOPELESS_AFTER
            if _ends_all(error) or is_away or is_hopeless:
                raise
            self._ledger.fail(row.id, type(error).__name__, error.message, is_final=not may_pass)

    def _keep(self, predictions: Sequence[Prediction]) -> None:
        self._ledger.accept(prediction for prediction in predictions if prediction.is_parsed)
        for prediction in predictions:
            if not prediction.is_parsed:
                self._ledger.fail(prediction.row_id, "no valid answer", prediction.raw[:2000], is_final=True)
        if predictions:
            self._has_answered, self._failed_in_a_row = True, 0


def _share(ledger: Ledger) -> int:
    """Return how many rows to take at once: fewer towards the end, so that other processes have some, too."""
    return min(_AT_ONCE, max(_FEWEST_AT_ONCE, ledger.counts()["open"] // 4))


def _ends_all(error: TaskfitError) -> bool:
    if isinstance(error, SpendingError | NoScoresError | ResourceError):
        return True
    return isinstance(error, ServiceError) and error.status in _ENDING


def _progress(ledger: Ledger, before: int, seconds: float) -> str:
    counts = ledger.counts()
    left, new = counts["open"] + counts["leased"], counts["done"] - before
    rate = new / seconds
    spent = f", {ledger.spent_usd:.4f} USD" if ledger.spent_usd else ""
    time_left = f", about {left / rate:.0f} s left" if rate > 0 else ""
    return f"{counts['done']} rows labelled, {counts['failed']} failed, {rate:.1f} rows/s{spent}{time_left}"
