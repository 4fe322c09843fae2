"""How far a figure could be off: intervals over rows, and over rows and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError
from taskfit.evaluation.classification import confusion
from taskfit.evaluation.metrics import Metric, metric, per_row, score
from taskfit.evaluation.outcomes import Outcomes, check_same_rows
from taskfit.evaluation.resampling import jackknife, resampled, seed_weights
from taskfit.evaluation.uncertainty import SeedNoise, of_figure, pseudo_values, reach

__all__ = [
    "Interval",
    "bootstrap_interval",
    "hierarchical_interval",
    "jackknife_interval",
    "metric_interval",
    "recall_interval",
    "wilson",
]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and the range that would hold the true one in ``level`` of all repetitions.

    Attributes:
        value: the figure; the mean over runs where there are several.
        method: how the range was found, in words for the report.
    """

    value: float
    low: float
    high: float
    level: float
    method: str


def wilson(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion; it never leaves 0 to 1 and never has width 0.

    Raises:
        ConfigError: no trials, or successes outside 0 to trials.
    Source: Wilson 1927.
    """
    _check_level(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(f"expected 0 to {trials} successes of at least 1 trial (got {successes} of {trials})")
    from scipy.stats import norm

    z = float(norm.isf((1 - level) / 2))
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(share, min(low, share), max(high, share), level, "Wilson")


def bootstrap_interval(
    name: str,
    outcomes: Outcomes,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    method: Literal["bca", "percentile"] = "bca",
) -> Interval:
    """Return an interval over rows (whole groups where there are some) for the metric of one run.

    ``method`` "bca" corrects for bias and skewness; "percentile" does not, and is its fallback where every resample
    lies on one side of the figure. Prefer :func:`jackknife_interval` for metrics of counts: a resample loses labels
    that have few rows, so its macro F1 is too low, and with 77 labels on 300 rows BCa covers only 80 %.

    Raises:
        ConfigError: unknown metric or one for other kinds; resamples below 100; level not between 0 and 1.
    Source: Efron 1987, sections 2 and 6.
    """
    _check_level(level)
    _check_resamples(resamples)
    value = score(name, outcomes)
    values = resampled(name, [outcomes], resamples, seed)[:, 0]
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    corrected = _bca_tails(values, value, jackknife(name, outcomes), tails) if method == "bca" else None
    low, high = np.quantile(values, tails if corrected is None else corrected)
    over = "rows" if outcomes.groups is None else "groups of rows"
    how = "percentile" if corrected is None else "BCa"
    return Interval(value, float(low), float(high), level, f"{how} bootstrap over {over}")


def hierarchical_interval(
    name: str, runs: Sequence[Outcomes], *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return an interval for the mean metric of several seeds' runs over the same rows; rows and seeds are resampled.

    In each resample all runs share the drawn rows. With two or three seeds their spread is known badly, and the
    interval is too narrow where seeds matter as much as rows; :func:`jackknife_interval` allows for that.

    Raises:
        DataError: the runs are not over the same rows. ConfigError: as in ``bootstrap_interval``.
    Source: Owen 2007 (rows and seeds as crossed factors).
    """
    _check_level(level)
    _check_resamples(resamples)
    check_same_rows(runs)
    values = resampled(name, runs, resamples, seed)
    means = (values * seed_weights(len(runs), resamples, seed)).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    value = float(np.mean([score(name, run) for run in runs]))
    over = "rows" if runs[0].groups is None else "groups of rows"
    return Interval(value, float(low), float(high), level, f"bootstrap over {over} and {len(runs)} seeds")


def jackknife_interval(
    name: str, runs: Sequence[Outcomes], *, level: float = 0.95, seed_noise: SeedNoise | None = None
) -> Interval:
    """Return an interval for the mean metric of one run or of several seeds' runs over the same rows.

    It is Student's interval of the jackknife's pseudo-values, laid on the logit scale so that it stays within the
    metric's range, with degrees of freedom by how few rows make up the variance, and with the seeds' variance spread
    out where there are several runs. Unlike a bootstrap it takes out the bias that metrics of counts have where
    labels have few rows. With two seeds it is wide, because two seeds tell little; ``seed_noise``, from
    :func:`~taskfit.evaluation.paired.pooled_seed_noise`, lends it what all strategies of a study know, and a single
    run that hangs on its seed the only thing that is known about that.

    Raises:
        DataError: the runs are not over the same rows. ConfigError: unknown metric, or level not between 0 and 1.
    Source: Tukey 1958; the logit scale as in Miller 1974, section 3.
    """
    _check_level(level)
    check_same_rows(runs)
    entry, value = metric(name), float(np.mean([score(name, run) for run in runs]))
    over = "rows" if runs[0].groups is None else "groups of rows"
    method = f"jackknife over {over}"
    if len(runs) > 1:
        method += f" and {len(runs)} seeds"
    elif seed_noise is not None:
        method += ", with the luck of seeds that other strategies showed"
    if runs[0].units < 2:
        return Interval(value, entry.lowest, entry.highest, level, f"{method}: a single one tells nothing")
    middle = float(pseudo_values(name, runs).mean())
    distance = reach(of_figure(name, runs, seed_noise), (1 - level) / 2)
    low, high = _within(middle, distance, entry, runs[0].units)
    return Interval(value, min(low, value), max(high, value), level, method)


def recall_interval(outcomes: Outcomes, *, level: float = 0.95) -> Interval:
    """Return an interval for the balanced accuracy of one run, from Wilson's intervals of the labels' recalls.

    A rare label whose few rows are all right would otherwise count as known for certain.

    Raises:
        ConfigError: level not between 0 and 1, or no classification.
    Source: Zou and Donner 2008 (intervals of sums from intervals of their parts).
    """
    value = score("balanced_accuracy", outcomes)
    counts = confusion(outcomes)
    rows, right = counts.sum(1), counts.diagonal()
    parts = [wilson(int(right[code]), int(rows[code]), level) for code in np.flatnonzero(rows)]
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Interval(value, max(0.0, value - below), min(1.0, value + above), level, "Wilson, over labels")


def metric_interval(
    name: str, runs: Sequence[Outcomes], *, level: float = 0.95, seed_noise: SeedNoise | None = None
) -> Interval:
    """Return the interval to print beside a metric: of all above the one that covers best in simulations.

    Wilson for one run's share of right rows, and over labels for its balanced accuracy; the jackknife for all others
    and for several runs. Errors of calibration are too high by chance, so their lower end is lowered by as much. Where
    all rows of all runs are right, or all wrong, nothing varies and Wilson bounds the other side.

    ``seed_noise`` of a study is for strategies whose result hangs on their seed; see :func:`jackknife_interval`.

    One limit: with fewer than about two rows a label no interval of macro F1 covers, because labels that never occurred
    are in none.
    """
    check_same_rows(runs)
    alike = _all_alike(name, runs)
    if alike is not None:
        bound = wilson(alike * runs[0].units, runs[0].units, level)
        return Interval(alike, bound.low, bound.high, level, "Wilson, all rows alike")
    if len(runs) == 1 and runs[0].groups is None and seed_noise is None:
        if name == "balanced_accuracy":
            return recall_interval(runs[0], level=level)
        if metric(name).is_per_row and _is_binary(per_row(name, runs[0])):
            return wilson(float(per_row(name, runs[0]).sum()), len(runs[0]), level)
    found = jackknife_interval(name, runs, level=level, seed_noise=seed_noise)
    chance = float(np.mean([metric(name).by_chance(run) for run in runs]))
    return replace(found, low=max(metric(name).lowest, found.low - chance)) if chance else found


def _within(middle: float, reach: float, entry: Metric, units: int) -> tuple[float, float]:
    """Return the ends of middle -+ reach, bent so that they stay within the metric's range.

    Close to an end of the range the logit scale stretches what seeds of other strategies could do beyond all measure;
    so no end lies further off than twice the reach.
    """
    if math.isinf(entry.highest):
        return max(entry.lowest, middle - reach), middle + reach
    width = entry.highest - entry.lowest
    share = min(max((middle - entry.lowest) / width, 0.5 / units), 1 - 0.5 / units)
    centre, half = math.log(share / (1 - share)), reach / width / (share * (1 - share))
    ends = (1 / (1 + math.exp(-max(-700.0, min(700.0, end)))) for end in (centre - half, centre + half))
    low, high = (entry.lowest + width * end for end in ends)
    return max(low, middle - 2 * reach), min(high, middle + 2 * reach)


def _all_alike(name: str, runs: Sequence[Outcomes]) -> float | None:
    """Return 1 where every run is perfect, 0 where every run has nothing right at all, else None."""
    values = {score(name, run) for run in runs}
    if len(values) != 1 or metric(name).needs_probabilities:
        return None
    value = values.pop()
    is_degenerate = value == 1.0 or (value == 0.0 and name != "mcc")
    return value if is_degenerate else None


def _is_binary(values: FloatArray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _bca_tails(values: FloatArray, value: float, left_out: FloatArray, tails: FloatArray) -> FloatArray | None:
    """Return the corrected quantile levels, or None where the correction does not exist."""
    from scipy.stats import norm

    below = (np.sum(values < value) + 0.5 * np.sum(values == value)) / len(values)
    spread = left_out.mean() - left_out
    scale = np.sum(spread**2)
    if not 0 < below < 1 or scale == 0:
        return None
    bias = norm.ppf(below)
    acceleration = np.sum(spread**3) / (6 * scale**1.5)
    shifted = bias + norm.ppf(tails)
    corrected: FloatArray = norm.cdf(bias + shifted / (1 - acceleration * shifted))
    return corrected


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1 (got {level}); 0.95 is usual")


def _check_resamples(resamples: int) -> None:
    if resamples < 100:
        raise ConfigError(f"resamples must be at least 100 (got {resamples}); 2000 is the default")
