"""What the workshop says in words, and the table that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskfit.studies.ranking import FEWEST_ROWS
from taskfit.studies.words import count, figure, metric_name, money, points

if TYPE_CHECKING:
    from taskfit.studies.prompt_workshop import Workshop
    from taskfit.studies.prompt_workshop_findings import Spread, Variant

__all__ = [
    "caveats",
    "cost_cells",
    "cost_columns",
    "favourite_text",
    "headline",
    "marks",
    "mix_up_text",
    "quality_cells",
    "quality_columns",
    "reasons",
]


_MOST_MIX_UPS = 3


def headline(workshop: Workshop) -> str:
    """Return the finding in one sentence."""
    best = workshop.variants[0]
    value = best.metrics[workshop.metric]
    reached = f"{metric_name(workshop.metric)} {figure(value.value)} (95 % interval {_range(value.low, value.high)})"
    if len(workshop.variants) == 1:
        return f"The only prompt, {best.name}, reaches {reached}."
    if not workshop.is_ranked:
        return (
            f"With {count(len(workshop.rows), 'row')} nothing can be ranked; {FEWEST_ROWS} are the fewest. "
            f"{best.name} is ahead: {reached}."
        )
    others = workshop.variants[1:]
    tied = sum(other.versus is not None and other.versus.is_tied for other in others)
    return f"{best.name} is the best of {len(workshop.variants)}: {reached}; {_told_apart(tied, len(others))}."


def reasons(workshop: Workshop) -> list[str]:
    """Return what else the figures say: how fragile the prompt is, what picking the best is worth, favourites."""
    return list(_reasons(workshop))


def caveats(workshop: Workshop) -> list[str]:
    """Return what keeps the figures from saying more."""
    rows = count(len(workshop.rows), "row")
    sentences = [
        f"These are {rows} of validation; the test rows were not looked at, so that they can still judge the prompt "
        "you choose."
    ]
    if workshop.detectable is not None:
        gap = points(workshop.detectable)
        sentences.append(f"With {rows}, differences in accuracy below about {gap} mostly cannot be shown.")
    if len(workshop.variants) > 1:
        sentences.append("Do not judge a wording by a single row: almost every change wins some rows and loses others.")
    return sentences + [f"{note[0].upper()}{note[1:]}." for note in workshop.notes]


def marks(workshop: Workshop) -> list[str]:
    """Return each variant's verdict: ``best``, ``tied`` (cannot be told apart from it), ``worse`` or ``unranked``."""
    if not workshop.is_ranked:
        return ["unranked"] * len(workshop.variants)
    return [
        "best" if variant.versus is None else ("tied" if variant.versus.is_tied else "worse")
        for variant in workshop.variants
    ]


def quality_columns(workshop: Workshop) -> tuple[str, ...]:
    """Return the headings of the table of figures."""
    others = tuple(metric_name(name) for name in workshop.task.definition.metrics[1:])
    score = f"{metric_name(workshop.metric)} (95 % interval)"
    return (_kind(workshop), score, "to the best", "draws", *others, "no answer", "lost", "won")


def quality_cells(variant: Variant, workshop: Workshop) -> tuple[str, ...]:
    """Return a variant's figures as texts, one a heading."""
    value, draws = variant.metrics[workshop.metric], list(variant.draws.values())
    return (
        variant.name,
        f"{figure(value.value)} ({_range(value.low, value.high)})",
        _difference(variant),
        _range(min(draws), max(draws)) if len(draws) > 1 else "–",
        *(figure(variant.metrics[name].value) for name in workshop.task.definition.metrics[1:]),
        str(variant.unparsed),
        str(variant.odd.lost_count),
        str(variant.odd.won_count),
    )


def cost_columns(workshop: Workshop) -> tuple[str, ...]:
    """Return the headings of the table of lengths and prices."""
    return (
        _kind(workshop),
        "tokens a row",
        "longest",
        "rows cut",
        "examples dropped",
        "answer tokens",
        "ms/row",
        "per 1,000 rows",
    )


def cost_cells(variant: Variant) -> tuple[str, ...]:
    """Return a variant's lengths and prices as texts, one a heading."""
    latency_ms = 1000 * variant.s_per_row
    return (
        variant.name,
        f"{variant.tokens_mean:.0f}",
        str(variant.tokens_longest),
        str(variant.cut_rows),
        str(variant.dropped_shots),
        f"{variant.tokens_out_mean:.0f}",
        f"{latency_ms:.2g}" if latency_ms < 10 else f"{latency_ms:.0f}",
        money(variant.usd_per_thousand_rows),
    )


def mix_up_text(variant: Variant) -> str:
    """Return a variant's most frequent mix-ups in one line; empty where there are none."""
    return "; ".join(f"said {mix.said} when it was {mix.right}: {mix.count}" for mix in variant.mix_ups[:_MOST_MIX_UPS])


def favourite_text(variant: Variant) -> str:
    """Return the answer that a variant gives most often, beside how often it would be right; "" for generated text."""
    found = variant.favourite
    if found is None:
        return ""
    total = len(variant.runs) * len(variant.runs[0])
    return f"says {found.answer} {found.said} times of {total} ({found.right} would be right)"


def _kind(workshop: Workshop) -> str:
    return "wording" if len(workshop.task.definition.wordings) > 1 else "prompt"


def _reasons(workshop: Workshop) -> Iterator[str]:
    metric = metric_name(workshop.metric)
    if workshop.wording_spread is not None:
        number = len(workshop.variants)
        yield f"Over the {number} wordings, {metric} {_spread_text(workshop.wording_spread)}."
    if workshop.draw_spread is not None:
        drawn = len(workshop.draws)
        where = ", in the wording where they differ most" if workshop.wording_spread is not None else ""
        yield f"Over {drawn} draws of worked examples{where}, it {_spread_text(workshop.draw_spread)}."
    if workshop.winner is not None:
        yield (
            f"The best of {len(workshop.variants)} looks better than it is; corrected for having been picked it is "
            f"{figure(workshop.winner.corrected)}."
        )
    best = workshop.variants[0]
    if best.unparsed:
        total = len(workshop.rows) * len(best.draws)
        yield f"{best.unparsed} of {total} answers of {best.name} could not be parsed and count as wrong."
    lost = [variant for variant in workshop.variants if variant.cut_rows or variant.dropped_shots]
    for variant in lost:
        yield (
            f"{variant.name} is too long for the model's context: {count(variant.cut_rows, 'row')} cut, "
            f"{count(variant.dropped_shots, 'worked example')} left out."
        )


def _told_apart(tied: int, others: int) -> str:
    if others == 1:
        return "the other cannot be told apart from it" if tied else "the other is worse, beyond noise"
    if tied == others:
        return f"none of the other {others} can be told apart from it"
    if tied == 0:
        return f"all other {others} are worse, beyond noise"
    return f"{others - tied} of the other {others} {'is' if others - tied == 1 else 'are'} worse, beyond noise"


def _spread_text(found: Spread) -> str:
    return f"runs from {figure(found.low)} to {figure(found.high)} (standard deviation {figure(found.sd)})"


def _difference(variant: Variant) -> str:
    if variant.versus is None:
        return "–"
    odds = "p < 0.001" if variant.versus.p_value < 0.001 else f"p = {variant.versus.p_value:.2g}"
    return f"{variant.versus.comparison.difference:+.3f} ({odds})"


def _range(low: float, high: float) -> str:
    return f"{figure(low)} to {figure(high)}"
