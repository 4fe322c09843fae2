"""What the trials of a study have taken, over all its runs: seconds on the clock, and money that services billed.

Kept in a file of the study's folder, so that a budget holds over kills and restarts: the seconds are brought up to date
twice a second, and a call of a service is entered at the most it can cost before it is made.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.distillation.ledger_file import transaction
from taskfit.errors import SpendingError, StudyError
from taskfit.files import write_ahead
from taskfit.inference.http_limits import RateLimit, Spending
from taskfit.inference.http_wire import Usage
from taskfit.studies.words import money, seconds

if TYPE_CHECKING:
    from taskfit.models.service import ServiceModel
    from taskfit.studies.budget import StudyBudget

__all__ = ["OUT_OF_BUDGET", "SPENT_FILE", "Purse", "Spent", "StudySpending", "give_purse", "read_spent"]

SPENT_FILE = "spent.sqlite"
OUT_OF_BUDGET = "the study's budget"
"""How the message begins when a call of a service would pass the budget of the study."""

_BUSY_S = 30.0
_TABLE = "CREATE TABLE IF NOT EXISTS spent (one INTEGER PRIMARY KEY CHECK (one = 1), wall_s REAL, usd_services REAL)"


@dataclass(frozen=True)
class Spent:
    """What was spent so far.

    Attributes:
        wall_s: seconds on the clock while trials worked, however many at a time; not those in which the libraries were
            loaded before the first.
        usd_services: billed by services; calls under way, or lost in a kill, count at the most they can cost.
    """

    wall_s: float = 0.0
    usd_services: float = 0.0

    def usd(self, usd_per_hour: float) -> float:
        """US dollars in all, at the price of the whole machine."""
        return self.wall_s / 3600 * usd_per_hour + self.usd_services


def read_spent(folder: Path) -> Spent:
    """Return what a study has spent; nothing where it never ran or its count is lost."""
    if not (folder / SPENT_FILE).exists():
        return Spent()
    with closing(_opened(folder)) as connection:
        return _read(connection)


class Purse:
    """Counts what the running trials take, and says what the budget leaves; one for each run of a study.

    Args:
        folder: the study's.
        budget: None: no cap; everything is counted all the same, for a later run may have one.
        usd_per_hour: of the machine.
        clock: gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        budget: StudyBudget | None,
        usd_per_hour: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = _opened(folder)
        self._budget, self._usd_per_hour, self._clock = budget, usd_per_hour, clock
        self._counted_at = clock()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def count(self, *, is_working: bool) -> None:
        """Enter the seconds that have passed since the last time, if trials were working in them."""
        now, before = self._clock(), self._counted_at
        self._counted_at = now
        if is_working:
            with transaction(self._connection):
                self._connection.execute("UPDATE spent SET wall_s = wall_s + ?", (now - before,))

    def left_s(self) -> float:
        """Return the seconds until the budget is spent if services bill no more; infinite where nothing ends it."""
        spent, budget = _read(self._connection), self._budget
        if budget is None:
            return math.inf
        if budget.seconds is not None:
            return budget.seconds - spent.wall_s
        left = (budget.usd or 0.0) - spent.usd(self._usd_per_hour)
        if self._usd_per_hour > 0:
            return left / (self._usd_per_hour / 3600)
        return math.inf if left > 0 else 0.0

    def why_not(self, expected_s: float | None, expected_usd_services: float = 0.0) -> str:
        """Say why a trial is not started: it is expected to take more than is left; empty where it fits.

        Args:
            expected_s: of the trial, on the clock; None: unknown, so it may start while anything is left.
            expected_usd_services: of the trial, to services.
        """
        left_s, budget = self.left_s(), self._budget
        if budget is None:
            return ""
        if left_s <= 0:
            return "nothing of the budget was left"
        if budget.usd is None:
            fits = (expected_s or 0.0) <= left_s
            return "" if fits else f"needs about {seconds(expected_s or 0.0)}, and {seconds(left_s)} were left"
        wanted = (expected_s or 0.0) / 3600 * self._usd_per_hour + expected_usd_services
        left = budget.usd - _read(self._connection).usd(self._usd_per_hour)
        return "" if wanted <= left else f"needs about {money(wanted)}, and {money(left)} were left"


class StudySpending(Spending):
    """A trial's spending on a service, entered into the study's count; no call passes the budget of the study.

    Args:
        folder: the study's.
        usd_in, usd_out, max_usd, max_tokens: of this trial, as in :class:`taskfit.inference.http_limits.Spending`.
        budget_usd: of the whole study; None: no cap.
        usd_per_hour: of the machine, whose seconds are paid from the same budget.
    """

    def __init__(
        self,
        folder: Path,
        usd_in: float,
        usd_out: float,
        max_usd: float | None,
        max_tokens: int | None,
        *,
        budget_usd: float | None,
        usd_per_hour: float,
    ) -> None:
        super().__init__(usd_in, usd_out, max_usd, max_tokens)
        self._connection = _opened(folder)
        self._budget_usd, self._usd_per_hour = budget_usd, usd_per_hour

    def reserve(self, most: Usage) -> None:
        """Count a call at the most that it can cost, before it is made.

        Raises:
            SpendingError: that would be above a cap, of the trial or of the study; nothing is counted.
        """
        super().reserve(most)
        try:
            self._enter(self.cost(most))
        except BaseException:
            super().settle(most, Usage())
            raise

    def settle(self, most: Usage, real: Usage) -> None:
        """Count a call at what it really took, in place of the most it could."""
        super().settle(most, real)
        with transaction(self._connection):
            self._add(self.cost(real) - self.cost(most))

    def _enter(self, usd: float) -> None:
        with transaction(self._connection):
            spent = _read(self._connection).usd(self._usd_per_hour)
            if self._budget_usd is not None and spent + usd > self._budget_usd:
                raise SpendingError(
                    f"{OUT_OF_BUDGET} of {money(self._budget_usd)} is reached: {money(spent)} are spent or promised "
                    f"to calls under way, and the next may cost up to {money(usd)}",
                    "run compare again with a larger --budget; with a cache, what was paid for is not paid again",
                )
            self._add(usd)

    def _add(self, usd: float) -> None:
        self._connection.execute("UPDATE spent SET usd_services = usd_services + ?", (usd,))


def give_purse(
    model: ServiceModel,
    usd_per_mtok: tuple[float, float],
    folder: Path,
    budget_usd: float | None,
    usd_per_hour: float,
) -> None:
    """Let all engines of a service's model count in the study's file.

    Args:
        model: of the service.
        usd_per_mtok: US dollars per million tokens, read and written.
        folder: the study's.
        budget_usd: of the whole study; None: no cap.
        usd_per_hour: of the machine.
    """
    service = model.service
    caps = (service.max_usd, service.max_tokens)
    spending = StudySpending(folder, *usd_per_mtok, *caps, budget_usd=budget_usd, usd_per_hour=usd_per_hour)
    model.usd_per_mtok = usd_per_mtok
    model.limits = (spending, RateLimit(service.requests_per_minute, service.tokens_per_minute))


def _opened(folder: Path) -> sqlite3.Connection:
    """Open the count, made where missing.

    Raises:
        StudyError: the file is damaged.
    """
    path = folder / SPENT_FILE
    # Another thread: the engine of a service runs in one of its own where a loop runs already.
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        with transaction(connection):
            connection.execute(_TABLE)
            connection.execute("INSERT OR IGNORE INTO spent VALUES (1, 0, 0)")
        _read(connection)
    except (sqlite3.Error, TypeError, ValueError) as error:
        with suppress(sqlite3.Error):
            connection.close()
        raise StudyError(
            f"{path}, which counts what the study has spent, is damaged ({error})",
            "remove it: only that count is lost, and a budget then begins anew",
        ) from error
    return connection


def _read(connection: sqlite3.Connection) -> Spent:
    wall_s, usd = connection.execute("SELECT wall_s, usd_services FROM spent").fetchone()
    return Spent(float(wall_s), float(usd))
