"""Which strategy to choose, in words: the cheapest that cannot be told apart from the best, within the limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from taskfit.studies.candidate import Candidate
from taskfit.studies.compare import Comparison
from taskfit.studies.leaked_rows import read_leaked_rows
from taskfit.studies.limits import over_limits
from taskfit.studies.ranking import FEWEST_ROWS, LEVEL, choice, looks_of, rank
from taskfit.studies.spec import Limits
from taskfit.studies.volumes import break_even
from taskfit.studies.words import count, figure, metric_name, money, points

__all__ = ["Recommendation", "recommend"]

_Z_WITH_POWER = 1.96 + 0.84
"""Normal quantiles of a two-sided 5 % test and of 80 % power."""
_SHOWN = 5  # of what was left out, in a sentence; the report has all


@dataclass(frozen=True)
class Recommendation:
    """What to choose and why.

    Attributes:
        chosen: None when nothing can be recommended; ``verdict`` then says why.
        verdict: one sentence: the choice, its figure and its cost.
        reasons: sentences on why, what others would bring, and what the volume changes.
        caveats: sentences on what the evidence cannot show.
        volume: rows that the total cost is for.
        limits: that the choice respects.
    """

    chosen: Candidate | None
    verdict: str
    reasons: tuple[str, ...]
    caveats: tuple[str, ...]
    volume: int
    limits: Limits

    @property
    def text(self) -> str:
        """All sentences, one a line."""
        return "\n".join((self.verdict, *self.reasons, *self.caveats))


def recommend(comparison: Comparison, volume: int | None = None, limits: Limits | None = None) -> Recommendation:
    """Choose among the candidates of a comparison.

    Args:
        comparison: what the study found.
        volume: rows that will ever be predicted; None: the study's.
        limits: None: the study's.
    """
    config = comparison.study.plan.config
    volume = config.volume if volume is None else volume
    limits = config.limits if limits is None else limits
    caveats = tuple(_caveats(comparison))
    refusal = _refusal(comparison, volume, limits)
    if refusal is not None:
        return Recommendation(None, refusal, (), caveats, volume, limits)
    allowed = [c for c in comparison.candidates if not over_limits(c, volume, limits)]
    ranked = rank(allowed, comparison.metric, looks_of(comparison.study.plan))
    tied = [candidate for candidate in ranked if candidate.is_tied]
    chosen = choice(ranked, volume)
    reasons = [
        _why(comparison, ranked, tied, chosen, volume),
        *_out_of_reach(comparison, ranked[0], volume, limits),
        *_others(comparison, ranked, tied, chosen, volume),
        *_break_even(tied, chosen, volume),
    ]
    more = _further_caveats(comparison, ranked, tied, chosen)
    return Recommendation(
        chosen, _verdict(comparison, chosen, volume), tuple(reasons), (*more, *caveats), volume, limits
    )


def _refusal(comparison: Comparison, volume: int, limits: Limits) -> str | None:
    from taskfit.evaluation.paired import rows_needed

    if not comparison.candidates:
        return "Nothing can be recommended: no trial has finished."
    if not comparison.has_enough_rows:
        return (
            f"Nothing is ranked: the test set has {count(comparison.rows, 'row')}, and with fewer than {FEWEST_ROWS} "
            f"even large differences are chance. Add at least {FEWEST_ROWS - comparison.rows} labelled test rows; "
            f"to show a difference of 10 points in accuracy takes about {rows_needed(0.1):,}."
        )
    if all(over_limits(candidate, volume, limits) for candidate in comparison.candidates):
        parts = [f"{c.label}: {' and '.join(over_limits(c, volume, limits))}" for c in comparison.candidates]
        return f"No strategy is within the limits. {'; '.join(parts)}."
    return None


def _verdict(comparison: Comparison, chosen: Candidate, volume: int) -> str:
    value = chosen.metrics[comparison.metric]
    return (
        f"Choose {chosen.label}: {metric_name(comparison.metric)} {figure(value.value)} "
        f"(95 % interval {figure(value.low)} to {figure(value.high)}), "
        f"{money(chosen.cost.total_usd(volume))} to fit it and predict {volume:,} rows."
    )


def _why(
    comparison: Comparison, ranked: Sequence[Candidate], tied: Sequence[Candidate], chosen: Candidate, volume: int
) -> str:
    best, name = ranked[0], metric_name(comparison.metric)
    if len(ranked) == 1:
        return "It is the only one to choose from, so nothing is known of what others would reach."
    if len(tied) == 1:
        second = ranked[1]
        reached = figure(second.metrics[comparison.metric].value)
        return f"It is the best on {name}; the next, {second.label}, reaches {reached}{_odds(second)}."
    if chosen.label == best.label:
        return f"It is the best on {name}, and the cheapest of {len(tied)} that these rows cannot tell apart."
    reached = figure(best.metrics[comparison.metric].value)
    return (
        f"The best figure is that of {best.label} ({reached}), but the difference of {_gap(chosen)} cannot be told "
        f"from chance{_odds(chosen)}; of the {len(tied)} that cannot be told apart from the best it is the cheapest "
        f"at {volume:,} rows."
    )


def _others(
    comparison: Comparison, ranked: Sequence[Candidate], tied: Sequence[Candidate], chosen: Candidate, volume: int
) -> list[str]:
    """Say what the best would bring for its price, or what the cheapest of the rest would save."""
    best = ranked[0]
    if chosen.label != best.label:
        factor = _factor(best.cost.total_usd(volume), chosen.cost.total_usd(volume))
        return [f"Choosing {best.label} instead would cost {money(best.cost.total_usd(volume))}{factor}."]
    rest = [candidate for candidate in ranked[1:] if not candidate.is_tied]
    cheaper = [c for c in rest if c.cost.total_usd(volume) < chosen.cost.total_usd(volume)]
    if not cheaper:
        return []
    other = cheaper[0]  # the best of them, for they are ranked
    return [
        f"{other.label} would cost {money(other.cost.total_usd(volume))} instead of "
        f"{money(chosen.cost.total_usd(volume))} and lose {_gap(other)}{_odds(other)}."
    ]


def _out_of_reach(comparison: Comparison, best: Candidate, volume: int, limits: Limits) -> list[str]:
    """Say what each limit has ruled out, and how good those were."""
    return [
        f"{one.label} reaches {figure(one.metrics[comparison.metric].value)} and is outside the limits: "
        f"{' and '.join(over)}."
        for one in comparison.candidates
        if (over := over_limits(one, volume, limits))
        and one.metrics[comparison.metric].value >= best.metrics[comparison.metric].value
    ]


def _break_even(tied: Iterable[Candidate], chosen: Candidate, volume: int) -> list[str]:
    """Say at which other volumes another of the tied ones would be the cheapest."""
    crossings = []
    for other in tied:
        if other.label == chosen.label:
            continue
        at = break_even(chosen.cost, other.cost)
        if at is not None:
            crossings.append((at, other))
    above = min((c for c in crossings if c[0] > volume), key=lambda c: c[0], default=None)
    below = max((c for c in crossings if c[0] <= volume), key=lambda c: c[0], default=None)
    sentences = []
    if above is not None:
        sentences.append(f"Above about {_rounded(above[0])} rows {above[1].label} would be cheaper.")
    if below is not None and below[0] >= 1:
        sentences.append(f"Below about {_rounded(below[0])} rows {below[1].label} would be cheaper.")
    return sentences


def _further_caveats(
    comparison: Comparison, ranked: Sequence[Candidate], tied: Sequence[Candidate], chosen: Candidate
) -> list[str]:
    from taskfit.evaluation.metrics import metric

    caveats = []
    if ranked[0].strategy == "majority" and len(ranked) > 1:
        caveats.append("Always giving the same answer was best: none of the others has learned this task.")
    floor = next((c for c in tied if c.strategy == "majority"), None)
    if floor is not None and ranked[0].strategy != "majority":
        caveats.append("No strategy could be shown to be better than always giving the most frequent answer.")
    is_open_by_rows = chosen.versus_best is not None and chosen.versus_best.p_rows >= LEVEL
    if is_open_by_rows and (needed := _rows_needed(chosen)) is not None:
        caveats.append(
            f"To show a true difference of {_gap(chosen)} the test set would need about {_rounded(needed)} rows; "
            f"it has {comparison.rows:,}."
        )
    if chosen.versus_best is not None and not is_open_by_rows:
        caveats.append(
            f"These rows tell {ranked[0].label} from {chosen.label}, the luck of seeds does not: more seeds "
            "(--max-seeds) could change the choice."
        )
    winner = comparison.winner
    if winner is not None and winner.name == ranked[0].label and round(winner.value - winner.corrected, 4) > 0:
        subject = "Its figure" if winner.name == chosen.label else f"The figure of {winner.name}"
        caveats.append(
            f"{subject} is the best of {len(comparison.candidates)}, which flatters it; corrected for having been "
            f"picked it is {figure(winner.corrected)}."
        )
    caveats += dict.fromkeys(
        f"{c.name} was {c.stopped}." for c in comparison.candidates if c.stopped
    )  # once for all sizes
    if (note := metric(comparison.metric).note(chosen.runs[0])) is not None:
        caveats.append(f"{chosen.label}: {note}.")
    if few := [c for c in comparison.candidates if c.failed]:
        caveats.append(f"Some seeds are missing for {', '.join(c.label for c in few)}.")
    return caveats


def _caveats(comparison: Comparison) -> list[str]:
    caveats = []
    if (leaks := read_leaked_rows(comparison.study.folder)).dirty:
        caveats.append(f"{leaks.text} result.json has the figures without them.")
    if comparison.has_enough_rows and comparison.study.plan.detectable_difference is not None:
        gap = comparison.study.plan.detectable_difference
        caveats.append(
            f"With {count(comparison.rows, 'test row')}, differences in accuracy below about {points(gap)} "
            "cannot be shown."
        )
    if comparison.failures:
        labels = list(dict.fromkeys(f"{r.spec.strategy} ({r.status})" for r in comparison.failures))
        caveats.append(f"{count(len(comparison.failures), 'trial')} did not finish: {', '.join(labels)}.")
    if comparison.left_out:
        caveats.append(_left_out(comparison))
    if comparison.missing:
        caveats.append(f"{count(comparison.missing, 'trial')} of the plan have not run yet.")
    return caveats


def _left_out(comparison: Comparison) -> str:
    budget, listed = comparison.study.plan.config.budget, comparison.left_out
    amount = "" if budget is None else f" of {budget.text}"
    more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (
        f"The budget{amount} left out {'; '.join(listed[:_SHOWN])}{more}. Run compare again with a larger --budget: "
        "it goes on from what is done."
    )


def _rows_needed(candidate: Candidate) -> float | None:
    """Return how many test rows would show the difference to the best with 80 % power; seeds are left out."""
    compared = candidate.versus_best
    if compared is None or compared.difference == 0:
        return None
    standard_error = (compared.high - compared.low) / (2 * NormalDist().inv_cdf((1 + compared.level) / 2))
    needed = compared.rows * (_Z_WITH_POWER * standard_error / compared.difference) ** 2
    return needed if needed > compared.rows else None


def _gap(candidate: Candidate) -> str:
    compared = candidate.versus_best
    return points(0.0 if compared is None else abs(compared.difference))


def _odds(candidate: Candidate) -> str:
    """How sure a difference is: the p-value where candidates are told apart, the interval where they are not."""
    p, compared = candidate.p_value, candidate.versus_best
    if p is None or compared is None:
        return ""
    if candidate.is_tied:
        return f" ({100 * compared.level:.3g} % interval {100 * -compared.high:+.1f} to {100 * -compared.low:+.1f})"
    return " (p < 0.001)" if p < 0.001 else f" (p = {p:.2g})"


def _factor(one: float, other: float) -> str:
    if other <= 0 or one / other < 1.15:
        return ""
    ratio = one / other
    return f", {ratio:.2g} times as much" if ratio < 100 else f", {ratio:,.0f} times as much"


def _rounded(rows: float) -> str:
    """Round to two digits: a break-even point is no more exact than its costs."""
    digits = max(0, int(math.log10(rows)) - 1)
    return f"{round(rows, -digits):,.0f}"
