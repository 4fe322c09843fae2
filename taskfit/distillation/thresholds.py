"""A threshold with a guarantee: how far down a student may be trusted, from rows that had no say in it.

Learn then test (Angelopoulos et al. 2021): thresholds that were fixed beforehand are tested one after the other, from
the most careful down, each against the hypothesis that it breaks the promise, by an exact binomial test; the first
hypothesis that stands ends the walk. Whatever the data's law, the threshold taken breaks the promise with a chance of
at most 1 - confidence, for rows like those it was tested on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError

__all__ = ["GRID", "Escalation", "RangePoint", "certify", "fewest_rows", "range_of"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

GRID: FloatArray = np.concatenate([[np.inf], 1 / (1 + np.exp(-np.linspace(16.0, -8.0, 961))), [0.0]])
"""Thresholds of confidence that are tried, from never to always; fixed, so that no data chose them."""


@dataclass(frozen=True)
class Escalation:
    """Held-out rows on which student and teacher were both asked.

    Attributes:
        student, teacher: confidence of each row's answer, shape (rows,), 0 to 1. A teacher that may never be overruled
            by a person is sure of all rows: infinite.
        student_is_wrong, teacher_is_wrong: shape (rows,).
    """

    student: FloatArray
    teacher: FloatArray
    student_is_wrong: BoolArray
    teacher_is_wrong: BoolArray

    def losses(self, threshold: float) -> BoolArray:
        """Return which rows get a wrong answer, shape (rows,); what a person answers is right."""
        by_student, by_teacher = self.by(threshold)
        return (by_student & self.student_is_wrong) | (by_teacher & self.teacher_is_wrong)

    def by(self, threshold: float) -> tuple[BoolArray, BoolArray]:
        """Return which rows the student, and which the teacher answers; a person answers the others."""
        by_student = self.student >= threshold
        return by_student, ~by_student & (self.teacher >= threshold)


@dataclass(frozen=True)
class RangePoint:
    """What one threshold gives on the held-out rows.

    Attributes:
        threshold: None: the student never answers.
        student, teacher, person: shares of rows that each answers.
        agreement: share of rows without a wrong answer.
        low: one-sided bound that it exceeds with the stated confidence, for this threshold alone (Clopper-Pearson).
        seconds: of a row, both parts together; 0 where that was not measured.
    """

    threshold: float | None
    student: float
    teacher: float
    person: float
    agreement: float
    low: float
    seconds: float = 0.0


def certify(rows: Escalation, agreement: float, confidence: float) -> float | None:
    """Return the lowest threshold at which at least ``agreement`` of all such rows get a right answer.

    That it does is true with a chance of at least ``confidence`` over the draw of the held-out rows.

    Returns:
        The threshold, infinite where only the most careful one passes; None where not even that one does: too few rows,
        or a teacher that is too often wrong to answer unasked.

    Raises:
        ConfigError: agreement or confidence outside 0 to 1, or no rows.
    Source: Angelopoulos et al. 2021, section 2.2 (fixed-sequence testing), with binomial p-values (proposition 1 for
    losses of 0 and 1).
    """
    from scipy.stats import binom

    _check(agreement, confidence, len(rows.student))
    passed: float | None = None
    p_values = binom.cdf(np.arange(len(rows.student) + 1), len(rows.student), 1 - agreement)  # by number of errors
    for threshold in GRID:
        if p_values[int(rows.losses(threshold).sum())] > 1 - confidence:
            break
        passed = float(threshold)
    return passed


def fewest_rows(agreement: float, confidence: float) -> int:
    """Return the held-out rows without which nothing can be promised, even where no answer is wrong."""
    _check(agreement, confidence, 1)
    return math.ceil(math.log(1 - confidence) / math.log(agreement))


def range_of(
    rows: Escalation, confidence: float, points: int = 21, seconds: tuple[float, float] = (0.0, 0.0)
) -> list[RangePoint]:
    """Return what thresholds from never to always give, spread evenly over the share that the student answers.

    Args:
        rows: on which both were asked.
        confidence: of each point's bound.
        points: at most so many.
        seconds: of a row, of the student, who is asked about all, and of the teacher, who is asked about the rest.
    """
    from scipy.stats import beta

    count = len(rows.student)
    levels: Sequence[float] = [math.inf, *np.unique(rows.student)[::-1].tolist()]
    wanted = {round(place) for place in np.linspace(0, len(levels) - 1, min(points, len(levels)))}
    found = []
    for level in (levels[place] for place in sorted(wanted)):
        by_student, by_teacher = rows.by(level)
        wrong = int(rows.losses(level).sum())
        low = 0.0 if wrong == count else float(beta.ppf(1 - confidence, count - wrong, wrong + 1))
        threshold = None if math.isinf(level) else float(level)
        student, teacher = float(by_student.mean()), float(by_teacher.mean())
        shares = student, teacher, max(0.0, 1 - student - teacher)
        spent = seconds[0] + (1 - student) * seconds[1]
        found.append(RangePoint(threshold, *shares, 1 - wrong / count, low, spent))
    return found


def _check(agreement: float, confidence: float, rows: int) -> None:
    if not 0 < agreement < 1 or not 0 < confidence < 1:
        raise ConfigError(f"agreement and confidence must be between 0 and 1 (got {agreement}, {confidence})")
    if rows < 1:
        raise ConfigError("a threshold needs held-out rows (got none)")
