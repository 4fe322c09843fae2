"""Who is best, who cannot be told apart from the best, and between whom the decision is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from taskfit.studies.candidate import Candidate
from taskfit.studies.limits import over_limits
from taskfit.studies.spec import Plan

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.evaluation.paired import PairedComparison

__all__ = ["FEWEST_ROWS", "LEVEL", "Versus", "against_best", "by_figure", "choice", "looks_of", "open_pair", "rank"]

LEVEL = 0.05
"""Two candidates are told apart when the p-value is below this and the interval of their difference leaves out 0."""

FEWEST_ROWS = 20
"""With fewer test rows nothing is ranked: even 10 of 10 against 5 of 10 is a toss-up."""


@dataclass(frozen=True)
class Versus:
    """One of several beside the best of them.

    Attributes:
        comparison: this one minus the best, paired by row.
        p_value: of that difference, adjusted by Holm for all comparisons made, and for the number of looks.
        is_tied: true when it cannot be told apart from the best.
    """

    comparison: PairedComparison
    p_value: float
    is_tied: bool


def by_figure(candidates: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Sort the best first; of equal ones the cheaper per row."""
    return sorted(candidates, key=lambda c: (-c.metrics[metric].value, c.cost.usd_per_row, c.label))


def rank(candidates: Sequence[Candidate], metric: str, looks: tuple[int, ...] = (1,)) -> list[Candidate]:
    """Sort by the metric and compare each with the best one, row by row; the p-values are adjusted together.

    Args:
        candidates: in any order.
        metric: what is compared.
        looks: numbers of seeds at which the study looks at differences; see ``taskfit.evaluation.sequential``.
    """
    ordered = by_figure(candidates, metric)
    if not ordered:
        return []
    compared = against_best(metric, [c.runs for c in ordered], has_luck=[c.has_luck for c in ordered], looks=looks)
    others = [
        replace(candidate, versus_best=versus.comparison, p_value=versus.p_value, is_tied=versus.is_tied)
        for candidate, versus in zip(ordered[1:], compared, strict=True)
    ]
    return [replace(ordered[0], versus_best=None, p_value=None, is_tied=True), *others]


def against_best(
    metric: str,
    runs: Sequence[Sequence[Outcomes]],
    *,
    has_luck: Sequence[bool] = (),
    looks: tuple[int, ...] = (1,),
) -> list[Versus]:
    """Compare all but the first with the first, row by row; the p-values are adjusted together.

    Args:
        metric: what is compared.
        runs: the runs of each, the best first.
        has_luck: of each, whether its result hangs on its seed even where it has one run; none: where it has several.
        looks: numbers of seeds at which differences are looked at.

    Source: Holm 1979 for the adjustment.
    """
    from taskfit.evaluation.paired import compare_paired, holm, pooled_seed_noise
    from taskfit.evaluation.sequential import over_looks, single_look_level

    noise = pooled_seed_noise(metric, runs)
    lucky = list(has_luck) or [False] * len(runs)
    level = 1 - single_look_level(LEVEL, looks)
    compared = [
        compare_paired(metric, other, runs[0], seed_noise=noise, has_luck=(is_lucky, lucky[0]), level=level)
        for other, is_lucky in zip(runs[1:], lucky[1:], strict=True)
    ]
    adjusted = holm([over_looks(comparison.p_value, looks) for comparison in compared])
    return [
        Versus(comparison, p, p >= LEVEL or comparison.low <= 0 <= comparison.high)
        for comparison, p in zip(compared, adjusted, strict=True)
    ]


def choice(ranked: Sequence[Candidate], volume: int) -> Candidate:
    """Return the cheapest of those that cannot be told apart from the best; of at least one."""
    return min((c for c in ranked if c.is_tied), key=lambda c: c.cost.total(volume))


def looks_of(plan: Plan) -> tuple[int, ...]:
    """Return the numbers of seeds at which the study looks at differences."""
    most = max((spec.seed + 1 for spec in plan.extra_trials), default=plan.config.seeds)
    return tuple(range(plan.config.seeds, most + 1))


def open_pair(plan: Plan, candidates: Sequence[Candidate], metric: str) -> tuple[Candidate, ...]:
    """Return the best and the cheaper one that would be chosen over it, where more seeds may tell them apart.

    None where the best itself would be chosen, and where the rows alone leave the two open: no seed can close that.
    """
    config = plan.config
    allowed = [c for c in candidates if not over_limits(c, config.volume, config.limits)]
    ranked = rank(allowed, metric, looks_of(plan))
    if not ranked:
        return ()
    chosen, best = choice(ranked, config.volume), ranked[0]
    if chosen.versus_best is None or chosen.versus_best.p_rows >= LEVEL:
        return ()
    return best, chosen
