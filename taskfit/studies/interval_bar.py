"""One figure with its interval as a strip of SVG, small enough for a table's cell; colours come from the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "interval_bar", "scale_of"]

_WIDTH, _HEIGHT, _MARGIN = 140, 20, 6


@dataclass(frozen=True)
class Scale:
    """What the left and the right end of every strip of one table stand for."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Pixels from the left; a value outside the scale lies on its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _MARGIN + share * (_WIDTH - 2 * _MARGIN)


def scale_of(values: Sequence[float]) -> Scale:
    """Return a scale that holds all values, in steps of a tenth, at least a tenth wide.

    >>> scale_of([0.12, 0.31])
    Scale(low=0.1, high=0.4)
    """
    tenths = [10 * value for value in values]
    low = int(min(tenths) // 1)
    high = -int(-max(tenths) // 1)
    return Scale(low / 10, max(high, low + 1) / 10)


def interval_bar(value: float, low: float, high: float, dots: Sequence[float], scale: Scale, *, is_best: bool) -> str:
    """Draw an interval as a line, the figure as a mark on it, and single draws as small dots.

    Args:
        value: the figure.
        low: where its interval begins.
        high: where its interval ends.
        dots: figures of single draws; none where there is one.
        scale: shared by all strips of the table.
        is_best: fills the mark; the others are rings.

    Returns:
        An ``<svg>`` element that a screen reader passes over: the same figures stand in the table beside it.
    """
    middle = _HEIGHT / 2
    small = "".join(f'<circle class="draw" cx="{scale.x(dot):.1f}" cy="{middle:g}" r="2.2"/>' for dot in dots)
    return (
        f'<svg class="strip" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" aria-hidden="true">'
        f'<line class="rail" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{middle:g}" y2="{middle:g}"/>'
        f'<line class="range" x1="{scale.x(low):.1f}" x2="{scale.x(high):.1f}" y1="{middle:g}" y2="{middle:g}"/>'
        f'{small}<circle class="{"best" if is_best else "other"}" cx="{scale.x(value):.1f}" cy="{middle:g}" r="4.5"/>'
        "</svg>"
    )
