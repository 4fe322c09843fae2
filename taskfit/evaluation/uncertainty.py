"""How far a figure could be off, from rows and from seeds, where the seeds' part is itself badly known.

A figure's variance has a part from rows and a part from seeds. Two or three seeds tell little about their own part:
its estimate is often near 0 by chance, and an interval that trusts it is too narrow. So the estimate is not trusted
but spread out: for every value that the seeds' part could have, given what was seen, the chance of so large an error
is computed, and these chances are averaged. The result stands for a t distribution whose degrees of freedom follow
from the data. Values that no luck of seeds could reach are left out, or two seeds would leave open figures that the
metric cannot take.

Sources: Tukey 1958 (jackknife pseudo-values); Fisher 1935 (fiducial averaging over the variance); Weerahandi 1993
(generalised intervals for variance components).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.metrics import metric, score
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.resampling import jackknife

__all__ = [
    "LARGEST_LUCK",
    "PAIRED_SEEDS",
    "SeedNoise",
    "Uncertainty",
    "chance_beyond",
    "luck_of_seeds",
    "of_difference",
    "of_figure",
    "pooled",
    "pseudo_values",
    "reach",
    "row_freedom",
    "row_variance",
]

FloatArray = NDArray[np.float64]

_BORROWED_FREEDOM = 2  # simulated: with it, intervals of single runs cover where their luck is three times the others'
_GRID = 400  # values of the seeds' part that are averaged over

PAIRED_SEEDS = 4
"""Seeds of both strategies from which on their runs are also compared seed by seed."""

LARGEST_LUCK = 0.25
"""Standard deviation over seeds that no strategy exceeds, as a share of the metric's range.

Runs of which every second one fails altogether, half the range below the others, have this one. The largest luck of
fine-tuning in print comes near it: runs that fail on small data (Mosbach et al. 2021, figure 1)."""


@dataclass(frozen=True)
class SeedNoise:
    """What the runs of one strategy, or of several together, tell about the luck of seeds.

    Attributes:
        spread: variance of a single run's figure around the mean over its seeds.
        from_rows: the part of it that is owed to answers differing row by row, not to better and worse seeds.
        freedom: degrees of freedom of the spread.
    """

    spread: float
    from_rows: float
    freedom: int

    @property
    def variance(self) -> float:
        """Variance that the luck of a seed adds to a single run's figure, on rows without end."""
        return max(0.0, self.spread - self.from_rows)


@dataclass(frozen=True)
class Uncertainty:
    """The error of a figure or a difference: a part from rows and a part from seeds.

    Attributes:
        rows: variance owed to rows.
        row_freedom: its degrees of freedom.
        spread, from_rows: as in :class:`SeedNoise`, but of the figure itself, a mean over runs.
        seed_freedom: degrees of freedom of the spread; 0 where nothing is known about seeds.
        largest: largest variance that seeds can add to the figure.
    """

    rows: float
    row_freedom: float
    spread: float = 0.0
    from_rows: float = 0.0
    seed_freedom: int = 0
    largest: float = math.inf

    def tail(self, distance: float) -> float:
        """Return the chance that the error is above ``distance``, which may be negative."""
        from scipy.special import stdtr

        if distance == 0:
            return 0.5
        variance = self._variances()
        scaled = np.divide(
            distance,
            np.sqrt(variance),
            out=np.full_like(variance, math.copysign(math.inf, distance)),
            where=variance > 0,
        )
        return float(stdtr(self.row_freedom, -scaled).mean())

    def reach(self, chance: float) -> float:
        """Return the distance that the error is above with that chance, at most one half."""
        from scipy.optimize import brentq

        largest = float(np.sqrt(self._variances().max()))
        if largest == 0:
            return 0.0
        end = largest
        while self.tail(end) > chance:
            end *= 4
        return float(brentq(lambda distance: self.tail(distance) - chance, 0.0, end, xtol=1e-15, rtol=1e-6))

    def _variances(self) -> FloatArray:
        if not self.seed_freedom:
            return np.array([self.rows])
        possible = self.spread * _inverse_chances(self.seed_freedom) - self.from_rows
        return self.rows + np.clip(possible, 0.0, self.largest)


@lru_cache(maxsize=64)
def _inverse_chances(freedom: int) -> FloatArray:
    """Return freedom / chi-square at evenly spaced chances: what true variance by estimated variance can be."""
    from scipy.stats import chi2

    values: FloatArray = freedom / chi2.ppf((np.arange(_GRID) + 0.5) / _GRID, freedom)
    return values


def pseudo_values(name: str, runs: Sequence[Outcomes]) -> FloatArray:
    """Return what each unit adds to the metric of each run, shape (runs, units); the values themselves for a mean.

    Their mean over units is the metric, less its bias where few rows make a metric of counts too low or too high.
    """
    units = runs[0].units

    def of_run(run: Outcomes) -> FloatArray:
        values: FloatArray = units * score(name, run) - (units - 1) * jackknife(name, run)
        return values

    return np.stack([run.once(f"pseudo-values of {name}", partial(of_run, run)) for run in runs])


def row_variance(values: FloatArray) -> float:
    """Return the variance of the mean of one value a unit, shape (units,); at least two units."""
    return float(np.var(values, ddof=1)) / len(values)


def row_freedom(values: FloatArray) -> float:
    """Return how well that variance is known, in degrees of freedom: fewer where a few units make most of it.

    Source: Satterthwaite 1946, with the kurtosis of the values for the variance of their variance.
    """
    around = values - values.mean()
    second = float((around**2).mean())
    if second == 0:
        return float(len(values) - 1)
    kurtosis = float((around**4).mean()) / second**2
    return max(1.0, min(len(values) - 1.0, 2 * len(values) / max(kurtosis - 1, 1e-9)))


def luck_of_seeds(table: FloatArray) -> SeedNoise:
    """Return what values of shape (seeds, units) tell about the luck of seeds; at least two of each.

    Source: the analysis of variance with two crossed random factors (Cornfield and Tukey 1956).
    """
    seeds, units = table.shape
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    from_rows = float((rest**2).sum()) / ((seeds - 1) * (units - 1) * units)
    return SeedNoise(float(np.var(table.mean(1), ddof=1)), from_rows, seeds - 1)


def pooled(parts: Sequence[SeedNoise]) -> SeedNoise:
    """Return the mean of several, weighted by their degrees of freedom, which add up; at least one."""
    freedom = sum(part.freedom for part in parts)
    spread = math.fsum(part.freedom * part.spread for part in parts) / freedom
    from_rows = math.fsum(part.freedom * part.from_rows for part in parts) / freedom
    return SeedNoise(spread, from_rows, freedom)


def of_figure(name: str, runs: Sequence[Outcomes], noise: SeedNoise | None = None) -> tuple[Uncertainty, ...]:
    """Return how far the mean figure of a strategy's runs could be off, in one or two ways, as in `of_difference`.

    A single run tells nothing about seeds: where ``noise`` says what seeds do in its study, that is taken for it;
    otherwise the rows alone count. With two units or more.
    """
    table = pseudo_values(name, runs)
    middle = table.mean(0)
    rows, freedom = row_variance(middle), row_freedom(middle)
    own = luck_of_seeds(table) if len(table) > 1 else None
    if own is None and noise is None:
        return (Uncertainty(rows, freedom),)
    if own is None and noise is not None:  # another strategy's luck may be far from this one's
        noise = replace(noise, freedom=min(noise.freedom, _BORROWED_FREEDOM))
    return _with_seeds(name, rows, freedom, [(1 / len(table), own)], noise)


def of_difference(
    name: str,
    runs_a: Sequence[Outcomes],
    runs_b: Sequence[Outcomes],
    noise: SeedNoise | None = None,
    *,
    is_cautious: bool = True,
    has_luck: tuple[bool, bool] = (False, False),
) -> tuple[Uncertainty, ...]:
    """Return how far the difference of two strategies' mean figures could be off, in one to three ways.

    The first way pools the luck of seeds over these two strategies. The second, where ``noise`` of a whole study
    knows more, takes the study's, but never less than either strategy's own: strategies differ in how lucky they get.
    The third, from ``PAIRED_SEEDS`` seeds each on, pairs the runs of a seed: they learn from the same rows, so part of
    their luck is the same and falls out of the difference; with fewer, its degrees of freedom are too few to help.
    :func:`chance_beyond` and :func:`reach` combine them. With two units or more; a single unit tells nothing.

    ``is_cautious`` adds two units that differ as much as can be, one each way: answers that are all the same on a few
    rows do not prove that they are the same on all. Tests of "no difference at all" need no such caution.
    ``has_luck`` says of each strategy whether its runs hang on seeds even where there is only one run, whose luck is
    then taken to be that of the others.
    Source: Bonett and Price 2012 (the added units).
    """
    tables = [pseudo_values(name, runs) for runs in (runs_a, runs_b)]
    gaps = tables[0].mean(0) - tables[1].mean(0)
    width = metric(name).highest - metric(name).lowest
    if is_cautious and math.isfinite(width):
        gaps = np.append(gaps, (-width, width))
    rows, freedom = row_variance(gaps), float(len(gaps) - 1)
    parts = [
        (1 / len(table), luck_of_seeds(table) if len(table) > 1 else None)
        for table, is_lucky in zip(tables, has_luck, strict=True)
        if len(table) > 1 or is_lucky
    ]
    if not parts or (noise is None and all(own is None for _, own in parts)):
        return (Uncertainty(rows, freedom),)
    ways = _with_seeds(name, rows, freedom, parts, noise)
    if len(tables[0]) != len(tables[1]) or len(tables[0]) < PAIRED_SEEDS:
        return ways
    share, own = 1 / len(tables[0]), luck_of_seeds(tables[0] - tables[1])
    seeds = (own.spread * share, own.from_rows * share, own.freedom)
    return (*ways, replace(ways[0], spread=seeds[0], from_rows=seeds[1], seed_freedom=seeds[2]))


def _with_seeds(
    name: str,
    rows: float,
    freedom: float,
    parts: Sequence[tuple[float, SeedNoise | None]],
    noise: SeedNoise | None,
) -> tuple[Uncertainty, ...]:
    """Add the luck of seeds: of each strategy, one by its number of runs and what its own runs tell, if anything."""
    share = sum(each for each, _ in parts)
    width = metric(name).highest - metric(name).lowest
    largest = share * (LARGEST_LUCK * width) ** 2
    known = [own for _, own in parts if own is not None]
    found = []
    if known:
        here = pooled(known)
        found.append((here.spread * share, here.from_rows * share, here.freedom))
    if noise is not None and noise.freedom > (found[0][2] if found else 0):
        spread = sum(each * max(noise.spread, own.spread if own else 0.0) for each, own in parts)
        from_rows = sum(each * (own or noise).from_rows for each, own in parts)
        found.append((spread, from_rows, noise.freedom))
    return tuple(Uncertainty(rows, freedom, *seeds, largest) for seeds in found)


def chance_beyond(ways: Sequence[Uncertainty], distance: float) -> float:
    """Return the chance of an error above ``distance``: the smallest of all ways, times their number (Bonferroni)."""
    return min(1.0, len(ways) * min(way.tail(distance) for way in ways))


def reach(ways: Sequence[Uncertainty], chance: float) -> float:
    """Return the distance that the error is above with that chance, as ``chance_beyond`` says it."""
    return min(way.reach(chance / len(ways)) for way in ways)
