"""What was forgotten by changing weights, as trials measured it on what the model should retain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from taskfit.studies.interval_bar import Scale, interval_bar

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate

__all__ = ["Forgotten", "Part", "forgetting_of"]


@dataclass(frozen=True)
class Part:
    """One text or task that should be retained; means over seeds.

    Attributes:
        name: the user's, or that of the package's own suite.
        metric: what ``before`` and ``after`` are in.
        loss, low, high: share lost, above 0 is forgotten: a text's perplexity, or a task's metric.
        seeds: each seed's loss.
        strip: the loss with its interval, as SVG.
    """

    name: str
    metric: str
    before: float
    after: float
    loss: float
    low: float
    high: float
    seeds: tuple[float, ...]
    strip: str


@dataclass(frozen=True)
class Forgotten:
    """One candidate's forgetting.

    Attributes:
        status: ``measured``, ``none`` (no weight was changed) or ``unmeasured``.
        reason: why it was not measured.
        is_reversible: the change can be taken off the base.
        parts: of what was measured; empty otherwise.
    """

    key: str
    label: str
    status: str
    reason: str
    is_reversible: bool
    parts: tuple[Part, ...]


def forgetting_of(candidates: Sequence[tuple[str, Candidate]]) -> tuple[Forgotten, ...]:
    """Return what each candidate's trials say of forgetting; empty where none of them changed a weight or measured.

    An interval is the widest of the seeds' own: it begins at their lowest end and ends at their highest.
    """
    found = [(key, candidate, _measured(candidate)) for key, candidate in candidates]
    if not any(entry.get("status") == "measured" for _, _, seeds in found for entry in seeds):
        return ()
    ends = [
        float(part[end])
        for _, _, seeds in found
        for entry in seeds
        for part in _parts(entry)
        for end in ("low", "high")
    ]
    scale = Scale(min(0.0, *ends), max(0.05, *ends))
    return tuple(_forgotten(key, candidate.label, seeds, scale) for key, candidate, seeds in found if seeds)


def _measured(candidate: Candidate) -> list[Mapping[str, Any]]:
    entries = (result.findings.get("forgetting") for result in candidate.results)
    return [entry for entry in entries if isinstance(entry, dict)]


def _parts(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = entry.get("parts")
    needed = ("name", "metric", "before", "after", "loss", "low", "high")
    found = parts if isinstance(parts, list) else []
    return [part for part in found if isinstance(part, dict) and all(part.get(name) is not None for name in needed)]


def _forgotten(key: str, label: str, seeds: Sequence[Mapping[str, Any]], scale: Scale) -> Forgotten:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for entry in seeds:
        for part in _parts(entry):
            by_name.setdefault(str(part["name"]), []).append(part)
    status, reason = str(seeds[0].get("status")), str(seeds[0].get("reason", ""))
    parts = tuple(_part(name, each, scale) for name, each in by_name.items())
    return Forgotten(key, label, status, reason, bool(seeds[0].get("is_reversible")), parts)


def _part(name: str, each: Sequence[Mapping[str, Any]], scale: Scale) -> Part:
    losses = tuple(float(part["loss"]) for part in each)
    loss, low, high = fmean(losses), min(float(p["low"]) for p in each), max(float(p["high"]) for p in each)
    dots = losses if len(losses) > 1 else ()
    return Part(
        name,
        str(each[0]["metric"]),
        fmean(float(part["before"]) for part in each),
        fmean(float(part["after"]) for part in each),
        loss,
        low,
        high,
        losses,
        interval_bar(loss, low, high, dots, scale, is_best=low <= 0),
    )
