"""Writes ``prompts.html`` and ``prompts.json``: pure functions of a workshop's findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from taskfit.studies.confusion import Confusion, confusion_of
from taskfit.studies.folder import write_json, write_text
from taskfit.studies.interval_bar import Scale, interval_bar, scale_of
from taskfit.studies.page import render_page
from taskfit.studies.prompt_workshop_words import (
    caveats,
    cost_cells,
    cost_columns,
    favourite_text,
    headline,
    marks,
    quality_cells,
    quality_columns,
    reasons,
)
from taskfit.studies.words import figure, metric_name

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.studies.prompt_workshop import Workshop
    from taskfit.studies.prompt_workshop_findings import Variant
    from taskfit.studies.prompt_workshop_rows import MixUp, OddRows
    from taskfit.tasks.task import Value

__all__ = ["WorkshopView", "workshop_json", "workshop_page", "workshop_view", "write_workshop"]

FORMAT = 1

_VERDICTS = {
    "best": "● the best here",
    "tied": "○ cannot be told apart from the best",
    "worse": "○ worse than the best",
    "unranked": "○ not ranked",
}
_LOST = {
    "generation": (
        "at least 0.2 worse than the best of the others",
        "The best of the others reaches at least 0.2 more.",
    ),
    "": ("wrong and another one right", "Wrong here, right with another wording or draw."),
}
_WON = {
    "generation": ("answers at least 0.2 better than all others", "It reaches at least 0.2 more than all others."),
    "": ("alone gets right", "Right here, wrong with all others."),
}


@dataclass(frozen=True)
class VariantView:
    """One wording (or draw) as the page shows it: its table row, its prompt, what it mixes up, loses and wins."""

    name: str
    verdict: str
    figure: str
    strip: str
    quality: tuple[str, ...]
    cost: tuple[str, ...]
    example: str
    favourite: str
    mix_ups: tuple[MixUp, ...]
    odd: OddRows


@dataclass(frozen=True)
class WorkshopView:
    """Everything on the page, as text or plain records.

    Attributes:
        verdicts: verdict to the words for it.
        scale_low, scale_high: what the ends of the strips stand for.
        lost_words, won_words: what these columns count, for the legend.
        lost_sentence, won_sentence: the same as sentences.
        confusion: of the best; None where there are too few labels or too many.
        facts: what exactly was run, as pairs of name and text.
    """

    title: str
    headline: str
    reasons: tuple[str, ...]
    caveats: tuple[str, ...]
    quality_columns: tuple[str, ...]
    cost_columns: tuple[str, ...]
    variants: tuple[VariantView, ...]
    verdicts: Mapping[str, str]
    scale_low: str
    scale_high: str
    has_draws: bool
    lost_words: str
    won_words: str
    lost_sentence: str
    won_sentence: str
    price: str
    confusion: Confusion | None
    facts: tuple[tuple[str, str], ...]


def write_workshop(workshop: Workshop, folder: Path) -> Path:
    """Write both files into a folder, over older ones, and return the page's path.

    Raises:
        ResourceError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "prompts.json", cast("Mapping[str, Value]", workshop_json(workshop)))
    write_text(folder / "prompts.html", workshop_page(workshop))
    return folder / "prompts.html"


def workshop_page(workshop: Workshop) -> str:
    """Return the page; see :func:`taskfit.studies.page.render_page`."""
    return render_page("prompts.html.jinja", workshop_view(workshop))


def workshop_view(workshop: Workshop) -> WorkshopView:
    """Gather what the page shows."""
    intervals = [variant.metrics[workshop.metric] for variant in workshop.variants]
    draws = [value for variant in workshop.variants for value in variant.draws.values()]
    scale = scale_of([*draws, *(end for interval in intervals for end in (interval.low, interval.high))])
    kind, best = workshop.task.definition.kind, workshop.variants[0]
    lost, won = _LOST.get(kind, _LOST[""]), _WON.get(kind, _WON[""])
    return WorkshopView(
        title=workshop.task.definition.name,
        headline=headline(workshop),
        reasons=tuple(reasons(workshop)),
        caveats=tuple(caveats(workshop)),
        quality_columns=quality_columns(workshop),
        cost_columns=cost_columns(workshop),
        variants=tuple(
            _variant(variant, verdict, scale, workshop)
            for variant, verdict in zip(workshop.variants, marks(workshop), strict=True)
        ),
        verdicts=_VERDICTS,
        scale_low=f"{scale.low:.1f}",
        scale_high=f"{scale.high:.1f}",
        has_draws=any(len(variant.draws) > 1 for variant in workshop.variants),
        lost_words=lost[0],
        won_words=won[0],
        lost_sentence=lost[1],
        won_sentence=won[1],
        price=_price(workshop),
        confusion=confusion_of(best.name, workshop.task.definition.labels, best.runs),
        facts=_facts(workshop),
    )


def workshop_json(workshop: Workshop) -> dict[str, object]:
    """Return the findings as plain JSON values, with every answer to every row."""
    return {
        "format": FORMAT,
        "task": workshop.task.definition.name,
        "task_fingerprint": workshop.task.fingerprint,
        "split": "validation",
        "rows": len(workshop.rows),
        "strategy": workshop.strategy,
        "model": {"name": workshop.model[0], "fingerprint": workshop.model[1]},
        "metric": workshop.metric,
        "draws": list(workshop.draws),
        "finding": headline(workshop),
        "reasons": reasons(workshop),
        "caveats": caveats(workshop),
        "wording_spread": None if workshop.wording_spread is None else asdict(workshop.wording_spread),
        "draw_spread": None if workshop.draw_spread is None else asdict(workshop.draw_spread),
        "corrected_best": None if workshop.winner is None else workshop.winner.corrected,
        "detectable_difference": workshop.detectable,
        "price": asdict(workshop.price),
        "versions": dict(workshop.versions),
        "variants": [
            _variant_json(variant, verdict) for variant, verdict in zip(workshop.variants, marks(workshop), strict=True)
        ],
        "answers": _answers_json(workshop),
    }


def _variant(variant: Variant, verdict: str, scale: Scale, workshop: Workshop) -> VariantView:
    value = variant.metrics[workshop.metric]
    dots = list(variant.draws.values()) if len(variant.draws) > 1 else []
    return VariantView(
        name=variant.name,
        verdict=verdict,
        figure=f"{metric_name(workshop.metric)} {figure(value.value)}",
        strip=interval_bar(value.value, value.low, value.high, dots, scale, is_best=verdict == "best"),
        quality=quality_cells(variant, workshop),
        cost=cost_cells(variant),
        example=variant.example,
        favourite=favourite_text(variant),
        mix_ups=variant.mix_ups,
        odd=variant.odd,
    )


def _variant_json(variant: Variant, verdict: str) -> dict[str, object]:
    versus = variant.versus
    return {
        "name": variant.name,
        "wording": variant.wording,
        "strategy": variant.strategy,
        "verdict": verdict,
        "draws": {str(draw): value for draw, value in variant.draws.items()},
        "metrics": {name: asdict(interval) for name, interval in variant.metrics.items()},
        "versus_best": None if versus is None else asdict(versus),
        "unparsed": variant.unparsed,
        "favourite": None if variant.favourite is None else asdict(variant.favourite),
        "mix_ups": [asdict(mix) for mix in variant.mix_ups],
        **asdict(variant.odd),
        "tokens_mean": variant.tokens_mean,
        "tokens_longest": variant.tokens_longest,
        "tokens_out_mean": variant.tokens_out_mean,
        "cut_rows": variant.cut_rows,
        "dropped_shots": variant.dropped_shots,
        "s_per_row": variant.s_per_row,
        "usd_per_thousand_rows": variant.usd_per_thousand_rows,
        "example": variant.example,
    }


def _answers_json(workshop: Workshop) -> list[dict[str, object]]:
    """Return one record a row; an answer is null where there was no valid one."""
    definition = workshop.task.definition
    names = [wording.name for wording in definition.wordings]
    records: list[dict[str, object]] = []
    for place, row in enumerate(workshop.rows):
        said: dict[str, list[str | None]] = {}
        for run in workshop.runs:
            prediction = run.predictions[place]
            said.setdefault(names[run.wording], []).append(prediction.answer if prediction.is_parsed else None)
        records.append({"id": row.id, "right": list(definition.gold(row)), "said": said})
    return records


def _price(workshop: Workshop) -> str:
    price = workshop.price
    return f"{price.usd_per_hour:g} USD an hour ({price.machine}, price of {price.date})"


def _facts(workshop: Workshop) -> tuple[tuple[str, str], ...]:
    definition = workshop.task.definition
    name, fingerprint = workshop.model
    return (
        ("Task", f"{definition.name} ({definition.kind}), fingerprint {workshop.task.fingerprint[:16]}"),
        ("Rows", f"{len(workshop.rows)} of {len(workshop.task.validation)} validation rows"),
        ("Strategy", workshop.strategy),
        ("Model", f"{name}, fingerprint {fingerprint[:12]}"),
        ("Draws", f"{len(workshop.draws)}" + (" (of worked examples)" if len(workshop.draws) > 1 else "")),
        ("Metrics", ", ".join(metric_name(each) for each in definition.metrics) + "; the first decides"),
        ("Price", _price(workshop)),
        ("Versions", ", ".join(f"{library} {version}" for library, version in workshop.versions.items())),
    )
