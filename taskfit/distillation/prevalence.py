"""What is true of a whole corpus, from many machine labels and few human ones: shares of labels, and means.

Machine labels alone give a wrong answer with a narrow interval; human ones alone a right answer with a wide one.
Prediction-powered inference takes the machine's answer and corrects it by the machine's error on the human rows, as far
as that narrows the interval; machine labels that say nothing get the weight 0, and the human sample remains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError
from taskfit.evaluation.intervals import Interval, wilson

__all__ = ["Estimate", "mean_of_corpus", "shares_of_corpus"]

FloatArray = NDArray[np.float64]

_FEWEST_EVENTS = 10
"""Human rows with, and without, a label, below which the normal law of a share is not trusted."""


_NARROWER = 0.95
"""Machine labels must narrow the interval to this; a smaller gain may be luck, and picking luck costs coverage."""


@dataclass(frozen=True)
class Estimate:
    """A share or mean over a corpus.

    Attributes:
        interval: holds the true value in ``level`` of all repetitions.
        weight: of the machine labels, from 0 (the human sample alone) to 1.
        human: the interval from the human rows alone.
        machine: the mean of the machine labels alone, which is biased wherever the machine errs.
    """

    interval: Interval
    weight: float
    human: Interval
    machine: float

    @property
    def human_rows_saved(self) -> float:
        """How many times as many human rows alone would give an interval as narrow; 1: machine labels do not help."""
        width = self.interval.high - self.interval.low
        return 1.0 if self.weight == 0 or width <= 0 else ((self.human.high - self.human.low) / width) ** 2


def mean_of_corpus(
    human: Sequence[float], machine_on_human: Sequence[float], machine: Sequence[float], *, level: float = 0.95
) -> Estimate:
    """Return the mean of people's values over a corpus.

    Both samples must be drawn at random from the corpus, and independent of the machine: rows that it learnt from, or
    that were chosen because it was unsure, would make the interval wrong.

    Args:
        human: people's values of n rows, n at least 3.
        machine_on_human: the machine's values of the same rows.
        machine: the machine's values of N other rows of the corpus, N at least 1.
        level: how often the interval holds the true mean.

    Raises:
        ConfigError: too few rows, lengths that differ, a value that is not finite, or a level outside 0 to 1.
    Source: Angelopoulos, Duchi and Zrnic 2023 (PPI++), section 6 with the weight of proposition 2; the t law with n - 2
    degrees of freedom in place of the normal one, as weight and variance come from the n rows.
    """
    y, f, g = (np.asarray(list(values), dtype=np.float64) for values in (human, machine_on_human, machine))
    _check(y, f, g, level)
    alone = _t_interval(float(y.mean()), float(y.var(ddof=1)) / len(y), len(y) - 1, level, "human rows alone")
    weight = _weight(y, f, g)
    value = float(y.mean() + weight * (g.mean() - f.mean()))
    variance = float((y - weight * f).var(ddof=1)) / len(y) + weight**2 * _variance(g) / len(g)
    powered = _t_interval(value, variance, len(y) - 2, level, "prediction-powered")
    if powered.high - powered.low > _NARROWER * (alone.high - alone.low):
        return Estimate(alone, 0.0, alone, float(g.mean()))
    return Estimate(powered, weight, alone, float(g.mean()))


def shares_of_corpus(
    labels: Sequence[str],
    human: Sequence[str],
    machine_on_human: Sequence[str],
    machine: Sequence[str],
    *,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Return the share of each label over a corpus; see :func:`mean_of_corpus` for the rows.

    A label that fewer than 10 human rows have, or lack, is estimated from the human rows alone, by Wilson's interval,
    as is every label where the machine labels do not help. The intervals hold one by one, not all at once.

    Raises:
        ConfigError: as in :func:`mean_of_corpus`.
    """
    found = {}
    for label in labels:
        y, f, g = ([float(value == label) for value in values] for values in (human, machine_on_human, machine))
        estimate = mean_of_corpus(y, f, g, level=level)
        alone = wilson(sum(y), len(y), level)
        interval = _within(estimate.interval) if estimate.weight > 0 else alone
        if min(sum(y), len(y) - sum(y)) < _FEWEST_EVENTS:
            interval = alone
        found[label] = Estimate(interval, 0.0 if interval is alone else estimate.weight, alone, estimate.machine)
    return found


def _weight(y: FloatArray, f: FloatArray, g: FloatArray) -> float:
    """Return the weight of the machine that gives the least variance, kept between 0 and 1."""
    spread = _variance(np.concatenate([f, g]))
    if spread == 0:
        return 0.0
    shared = float(np.cov(y, f)[0, 1])
    return float(min(1.0, max(0.0, shared / ((1 + len(y) / len(g)) * spread))))


def _variance(values: FloatArray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _t_interval(value: float, variance: float, freedom: int, level: float, method: str) -> Interval:
    from scipy.stats import t

    half = float(t.isf((1 - level) / 2, freedom)) * math.sqrt(variance)
    return Interval(value, value - half, value + half, level, method)


def _within(interval: Interval) -> Interval:
    low, high = max(0.0, interval.low), min(1.0, interval.high)
    value = min(max(interval.value, low), high)
    return Interval(value, low, high, interval.level, interval.method)


def _check(y: FloatArray, f: FloatArray, g: FloatArray, level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1 (got {level})")
    if len(y) < 3 or len(f) != len(y) or len(g) < 1:
        raise ConfigError(
            f"expected values of at least 3 human rows, the machine's for each, and for at least 1 other row "
            f"(got {len(y)}, {len(f)}, {len(g)})"
        )
    if not all(np.isfinite(values).all() for values in (y, f, g)):
        raise ConfigError("expected finite values (got NaN or infinity)")
