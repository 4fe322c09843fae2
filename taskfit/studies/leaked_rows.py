"""Test rows that stand in the training rows: found before anything runs, and taken out of the figures afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from taskfit.errors import StudyError
from taskfit.studies.events import ignore_line
from taskfit.studies.folder import read_json, write_json
from taskfit.studies.words import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from taskfit.evaluation.leaks import CleanScore
    from taskfit.studies.candidate import Candidate
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["LeakedRows", "clean_scores", "read_leaked_rows", "write_leaked_rows"]

_FILE = "leaks.json"
_FORMAT = 1
_SHOWN = 20
_EVERY_S = 5.0


@dataclass(frozen=True)
class LeakedRows:
    """What of the test set stands in the rows that strategies learn and choose from.

    Attributes:
        rows: number of test rows.
        texts: number of training and validation rows they were looked for in.
        counts: test rows by kind of leak: ``same``, ``13-gram``, ``8-gram``, ``near``.
        dirty: ids of the test rows with a leak of any kind.
        examples: some leaks: row id, kind, share of its words, and what is common.
    """

    rows: int
    texts: int
    counts: dict[str, int]
    dirty: frozenset[str]
    examples: tuple[tuple[str, str, float, str], ...]

    @property
    def text(self) -> str:
        """The finding in a sentence."""
        if not self.dirty:
            return f"None of the {self.rows:,} test rows stands in the rows that strategies learn from."
        kinds = ", ".join(f"{kind} {number}" for kind, number in self.counts.items() if number)
        return f"{len(self.dirty):,} of {self.rows:,} test rows stand in the rows that strategies learn from ({kinds})."


def write_leaked_rows(
    folder: Path,
    task: Task,
    say: Callable[[str], None] = ignore_line,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Look for the test rows' inputs in those of training and validation, and keep what is found.

    Args:
        folder: the study's.
        task: with its rows.
        say: takes a line of progress every five seconds, where it takes so long.
        clock: gives seconds.

    Raises:
        ResourceError: the disk is full.
    """
    from taskfit.evaluation.leaks import find_leaks

    definition = task.definition
    learnt = _told((*task.train, *task.validation), say, clock)
    others = ((row.id, definition.question_text(row)) for row in learnt)
    found = find_leaks({row.id: definition.question_text(row) for row in task.test}, others)
    values: dict[str, Value] = {
        "format": _FORMAT,
        "rows": found.rows,
        "texts": found.texts,
        "counts": {str(kind): number for kind, number in found.counts.items()},
        "dirty": [*sorted(found.dirty())],
        "examples": [[leak.row_id, leak.kind, leak.share, leak.text[:200]] for leak in found.leaks[:_SHOWN]],
    }
    write_json(folder / _FILE, values)


def _told(rows: Sequence[Row], say: Callable[[str], None], clock: Callable[[], float]) -> Iterator[Row]:
    """Yield the rows, and say now and then how many were yielded and how long the rest will take."""
    began = told = clock()
    for done, row in enumerate(rows):
        now = clock()
        if now - told >= _EVERY_S:
            told = now
            left = (now - began) / done * (len(rows) - done)
            say(f"looking for test rows in those learnt from: {done:,} of {len(rows):,}, {seconds(left)} left")
        yield row


def read_leaked_rows(folder: Path) -> LeakedRows:
    """Read what was found.

    Raises:
        StudyError: the file is missing, damaged, or of another format.
    """
    values = read_json(folder / _FILE)
    try:
        if values["format"] != _FORMAT:
            raise ValueError(f"format {values['format']}")
        return LeakedRows(
            rows=int(cast("int", values["rows"])),
            texts=int(cast("int", values["texts"])),
            counts={str(kind): int(n) for kind, n in cast("dict[str, int]", values["counts"]).items()},
            dirty=frozenset(cast("list[str]", values["dirty"])),
            examples=tuple(
                (str(i), str(k), float(s), str(t)) for i, k, s, t in cast("list[list[str]]", values["examples"])
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(f"{folder / _FILE} is damaged ({error})", "run compare into a new folder") from error


def clean_scores(candidates: Sequence[Candidate], metric: str, leaks: LeakedRows) -> dict[str, CleanScore]:
    """Return each candidate's figure with and without the dirty rows, by its label; none where no row is dirty."""
    from taskfit.evaluation.leaks import score_without

    if not leaks.dirty:
        return {}
    return {one.label: score_without(metric, one.runs, leaks.dirty) for one in candidates}
