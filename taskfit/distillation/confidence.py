"""How sure a label is: the teacher's own probability, corrected by rows whose right answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Calibrator", "fit_calibrator", "own_confidence"]

FloatArray = NDArray[np.float64]

_FEWEST = 30
"""Rows below which no slope can be learnt; the share of right labels stands for all."""
_NEAREST = 1e-6
_PRIOR_VARIANCE = 4.0


@dataclass(frozen=True)
class Calibrator:
    """From a teacher's own probability to the share of such labels that are right.

    Attributes:
        slope, intercept: of a logistic curve over the log-odds of the teacher's own probability; slope 0: one
            confidence for all labels.
        rows: with known answers, that it was learnt from; 0: nothing was learnt, the teacher's own word stands.
        note: in words for the report.
    """

    slope: float
    intercept: float
    rows: int
    note: str

    def confidence(self, own: Sequence[float | None]) -> list[float | None]:
        """Return the calibrated confidence of labels; None where nothing is known."""
        if self.rows == 0:
            return list(own)
        odds = np.array([0.0 if value is None else _log_odds(value) for value in own])
        return [float(value) for value in 1 / (1 + np.exp(-(self.slope * odds + self.intercept)))]


def own_confidence(answer: str, probabilities: Mapping[str, float] | None) -> float | None:
    """Return the probability that the teacher gives its answer; None where it gives none."""
    return None if probabilities is None else float(min(1.0, max(0.0, probabilities.get(answer, 0.0))))


def fit_calibrator(own: Sequence[float | None], is_right: Sequence[bool]) -> Calibrator:
    """Learn from rows with known answers what the teacher's own probability is worth.

    With fewer than 30 rows, without probabilities, or where all are equal, every label has the share of right ones
    (with one right and one wrong added, Laplace). Otherwise a logistic curve over log-odds, whose slope and intercept
    are held near 1 and 0, so that few rows move it little. A slope below 0 would turn the order round; it becomes 0.

    Source: Platt 1999 with the temperature of Guo et al. 2017, section 4.2, as its slope.
    """
    if not is_right:
        return Calibrator(1.0, 0.0, 0, "not calibrated: no row has a known answer")
    rows, right = len(is_right), sum(is_right)
    flat = float(np.log((right + 1) / (rows - right + 1)))
    known = [value for value in own if value is not None]
    if len(known) < rows:
        return Calibrator(0.0, flat, rows, "one confidence for all labels: the teacher gives no probabilities")
    if max(known) - min(known) < 1e-9:
        return Calibrator(0.0, flat, rows, "one confidence for all labels: the teacher's probabilities are all equal")
    if rows < _FEWEST:
        return Calibrator(0.0, flat, rows, f"one confidence for all labels: {rows} rows are too few to learn more")
    slope, intercept = _logistic(np.array([_log_odds(value) for value in known]), np.array(is_right, dtype=float))
    if slope <= 0:
        note = "one confidence for all labels: surer labels were not right more often"
        return Calibrator(0.0, flat, rows, note)
    return Calibrator(slope, intercept, rows, f"calibrated on {rows} rows")


def _logistic(odds: FloatArray, right: FloatArray) -> tuple[float, float]:
    """Return slope and intercept with the highest posterior, by Newton's method; normal priors around 1 and 0."""
    columns = np.column_stack([odds, np.ones(len(odds))])
    prior, weights = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(100):
        share = 1 / (1 + np.exp(-np.clip(columns @ weights, -40, 40)))
        gradient = columns.T @ (right - share) - (weights - prior) / _PRIOR_VARIANCE
        curvature = (columns * (share * (1 - share))[:, None]).T @ columns + np.eye(2) / _PRIOR_VARIANCE
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def _log_odds(share: float) -> float:
    kept = min(max(share, _NEAREST), 1 - _NEAREST)
    return float(np.log(kept / (1 - kept)))
