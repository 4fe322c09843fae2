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
from taskfit.evaluation.uncertainty import (
    SeedNoise,
    Uncertainty,
    chance_beyond,
    luck_of_seeds,
    of_difference,
    pooled,
    pseudo_values,
    reach,
    row_variance,
)

__all__ = [
    "McNemar",
    "PairedComparison",
    "SeedNoise",
    "compare_paired",
    "holm",
    "mcnemar",
    "minimum_detectable_difference",
    "pooled_seed_noise",
    "rows_needed",
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
        low, high: the interval of the difference, from the variance of rows and seeds together.
        level: of the interval.
        p_value: the larger of the two below: to be called different, both must say so.
        p_rows: permutation test over rows: do these very runs differ, on rows like these?
        p_seeds: t test whose variance includes the seeds, itself known badly: would runs with other seeds differ as
            well? None where each strategy has a single run, so that nothing is known about seeds.
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
    permutations: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    seed_noise: SeedNoise | None = None,
    has_luck: tuple[bool, bool] = (False, False),
) -> PairedComparison:
    """Compare two strategies, each given as the runs of its seeds (a deterministic strategy has one).

    The permutation test swaps both strategies' outcomes of a row (of a whole group where there are some); where a
    strategy has several runs, their mean. The interval, and the test that regards seeds, are :func:`of_difference`'s.
    ``seed_noise`` is what :func:`pooled_seed_noise` learnt from all strategies of a study: with two or three seeds
    each, two strategies alone have too few degrees of freedom to tell even large differences from chance.
    ``has_luck`` says of each strategy whether its result hangs on seeds even where it has a single run.

    Raises:
        DataError: no runs, or runs over different rows. ConfigError: the metric does not fit the task.
    Source: Fisher 1935 and Noreen 1989 for the swaps.
    """
    check_same_rows([*runs_a, *runs_b])
    a, b = (float(np.mean([score(name, run) for run in runs])) for runs in (runs_a, runs_b))
    entry, gap = metric(name), a - b
    half = entry.highest - entry.lowest
    ways: tuple[Uncertainty, ...] | None = None
    if runs_a[0].units > 1:
        half = reach(of_difference(name, runs_a, runs_b, seed_noise, has_luck=has_luck), (1 - level) / 2)
        ways = of_difference(name, runs_a, runs_b, seed_noise, is_cautious=False, has_luck=has_luck)
    has_seeds = len(runs_a) + len(runs_b) > 2 or (any(has_luck) and seed_noise is not None)
    p_rows = (
        _swap_test(name, runs_a, runs_b, permutations, seed) if entry.is_shared else _rows_test(name, runs_a, runs_b)
    )
    p_seeds = _two_sided(ways, gap) if has_seeds else None
    over = "rows" if runs_a[0].groups is None else "groups of rows"
    how = "permutation test" if entry.is_shared else "t test of pseudo-values"
    method = f"paired over {over}, {len(runs_a)} against {len(runs_b)} seeds; {how}"
    return PairedComparison(
        metric=name,
        value_a=a,
        value_b=b,
        difference=gap,
        low=gap - half,
        high=gap + half,
        level=level,
        p_value=p_rows if p_seeds is None else max(p_rows, p_seeds),
        p_rows=p_rows,
        p_seeds=p_seeds,
        rows=len(runs_a[0]),
        runs_a=len(runs_a),
        runs_b=len(runs_b),
        method=method if p_seeds is None else f"{method} and t test with the seeds' variance, the larger p",
    )


def pooled_seed_noise(name: str, strategies: Sequence[Sequence[Outcomes]]) -> SeedNoise | None:
    """Pool the variance between seeds over strategies, as the analysis of variance pools that within its groups.

    Args:
        name: the metric.
        strategies: the runs of each strategy; those with one run tell nothing.

    Returns:
        None where no strategy has two runs, or the rows are one unit.
    Source: Fisher 1925, section 41 (the error mean square).
    """
    parts = _noises(name, strategies)
    return pooled(parts) if parts else None


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two runs got right, and how likely so uneven a split is by chance.

    Attributes:
        only_a_right, only_b_right: numbers of rows.
        p_value: exact, two-sided; its true level is below the stated one, the more the fewer rows differ.
        mid_p: the same with the observed split counted half, whose level is close to the stated one; the one to use.
        p_worse: as ``mid_p``, one-sided: how likely a would be right so rarely, were it as good as b.
    """

    only_a_right: int
    only_b_right: int
    p_value: float
    mid_p: float
    p_worse: float


def mcnemar(a: Outcomes, b: Outcomes) -> McNemar:
    """Test of two single runs by the rows that only one of them got right, exact and as mid-p.

    Right means: accuracy (classification, choice) or exact match (generation) gives 1. Groups are not regarded.

    Raises:
        DataError: the runs are not over the same rows.
    Source: McNemar 1947; the exact form is the binomial test of the discordant rows; Fagerland, Lydersen and Laake
    2013 for the mid-p form.
    """
    check_same_rows([a, b])
    from scipy.stats import binom

    name = "exact_match" if a.kind == "generation" else "accuracy"
    gap = per_row(name, a) - per_row(name, b)
    only_a, only_b = int((gap > 0).sum()), int((gap < 0).sum())
    apart, fewer = only_a + only_b, min(only_a, only_b)
    exact = min(1.0, 2 * float(binom.cdf(fewer, apart, 0.5)))
    mid_p = min(1.0, 2 * float(binom.cdf(fewer, apart, 0.5)) - float(binom.pmf(fewer, apart, 0.5)))
    p_worse = float(binom.cdf(only_a, apart, 0.5) - 0.5 * binom.pmf(only_a, apart, 0.5))
    return McNemar(only_a, only_b, exact, 1.0 if only_a == only_b else mid_p, p_worse)


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

    def missing_rows(gap: float) -> float:
        return _needed(gap, discordance, power, level) - rows

    if missing_rows(1.0) > 0:
        return 1.0
    return float(brentq(missing_rows, 1e-9, 1.0))


def rows_needed(difference: float, *, discordance: float = 0.2, power: float = 0.8, level: float = 0.05) -> int:
    """Return the fewest test rows on which a paired test would mostly find that difference in accuracy.

    The other way round from :func:`minimum_detectable_difference`, with the same arguments and source.

    Raises:
        ConfigError: a value outside its range.
    """
    if not (0 < difference <= 1 and 0 < discordance <= 1 and 0 < power < 1 and 0 < level < 1):
        raise ConfigError(f"expected shares between 0 and 1 (got {difference}, {discordance}, {power}, {level})")
    return math.ceil(_needed(difference, discordance, power, level) - 1e-9)


def _needed(gap: float, discordance: float, power: float, level: float) -> float:
    """Return the rows needed to find the gap, before rounding."""
    from scipy.stats import norm

    z_level, z_power = float(norm.isf(level / 2)), float(norm.isf(1 - power))
    apart = max(discordance, gap)
    return ((z_level * math.sqrt(apart) + z_power * math.sqrt(max(0.0, apart - gap * gap))) / gap) ** 2


def _two_sided(ways: Sequence[Uncertainty] | None, gap: float) -> float:
    """Return the chance of a difference as large as this one, either way, were there none; 1 where nothing is known."""
    return 1.0 if ways is None or gap == 0 else min(1.0, 2 * chance_beyond(ways, abs(gap)))


def _rows_test(name: str, runs_a: Sequence[Outcomes], runs_b: Sequence[Outcomes]) -> float:
    """Two-sided p-value of a paired t test over units, for metrics whose columns cannot be swapped between runs."""
    if runs_a[0].units < 2:
        return 1.0
    gaps = pseudo_values(name, runs_a).mean(0) - pseudo_values(name, runs_b).mean(0)
    gap = float(np.mean([score(name, run) for run in runs_a]) - np.mean([score(name, run) for run in runs_b]))
    return _two_sided([Uncertainty(row_variance(gaps), len(gaps) - 1.0)], gap)


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


def _noises(name: str, strategies: Sequence[Sequence[Outcomes]]) -> list[SeedNoise]:
    """Return what each strategy with more than one run tells about the luck of seeds."""
    repeated = [runs for runs in strategies if len(runs) > 1 and runs[0].units > 1]
    return [luck_of_seeds(pseudo_values(name, runs)) for runs in repeated]
