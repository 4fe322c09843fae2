"""Total cost at any volume: labels, fit and evaluation once, then so much a row; and where two cost the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from taskfit.studies.candidate import Candidate, Cost

__all__ = ["VOLUMES", "BreakEven", "VolumeCosts", "break_even", "break_evens", "costs_at_volumes"]

VOLUMES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
"""Rows predicted, for the tables."""


@dataclass(frozen=True)
class VolumeCosts:
    """What a candidate costs in all, in US dollars.

    Attributes:
        label: the candidate's.
        usd_labels, usd_fit, usd_evaluate, usd_per_row: the parts.
        totals: one for each of ``VOLUMES``.
    """

    label: str
    usd_labels: float
    usd_fit: float
    usd_evaluate: float
    usd_per_row: float
    totals: tuple[float, ...]


@dataclass(frozen=True)
class BreakEven:
    """The volume at which two candidates cost the same.

    Attributes:
        cheaper_below, cheaper_above: labels.
        rows: the volume.
    """

    cheaper_below: str
    cheaper_above: str
    rows: float


def costs_at_volumes(candidates: Sequence[Candidate], volumes: Sequence[int] = VOLUMES) -> tuple[VolumeCosts, ...]:
    """Return the total cost of each candidate at each volume."""
    return tuple(
        VolumeCosts(
            one.label,
            one.cost.usd_labels,
            one.cost.usd_fit,
            one.cost.usd_evaluate,
            one.cost.usd_per_row,
            tuple(one.cost.total_usd(volume) for volume in volumes),
        )
        for one in candidates
    )


def break_even(one: Cost, other: Cost) -> float | None:
    """Return the volume at which both cost the same; None where one is cheaper at every volume."""
    saved = one.usd_per_row - other.usd_per_row
    if saved == 0:
        return None
    at = (other.usd_once - one.usd_once) / saved
    return at if math.isfinite(at) and at > 0 else None


def break_evens(candidates: Sequence[Candidate]) -> tuple[BreakEven, ...]:
    """Return all volumes at which the cheapest of these candidates changes, the smallest first."""
    found, volume = list[BreakEven](), 0.0
    if not candidates:
        return ()
    here = min(candidates, key=lambda c: (c.cost.usd_once, c.cost.usd_per_row, c.label))
    while True:
        ahead = [
            (at, c.cost.usd_per_row, c.label, c)
            for c in candidates
            if c.cost.usd_per_row < here.cost.usd_per_row and (at := break_even(here.cost, c.cost)) and at >= volume
        ]
        if not ahead:
            return tuple(found)
        volume, _, _, then = min(ahead, key=lambda entry: entry[:3])
        found.append(BreakEven(here.label, then.label, volume))
        here = then
