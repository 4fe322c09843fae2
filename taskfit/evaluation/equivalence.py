"""Results that a test of difference cannot give: alike within a margin, not worse, and worse beyond noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskfit.errors import ConfigError
from taskfit.evaluation.metrics import metric, score
from taskfit.evaluation.outcomes import Outcomes, check_same_rows
from taskfit.evaluation.paired import mcnemar
from taskfit.evaluation.uncertainty import SeedNoise, Uncertainty, chance_beyond, of_difference, reach

__all__ = ["Equivalence", "Fall", "equivalent_within", "worse_beyond_noise"]


@dataclass(frozen=True)
class Equivalence:
    """Whether two strategies cannot be told apart within a margin.

    "Not significantly different" is no evidence of being alike: with few rows nothing is significant. Here being
    alike has to be shown.

    Attributes:
        metric: its name.
        margin: differences up to this are too small to matter.
        difference: mean metric of a less that of b.
        low, high: the interval that must lie within the margin: of 90 % for a test at 5 %.
        p_value: the larger of two one-sided tests, against each side of the margin.
        level: of the test.
    """

    metric: str
    margin: float
    difference: float
    low: float
    high: float
    p_value: float
    level: float

    @property
    def is_equivalent(self) -> bool:
        """True where a difference beyond the margin is ruled out."""
        return self.p_value < self.level

    @property
    def text(self) -> str:
        """The result in a sentence."""
        points = f"{self.margin * 100:g} point{'' if self.margin == 0.01 else 's'} of {self.metric}"
        if self.is_equivalent:
            return f"cannot be told apart within {points}"
        if self.low > self.margin or self.high < -self.margin:
            return f"apart by more than {points}"
        return f"open: these rows cannot say whether they are alike within {points}"


def equivalent_within(
    name: str,
    runs_a: Sequence[Outcomes],
    runs_b: Sequence[Outcomes],
    *,
    margin: float = 0.01,
    level: float = 0.05,
    seed_noise: SeedNoise | None = None,
    has_luck: tuple[bool, bool] = (False, False),
) -> Equivalence:
    """Test whether two strategies are alike within a margin, rows and seeds allowed for.

    Args:
        name: the metric.
        runs_a: the runs of one strategy's seeds.
        runs_b: those of the other's, over the same rows.
        margin: in the metric's unit; 0.01 is one point.
        level: of the test.
        seed_noise: what ``pooled_seed_noise`` learnt from a whole study.
        has_luck: of each, whether its result hangs on its seed even where it has a single run.

    Returns:
        The result; with a single row or group of rows nothing is shown and p is 1.

    Raises:
        ConfigError: margin or level out of range. DataError: the runs are not over the same rows.
    Source: Schuirmann 1987 (two one-sided tests).
    """
    _check(margin, level, is_margin_needed=True)
    ways, gap = _ways(name, runs_a, runs_b, seed_noise, has_luck)
    if ways is None:
        width = metric(name).highest - metric(name).lowest
        return Equivalence(name, margin, gap, gap - width, gap + width, 1.0, level)
    half = reach(ways, level)
    p_value = max(chance_beyond(ways, margin - gap), chance_beyond(ways, margin + gap))
    return Equivalence(name, margin, gap, gap - half, gap + half, p_value, level)


@dataclass(frozen=True)
class Fall:
    """Whether something got worse, and whether that was ruled out: two questions, two answers.

    Attributes:
        metric: its name.
        margin: losses up to this do not count.
        difference: mean metric now less before, turned so that below 0 is worse also where lower is better.
        low, high: one-sided bounds of it, each at 1 - level: the worst and the best that the rows leave open.
        p_worse: how likely so low a figure is, were it not worse than the margin allows.
        p_not_worse: how likely so high a figure is, were it worse by the margin or more; of use with a margin above 0.
        level: of both tests.
    """

    metric: str
    margin: float
    difference: float
    low: float
    high: float
    p_worse: float
    p_not_worse: float
    level: float

    @property
    def is_worse(self) -> bool:
        """True where it got worse by more than the margin, beyond noise."""
        return self.p_worse < self.level

    @property
    def is_not_worse(self) -> bool:
        """True where a loss as large as the margin is ruled out (non-inferiority)."""
        return self.p_not_worse < self.level


def worse_beyond_noise(
    name: str,
    now: Sequence[Outcomes],
    before: Sequence[Outcomes],
    *,
    margin: float = 0.0,
    level: float = 0.05,
    seed_noise: SeedNoise | None = None,
) -> Fall:
    """Test one-sidedly whether the runs of now are worse than those of before, over the same rows.

    For one run each of a metric that is right or wrong per row, without groups and margin, McNemar's mid-p test by
    the rows that changed; otherwise Student's test of the paired rows, with the seeds' variance where there are
    several runs. With a single row or group of rows nothing is shown and both p are 1.

    Raises:
        ConfigError: margin or level out of range. DataError: the runs are not over the same rows.
    Source: Fagerland, Lydersen and Laake 2013 (mid-p); Wellek 2010, section 1.6 (non-inferiority).
    """
    _check(margin, level, is_margin_needed=False)
    ways, raw = _ways(name, now, before, seed_noise)
    entry = metric(name)
    gap = raw if entry.higher_is_better else -raw
    if ways is None:
        width = entry.highest - entry.lowest
        return Fall(name, margin, gap, gap - width, gap + width, 1.0, 1.0, level)
    half = reach(ways, level)
    p_worse = chance_beyond(ways, -gap - margin)
    if margin == 0 and _is_countable(name, now, before):
        p_worse = mcnemar(now[0], before[0]).p_worse
    return Fall(name, margin, gap, gap - half, gap + half, p_worse, chance_beyond(ways, gap + margin), level)


def _ways(
    name: str,
    runs_a: Sequence[Outcomes],
    runs_b: Sequence[Outcomes],
    seed_noise: SeedNoise | None,
    has_luck: tuple[bool, bool] = (False, False),
) -> tuple[tuple[Uncertainty, ...] | None, float]:
    """Return how far the difference could be off (None: a single unit tells nothing), and the difference."""
    check_same_rows([*runs_a, *runs_b])
    gap = float(np.mean([score(name, run) for run in runs_a]) - np.mean([score(name, run) for run in runs_b]))
    if runs_a[0].units < 2:
        return None, gap
    return of_difference(name, runs_a, runs_b, seed_noise, has_luck=has_luck), gap


def _is_countable(name: str, now: Sequence[Outcomes], before: Sequence[Outcomes]) -> bool:
    """Say whether this is one run each of the metric that McNemar's test looks at, row by row."""
    if len(now) != 1 or len(before) != 1 or now[0].groups is not None:
        return False
    return name in ("accuracy", "exact_match")


def _check(margin: float, level: float, *, is_margin_needed: bool) -> None:
    if margin < 0 or (is_margin_needed and margin == 0):
        raise ConfigError(f"margin must be above 0 (got {margin}); 0.01 means one point")
    if not 0 < level < 0.5:
        raise ConfigError(f"level must be between 0 and 0.5 (got {level}); 0.05 is usual")
