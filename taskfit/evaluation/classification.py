"""Metrics of classification from counts of gold, predicted and matching labels.

An answer that could not be parsed, or that is none of the labels, is a prediction of no label: a miss for its gold
label, a false alarm for none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.outcomes import Outcomes

__all__ = [
    "balanced_accuracy",
    "confusion",
    "count_columns",
    "gold_codes",
    "macro_f1",
    "mcc",
    "micro_f1",
    "predicted_codes",
    "undefined_note",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def gold_codes(outcomes: Outcomes) -> IntArray:
    """Return the right label's position in ``labels``, shape (rows,); where several are right, the one answered."""
    positions = {label: code for code, label in enumerate(outcomes.labels)}
    pairs = zip(outcomes.golds, outcomes.answers, strict=True)
    return np.array(
        [positions[answer if answer in golds and answer in positions else golds[0]] for golds, answer in pairs]
    )


def predicted_codes(outcomes: Outcomes) -> IntArray:
    """Return the answered label's position in ``labels``, shape (rows,); -1 where no label was answered."""
    positions = {label: code for code, label in enumerate(outcomes.labels)}
    codes = np.array([positions.get(answer, -1) for answer in outcomes.answers])
    return np.where(outcomes.is_parsed, codes, -1)


def confusion(outcomes: Outcomes) -> IntArray:
    """Return counts, shape (labels, labels + 1): gold by predicted; the last column is "no valid answer"."""
    width = len(outcomes.labels) + 1
    predicted = predicted_codes(outcomes)
    flat = gold_codes(outcomes) * width + np.where(predicted < 0, width - 1, predicted)
    return np.bincount(flat, minlength=(width - 1) * width).reshape(width - 1, width)


def count_columns(outcomes: Outcomes) -> Any:  # a scipy sparse array; scipy has no types
    """Return a sparse 0-1 array, shape (rows, 3 x labels): gold, predicted and matching label of each row."""
    from scipy.sparse import csr_array

    rows, labels = len(outcomes), len(outcomes.labels)
    gold, predicted = gold_codes(outcomes), predicted_codes(outcomes)
    parsed, right = np.flatnonzero(predicted >= 0), np.flatnonzero(predicted == gold)
    at_row = np.concatenate([np.arange(rows), parsed, right])
    at_column = np.concatenate([gold, labels + predicted[parsed], 2 * labels + gold[right]])
    return csr_array((np.ones(len(at_row)), (at_row, at_column)), shape=(rows, 3 * labels))


def macro_f1(sums: FloatArray) -> FloatArray:
    """Mean F1 over the labels that occur among the right or the predicted ones, from sums of ``count_columns``.

    Equal to scikit-learn's ``f1_score(average="macro")`` when every answer was parsed.
    """
    gold, predicted, right = _split(sums)
    return _mean_where(2 * right, gold + predicted)


def micro_f1(sums: FloatArray) -> FloatArray:
    """F1 of the counts of all labels together; equal to accuracy when every answer was parsed."""
    gold, predicted, right = _split(sums)
    return _divide(2 * right.sum(-1), gold.sum(-1) + predicted.sum(-1))


def balanced_accuracy(sums: FloatArray) -> FloatArray:
    """Mean recall over the labels that occur among the right ones."""
    gold, _, right = _split(sums)
    return _mean_where(right, gold)


def mcc(sums: FloatArray) -> FloatArray:
    """Matthews correlation coefficient for several classes; "no valid answer" is a class of its own.

    0 where it is undefined: all rows have one right label, or all got one answer.
    Source: Gorodkin 2004, section 3 (the R_K statistic).
    """
    gold, predicted, right = _split(sums)
    total = gold.sum(-1)
    unparsed = total - predicted.sum(-1)
    covariance = right.sum(-1) * total - (gold * predicted).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1) - unparsed**2) * (total**2 - (gold**2).sum(-1))
    return _divide(covariance, np.sqrt(np.maximum(spread, 0.0)))


def undefined_note(name: str) -> Callable[[Outcomes], str | None]:
    """Return the function that says, for a run, where the metric of that name is undefined or a label was absent."""

    def note(outcomes: Outcomes) -> str | None:
        seen, labels = len(np.unique(gold_codes(outcomes))), len(outcomes.labels)
        if name == "mcc" and (seen == 1 or len(np.unique(predicted_codes(outcomes))) == 1):
            return "mcc is undefined where all rows have one right label or all got one answer; it is given as 0"
        if seen < labels and name in ("macro_f1", "balanced_accuracy"):
            return f"{labels - seen} of {labels} labels have no row here; {name} leaves them out unless predicted"
        return None

    return note


def _split(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    labels = sums.shape[-1] // 3
    return sums[..., :labels], sums[..., labels : 2 * labels], sums[..., 2 * labels :]


def _divide(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Divide, giving 0 where the divisor is 0."""
    quotient: FloatArray = np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)
    return quotient


def _mean_where(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Mean over the last axis of top / bottom, over the places where bottom is above 0."""
    return _divide(_divide(top, bottom).sum(-1), (bottom > 0).sum(-1).astype(np.float64))
