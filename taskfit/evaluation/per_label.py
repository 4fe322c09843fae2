"""Label by label: how many rows, how well recalled, and what is taken for what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taskfit.evaluation.classification import confusion
from taskfit.evaluation.intervals import Interval, wilson
from taskfit.evaluation.outcomes import Outcomes

__all__ = ["NO_ANSWER", "LabelFigures", "Mistaken", "label_table", "most_mistaken"]

NO_ANSWER = ""
"""Stands for "no valid answer" among predicted labels."""


@dataclass(frozen=True)
class LabelFigures:
    """How one label fares.

    Attributes:
        label: its value.
        rows: how many rows have it as their right answer.
        predicted: how many rows got it as their answer.
        right: how many both.
        precision: right / predicted, with Wilson's interval; None where it was never predicted.
        recall: right / rows, with Wilson's interval; None where no row has it.
        f1: their harmonic mean; 0 where the label occurs nowhere.
    """

    label: str
    rows: int
    predicted: int
    right: int
    precision: Interval | None
    recall: Interval | None
    f1: float


@dataclass(frozen=True)
class Mistaken:
    """Rows of one label that got another one; ``predicted`` is ``NO_ANSWER`` where they got none."""

    gold: str
    predicted: str
    rows: int


def label_table(outcomes: Outcomes, *, level: float = 0.95) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of a classification, in the order of the task's labels.

    Raises:
        ConfigError: level not between 0 and 1.
    """
    counts = confusion(outcomes)
    table = []
    for code, label in enumerate(outcomes.labels):
        rows, predicted, right = int(counts[code].sum()), int(counts[:, code].sum()), int(counts[code, code])
        precision = wilson(right, predicted, level) if predicted else None
        recall = wilson(right, rows, level) if rows else None
        f1 = 2 * right / (rows + predicted) if rows + predicted else 0.0
        table.append(LabelFigures(label, rows, predicted, right, precision, recall, f1))
    return tuple(table)


def most_mistaken(outcomes: Outcomes, *, most: int = 10) -> tuple[Mistaken, ...]:
    """Return the most frequent mistakes of a classification, the most frequent first; equal ones in label order."""
    counts = confusion(outcomes)
    np.fill_diagonal(counts, 0)
    names = [*outcomes.labels, NO_ANSWER]
    places = sorted(zip(*np.nonzero(counts), strict=True), key=lambda place: (-counts[place], place))
    return tuple(
        Mistaken(names[gold], names[predicted], int(counts[gold, predicted])) for gold, predicted in places[:most]
    )
