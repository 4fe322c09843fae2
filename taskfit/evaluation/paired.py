"""Are two strategies different? Paired comparisons over the same rows, with any number of seeds each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError
from taskfit.evaluation.metrics import metric, per_row, score, unit_columns
from taskfit.evaluation.outcomes import Outcomes, check_same_rows
from taskfit.evaluation.resampling import jackknife, resampled, seed_weights

__all__ = [
    "McNemar",
    "PairedComparison",
    "SeedNoise",
    "compare_paired",
    "holm",
    "mcnemar",
    "minimum_detectable_difference",
    "pooled_seed_noise",
]

FloatArray = NDArray[np.float64]

_BLOCK_VALUES = 4_000_000  # swaps held at a time


@dataclass(frozen=True)
class PairedComparison:
    """Two strategies on one metric, over the same rows.

    Attributes:
        metric: its name.
        value_a, value_b: mean metric of each strategy's runs.
        difference: value_a - value_b.
        low, high: the interval of the difference, rows and seeds resampled together.
        level: of the interval.
        p_value: the larger of the two below: to be called different, both must say so.
        p_rows: permutation test over rows: do these very runs differ, on rows like these?
        p_seeds: t test whose variance includes the seeds: would runs with other seeds differ as well? None where
            each strategy has a single run, so that nothing is known about seeds.
        rows, runs_a, runs_b: how much was compared.
        method: in words for the report.
    """

    metric: str
    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    level: float
    p_value: float
    p_rows: float
    p_seeds: float | None
    rows: int
    runs_a: int
    runs_b: int
    method: str


def compare_paired(
    name: str,
    runs_a: Sequence[Outcomes],
    runs_b: Sequence[Outcomes],
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    seed_noise: SeedNoise | None = None,
) -> PairedComparison:
    """Compare two strategies, each given as the runs of its seeds (a deterministic strategy has one).

    The interval resamples rows (whole groups where there are some) jointly for both, and the seeds of each. The
    permutation test swaps both strategies' outcomes of a row; where a strategy has several runs, their mean.
    ``seed_noise`` is what :func:`pooled_seed_noise` learnt from all strategies of a study: with two or three seeds
    each, a strategy's own variance has too few degrees of freedom to tell even large differences from chance.

    Raises:
        DataError: no runs, or runs over different rows. ConfigError: the metric does not fit the task.
    Source: Owen 2007 for the interval; Fisher 1935 and Noreen 1989 for the swaps.
    """
    check_same_rows([*runs_a, *runs_b])
    a, b = (float(np.mean([score(name, run) for run in runs])) for runs in (runs_a, runs_b))
    low, high = _difference_interval(name, runs_a, runs_b, resamples, seed, level)
    p_rows = _swap_test(name, runs_a, runs_b, permutations, seed)
    p_seeds = None
    if len(runs_a) + len(runs_b) > 2:
        # With so few seeds the first test cannot see even a large difference, and one noisy strategy spoils the
        # second for all; so both are made, and the smaller p-value is doubled (Bonferroni) for having been picked.
        tests = [_seed_test(name, runs_a, runs_b, noise) for noise in {None, seed_noise}]
        p_seeds = min(1.0, len(tests) * min(tests))
    over = "rows" if runs_a[0].groups is None else "groups of rows"
    method = f"paired over {over}, {len(runs_a)} against {len(runs_b)} seeds; permutation test"
    return PairedComparison(
        metric=name,
        value_a=a,
        value_b=b,
        difference=a - b,
        low=low,
        high=high,
        level=level,
        p_value=p_rows if p_seeds is None else max(p_rows, p_seeds),
        p_rows=p_rows,
        p_seeds=p_seeds,
        rows=len(runs_a[0]),
        runs_a=len(runs_a),
        runs_b=len(runs_b),
        method=method if p_seeds is None else f"{method} and t test with the seeds' variance, the larger p",
    )


@dataclass(frozen=True)
class SeedNoise:
    """How much a metric moves from seed to seed, learnt from all strategies of a study together.

    Attributes:
        variance: of one run's figure, in the metric's unit squared; what rows explain is taken out.
        freedom: degrees of freedom: seeds less strategies, over strategies with more than one seed.
    """

    variance: float
    freedom: int


def pooled_seed_noise(name: str, strategies: Sequence[Sequence[Outcomes]]) -> SeedNoise | None:
    """Pool the variance between seeds over strategies, as the analysis of variance pools that within its groups.

    Args:
        name: the metric.
        strategies: the runs of each strategy; those with one run tell nothing.

    Returns:
        None where no strategy has two runs.
    Source: Fisher 1925, section 41 (the error mean square).
    """
    tables = [_pseudo_values(name, runs) for runs in strategies if len(runs) > 1]
    freedom = sum(len(table) - 1 for table in tables)
    if freedom == 0:
        return None
    total = math.fsum((len(table) - 1) * len(table) * _seed_variance(table) for table in tables)
    return SeedNoise(total / freedom, freedom)


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two runs got right, and how likely so uneven a split is by chance."""

    only_a_right: int
    only_b_right: int
    p_value: float


def mcnemar(a: Outcomes, b: Outcomes) -> McNemar:
    """Exact two-sided test of two single runs by the rows that only one of them got right.

    Right means: accuracy (classification, choice) or exact match (generation) gives 1. Groups are not regarded.

    Raises:
        DataError: the runs are not over the same rows.
    Source: McNemar 1947; the exact form is the binomial test of the discordant rows.
    """
    check_same_rows([a, b])
    from scipy.stats import binomtest

    name = "exact_match" if a.kind == "generation" else "accuracy"
    gap = per_row(name, a) - per_row(name, b)
    only_a, only_b = int((gap > 0).sum()), int((gap < 0).sum())
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests, in their order: each is to be held against the level as if it stood alone.

    Raises:
        ConfigError: a value outside 0 to 1.
    Source: Holm 1979.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ConfigError(f"p-values must be between 0 and 1 (got {list(p_values)})")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def minimum_detectable_difference(
    rows: int, *, discordance: float = 0.2, power: float = 0.8, level: float = 0.05
) -> float:
    """Return the smallest difference in accuracy that a paired test over so many rows would mostly find.

    Args:
        rows: of the test set.
        discordance: share of rows that only one of the two gets right; never below the difference itself. 0.2 is a
            cautious guess before anything has run.
        power: how often the difference is to be found.
        level: of the two-sided test.

    Returns:
        A share of rows; 1 where even the largest difference could not be found.

    Raises:
        ConfigError: a value outside its range.
    Source: Connor 1987, equation 2 (sample size of McNemar's test), solved for the difference.
    """
    if rows < 1 or not (0 < discordance <= 1 and 0 < power < 1 and 0 < level < 1):
        raise ConfigError(
            f"expected rows of at least 1 and shares between 0 and 1 (got {rows}, {discordance}, {power}, {level})"
        )
    from scipy.optimize import brentq
    from scipy.stats import norm

    z_level, z_power = float(norm.isf(level / 2)), float(norm.isf(1 - power))

    def missing_rows(gap: float) -> float:
        apart = max(discordance, gap)
        needed = ((z_level * math.sqrt(apart) + z_power * math.sqrt(max(0.0, apart - gap * gap))) / gap) ** 2
        return needed - rows

    if missing_rows(1.0) > 0:
        return 1.0
    return float(brentq(missing_rows, 1e-9, 1.0))


def _difference_interval(
    name: str, runs_a: Sequence[Outcomes], runs_b: Sequence[Outcomes], resamples: int, seed: int, level: float
) -> tuple[float, float]:
    values = resampled(name, [*runs_a, *runs_b], resamples, seed)
    shares_a = seed_weights(len(runs_a), resamples, seed)
    shares_b = seed_weights(len(runs_b), resamples, seed + 1)
    gaps = (values[:, : len(runs_a)] * shares_a).sum(1) - (values[:, len(runs_a) :] * shares_b).sum(1)
    low, high = np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _swap_test(
    name: str, runs_a: Sequence[Outcomes], runs_b: Sequence[Outcomes], permutations: int, seed: int
) -> float:
    """Two-sided p-value: how often swapping random units between the strategies gives as large a difference."""
    value = metric(name).value
    parts_a, parts_b = _mean_columns(name, runs_a), _mean_columns(name, runs_b)
    total_a, total_b = (np.asarray(part.sum(axis=0)).ravel() for part in (parts_a, parts_b))
    change = parts_b - parts_a
    changed = change[np.flatnonzero(abs(change).sum(axis=1) > 1e-12)]
    if changed.shape[0] == 0:
        return 1.0
    seen = abs(float(value(total_a) - value(total_b)))
    generator = np.random.Generator(np.random.PCG64([seed, 3]))
    most, extreme = max(1, _BLOCK_VALUES // changed.shape[0]), 0
    for start in range(0, permutations, most):
        swaps = generator.random((min(most, permutations - start), changed.shape[0])) < 0.5
        moved = np.asarray(swaps.astype(np.float64) @ changed)
        extreme += int((abs(value(total_a + moved) - value(total_b - moved)) >= seen - 1e-12).sum())
    return (extreme + 1) / (permutations + 1)


def _mean_columns(name: str, runs: Sequence[Outcomes]) -> Any:  # a scipy sparse array; scipy has no types
    return reduce(add, [unit_columns(name, run) for run in runs]) / len(runs)


def _seed_test(name: str, runs_a: Sequence[Outcomes], runs_b: Sequence[Outcomes], noise: SeedNoise | None) -> float:
    """Two-sided p-value of a t test whose variance adds the rows' part and the part of each strategy's seeds.

    Source: the analysis of variance with two crossed random factors, on jackknife pseudo-values; degrees of freedom
    by Satterthwaite 1946.
    """
    from scipy.stats import t

    a, b = _pseudo_values(name, runs_a), _pseudo_values(name, runs_b)
    units = a.shape[1]
    if units < 2:
        return 1.0
    parts = [(float(np.var(a.mean(0) - b.mean(0), ddof=1)) / units, units - 1)]
    parts += [_seed_part(table, noise) for table in (a, b) if table.shape[0] > 1]
    variance = math.fsum(part for part, _ in parts)
    gap = float(np.mean([score(name, run) for run in runs_a]) - np.mean([score(name, run) for run in runs_b]))
    if variance == 0:
        return 1.0 if gap == 0 else 0.0
    freedom = variance**2 / math.fsum(part**2 / degrees for part, degrees in parts)
    return float(2 * t.sf(abs(gap) / math.sqrt(variance), freedom))


def _seed_part(table: FloatArray, noise: SeedNoise | None) -> tuple[float, int]:
    """Return the variance that seeds add to a strategy's mean, and its degrees of freedom.

    The pooled variance never makes a strategy look steadier than its own seeds do.
    """
    own, seeds = _seed_variance(table), len(table)
    if noise is None or noise.freedom <= seeds - 1:
        return own, seeds - 1
    return max(own, noise.variance / seeds), noise.freedom


def _pseudo_values(name: str, runs: Sequence[Outcomes]) -> FloatArray:
    """Return what each unit adds to the metric of each run, shape (runs, units); the values themselves for a mean."""
    units = runs[0].units
    return np.stack([units * score(name, run) - (units - 1) * jackknife(name, run) for run in runs])


def _seed_variance(table: FloatArray) -> float:
    """Variance of the mean over seeds that rows do not explain, from values of shape (seeds, units)."""
    seeds, units = len(table), int(table.shape[1])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    noise = float((rest**2).sum()) / ((seeds - 1) * (units - 1))
    apart = float(np.var(table.mean(1), ddof=1))
    return max(0.0, apart - noise / units) / seeds
