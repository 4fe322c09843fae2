"""The table of a study as plain records: what the terminal prints, JSON holds and the report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.limits import over_limits
from taskfit.studies.search_gain import Gain, gain_of

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.recommend import Recommendation

__all__ = ["TableRow", "table_of"]


@dataclass(frozen=True)
class TableRow:
    """One candidate.

    Attributes:
        key: a letter that stands for it in plots: A is the best.
        label: strategy, model and training size.
        metric: the deciding metric.
        value, low, high: its figure with the 95 % interval.
        others: further metrics, by name.
        seeds: finished trials.
        stopped: why it did not get all its seeds; empty where it did.
        difference, difference_low, difference_high: this one minus the best; None for the best.
        p_value: adjusted; None for the best.
        verdict: ``recommended``, ``tied`` (cannot be told apart from the best), ``worse``, or ``unranked``.
        over_limits: what it exceeds, in words.
        usd_fit, usd_per_thousand_rows, usd_total: money; the total is for the study's volume.
        fit_s, latency_ms: seconds of a fit, milliseconds a row.
        fit_memory_bytes, predict_memory_bytes, artefact_bytes: sizes.
        tokens_in_per_row, tokens_out_per_row, flops_fit, flops_per_row: counted work; None where not countable.
        is_pareto: no other is at least as good and as cheap.
        search: what searching its parameters bought on validation rows; None where nothing was searched.
    """

    key: str
    label: str
    strategy: str
    model: str | None
    train_rows: int | None
    metric: str
    value: float
    low: float
    high: float
    others: dict[str, float]
    seeds: int
    stopped: str
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_value: float | None
    verdict: str
    over_limits: tuple[str, ...]
    usd_fit: float
    usd_per_thousand_rows: float
    usd_total: float
    fit_s: float
    latency_ms: float
    fit_memory_bytes: int
    predict_memory_bytes: int
    artefact_bytes: int
    tokens_in_per_row: float
    tokens_out_per_row: float
    flops_fit: float | None
    flops_per_row: float | None
    is_pareto: bool
    search: Gain | None = None


def table_of(comparison: Comparison, recommendation: Recommendation) -> tuple[TableRow, ...]:
    """Return one record a candidate, the best on the deciding metric first."""
    return tuple(
        _row(_key(place), candidate, comparison, recommendation)
        for place, candidate in enumerate(comparison.candidates)
    )


def _row(key: str, candidate: Candidate, comparison: Comparison, recommendation: Recommendation) -> TableRow:
    value, cost, compared = candidate.metrics[comparison.metric], candidate.cost, candidate.versus_best
    return TableRow(
        key=key,
        label=candidate.label,
        strategy=candidate.strategy,
        model=candidate.model,
        train_rows=candidate.train_rows,
        metric=comparison.metric,
        value=value.value,
        low=value.low,
        high=value.high,
        others={name: found.value for name, found in candidate.metrics.items() if name != comparison.metric},
        seeds=len(candidate.results),
        stopped=candidate.stopped,
        difference=None if compared is None else compared.difference,
        difference_low=None if compared is None else compared.low,
        difference_high=None if compared is None else compared.high,
        p_value=candidate.p_value,
        verdict=_verdict(candidate, comparison, recommendation),
        over_limits=tuple(over_limits(candidate, recommendation.volume, recommendation.limits)),
        usd_fit=cost.usd_fit,
        usd_per_thousand_rows=1000 * cost.usd_per_row,
        usd_total=cost.total_usd(recommendation.volume),
        fit_s=cost.fit_s,
        latency_ms=cost.latency_ms,
        fit_memory_bytes=cost.fit_memory_bytes,
        predict_memory_bytes=cost.predict_memory_bytes,
        artefact_bytes=cost.artefact_bytes,
        tokens_in_per_row=cost.tokens_in_per_row,
        tokens_out_per_row=cost.tokens_out_per_row,
        flops_fit=cost.flops_fit,
        flops_per_row=cost.flops_per_row,
        is_pareto=candidate.is_pareto,
        search=gain_of(candidate.results),
    )


def _verdict(candidate: Candidate, comparison: Comparison, recommendation: Recommendation) -> str:
    if recommendation.chosen is not None and recommendation.chosen.label == candidate.label:
        return "recommended"
    if not comparison.has_enough_rows:
        return "unranked"
    return "tied" if candidate.is_tied else "worse"


def _key(place: int) -> str:
    """A to Z, then A2 to Z2."""
    letter, turn = chr(ord("A") + place % 26), place // 26
    return letter if turn == 0 else f"{letter}{turn + 1}"
