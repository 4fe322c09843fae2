"""The form that all seven sides of a holistic view share: a figure to look at first, and those behind it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from taskfit.evaluation.intervals import Interval

__all__ = ["SIDES", "Figure", "Side", "SideName", "figure_of", "not_measured"]

SideName = Literal["accuracy", "calibration", "robustness", "fairness", "bias", "toxicity", "efficiency"]

SIDES: tuple[SideName, ...] = (
    "accuracy",
    "calibration",
    "robustness",
    "fairness",
    "bias",
    "toxicity",
    "efficiency",
)
"""The seven sides, in order. Source: Liang et al. 2023, section 4 (HELM)."""


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval.

    Attributes:
        name: what it is of, in words.
        low, high: None where nothing tells how sure it is; ``note`` says why.
        rows: over how many rows, texts or pairs.
        note: what a reader must know, or "".
    """

    name: str
    value: float
    low: float | None
    high: float | None
    rows: int
    note: str = ""


@dataclass(frozen=True)
class Side:
    """One side of the view.

    Attributes:
        headline: the figure to look at first; None where the side was not measured, for a ``reason``.
        figures: those behind it, in order.
        notes: sentences.
    """

    name: SideName
    headline: Figure | None
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""


def figure_of(name: str, found: Interval, rows: int, note: str = "") -> Figure:
    """Return a figure from an interval; without ends where they are not finite, for then a single unit was seen."""
    if not (isfinite(found.low) and isfinite(found.high)):
        said = (note, "a single row or group tells nothing of others")
        return Figure(name, found.value, None, None, rows, "; ".join(filter(None, said)))
    return Figure(name, found.value, found.low, found.high, rows, note)


def not_measured(name: SideName, reason: str) -> Side:
    """Return a side that could not be measured, and why: never the same as a good figure."""
    return Side(name, None, reason=reason)
