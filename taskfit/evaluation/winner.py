"""The best of several looks better than it is, because luck helped to pick it. This takes the luck out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.metrics import metric, score, unit_columns
from taskfit.evaluation.outcomes import Outcomes, check_same_rows
from taskfit.evaluation.resampling import seed_weights, unit_weights

__all__ = ["Winner", "corrected_winner"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Winner:
    """The best candidate, and how good the choice is once luck is taken out.

    Attributes:
        name: the candidate with the best figure on all rows; the first of equals.
        value: its figure as measured, which having been picked flatters.
        corrected: what picking the best of these candidates is worth on rows that did not help to pick.
        low, high: range of the corrected figure over resamples.
        level: of that range.
        picked: for each candidate, in what share of resamples it was the best.
    """

    name: str
    value: float
    corrected: float
    low: float
    high: float
    level: float
    picked: Mapping[str, float]


def corrected_winner(
    name: str,
    candidates: Mapping[str, Sequence[Outcomes]],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Winner:
    """Pick the best of several strategies and correct its figure for having been picked.

    In each resample of rows and seeds the best on the drawn rows is picked and scored on the rows not drawn; a resample
    that draws all of few groups has none and is passed over. Scores on fewer rows can be off for metrics such as macro
    F1, so each candidate's mean over resamples is first brought to its figure on all rows. Of a single group or row
    nothing is left to score on, and nothing is corrected.

    Raises:
        DataError: no candidates, or runs over different rows. ConfigError: the metric does not fit the task.
    Source: Tsamardinos, Greasidou and Borboudakis 2018 (bootstrap bias-corrected selection).
    """
    check_same_rows([run for runs in candidates.values() for run in runs])
    names = list(candidates)
    whole = np.array([np.mean([score(name, run) for run in candidates[each]]) for each in names])
    drawn, left_out = _both_sides(name, list(candidates.values()), resamples, seed)
    sign = 1.0 if metric(name).higher_is_better else -1.0
    choices = (sign * drawn).argmax(axis=1)
    centred = left_out - left_out.mean(axis=0) + whole
    values = centred[np.arange(len(choices)), choices]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    shares = np.bincount(choices, minlength=len(names)) / len(choices)
    best = int((sign * whole).argmax())
    return Winner(
        name=names[best],
        value=float(whole[best]),
        corrected=float(values.mean()),
        low=float(low),
        high=float(high),
        level=level,
        picked={each: float(share) for each, share in zip(names, shares, strict=True)},
    )


def _both_sides(
    name: str, candidates: Sequence[Sequence[Outcomes]], resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return each candidate's metric on the drawn rows and on those left out, each of shape (resamples, candidates)."""
    value = metric(name).value
    parts = [[unit_columns(name, run) for run in runs] for runs in candidates]
    shares = [seed_weights(len(runs), resamples, seed + number) for number, runs in enumerate(candidates)]
    drawn: list[FloatArray] = []
    left_out: list[FloatArray] = []
    start, units = 0, candidates[0][0].units
    for block in unit_weights(units, resamples, seed):
        has_rest = (block == 0).any(axis=1) if units > 1 else np.ones(len(block), dtype=np.bool_)
        here, weights = start + np.flatnonzero(has_rest), block[has_rest]
        sides = (weights, (weights == 0).astype(np.float64))
        for weight, kept in zip(sides, (drawn, left_out), strict=True):
            means = [_mean(value, weight, part, share[here]) for part, share in zip(parts, shares, strict=True)]
            kept.append(np.stack(means, axis=1))
        start += len(block)
    return np.concatenate(drawn), np.concatenate(left_out)


def _mean(value: Any, weights: FloatArray, parts: Sequence[Any], shares: FloatArray) -> FloatArray:
    mean: FloatArray = (np.stack([value(np.asarray(weights @ part)) for part in parts], axis=1) * shares).sum(axis=1)
    return mean
