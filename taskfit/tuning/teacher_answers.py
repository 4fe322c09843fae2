"""What a teacher says of rows, as numbers to learn from: shares of classes and weights of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from taskfit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["class_targets", "answer_parts", "stepped", "rows_by_answer"]

LEAST_SHARE = 0.01
"""Smaller shares of a label are left out: they cost a pass each and say next to nothing."""

STEPS = 8
"""Weights of examples of a model that generates are rounded to eighths: examples of one weight go together."""


def class_targets(
    definition: TaskDefinition, rows: Sequence[Row], classes: Sequence[str]
) -> NDArray[np.float64] | None:
    """Return what each row teaches: its weight, shared out over the classes; None where no teacher said anything.

    Cross-entropy with these targets, summed over the rows, is what a student minimises. Rows weigh 1 on average.

    Args:
        definition: gives the answer of rows without an answer of a teacher, and of teachers without shares.
        rows: of training.
        classes: labels in the order of the columns.

    Returns:
        Shape (rows, classes), at least 0, with the sum ``len(rows)``.

    Raises:
        DataError: a weight or share is negative or not finite, all weights are 0, or an answer is none of the classes.
    Source: Hinton et al. 2015, section 2 (soft targets, at temperature 1).
    """
    if all(row.teacher is None for row in rows):
        return None
    import numpy as np

    place = {label: number for number, label in enumerate(classes)}
    targets = np.zeros((len(rows), len(classes)))
    for number, row in enumerate(rows):
        for label, amount in answer_parts(definition, row, classes):
            if label not in place:
                raise DataError(f"row {row.id}: the answer {label!r} to learn is none of the {len(classes)} labels")
            targets[number, place[label]] += amount
    total = targets.sum()
    if not total > 0:
        raise DataError("all rows weigh nothing, so there is nothing to learn", "take weight=none")
    scaled: NDArray[np.float64] = targets * (len(rows) / total)
    return scaled


def answer_parts(definition: TaskDefinition, row: Row, known: Sequence[str] | None = None) -> list[tuple[str, float]]:
    """Return the answers that a row teaches, each with its part of the row's weight, the likeliest first.

    Args:
        definition: gives the answer of a row without an answer of a teacher.
        row: of training.
        known: answers that may be taught; shares of others are left out. None: all may.

    Raises:
        DataError: a weight or share is negative or not finite.
    """
    said = row.teacher
    if said is None:
        return [(next(iter(definition.gold(row)), ""), 1.0)]
    numbers = [said.weight, *(said.shares or {}).values()]
    if not all(0 <= number < float("inf") for number in numbers):
        raise DataError(f"row {row.id}: weight and shares must be at least 0 and finite (got {numbers[:5]})")
    shares = {
        label: share
        for label, share in (said.shares or {}).items()
        if share >= LEAST_SHARE and (known is None or label in known)
    }
    total = sum(shares.values())
    if not total > 0:
        return [(said.answer, said.weight)]
    ranked = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    return [(label, said.weight * share / total) for label, share in ranked]


def stepped(weight: float) -> float:
    """Round a weight to what :data:`STEPS` allow."""
    return round(weight * STEPS) / STEPS


def rows_by_answer(definition: TaskDefinition, row: Row) -> Iterator[tuple[Row, float]]:
    """Yield the row once for each answer that it teaches, with that answer alone, and its weight in steps.

    An answer whose weight rounds to 0 is left out, but for the likeliest.
    """
    if row.teacher is None:
        yield row, 1.0
        return
    for number, (answer, part) in enumerate(answer_parts(definition, row)):
        if stepped(part) > 0 or number == 0:
            yield replace(row, teacher=replace(row.teacher, answer=answer, shares=None)), stepped(part)
