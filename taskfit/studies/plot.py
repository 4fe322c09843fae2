"""The quality-against-cost plot as plain SVG: no script, colours from the page, readable without them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Point", "cost_plot"]

_FONT_PX = 12
_CHARACTER_PX = 6.4
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 46


@dataclass(frozen=True)
class Point:
    """One candidate on the plot.

    Attributes:
        label: written beside the mark.
        cost: above 0, on a logarithmic axis.
        value, low, high: figure with interval.
        verdict: decides the mark: ``recommended`` a diamond, ``tied`` a disc, anything else a ring.
        is_pareto: whether the front's line goes through it.
        title: what a pointer or a screen reader is told.
    """

    label: str
    cost: float
    value: float
    low: float
    high: float
    verdict: str
    is_pareto: bool
    title: str


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        """Area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class _Frame:
    """Where values lie on the picture."""

    width: int
    height: int
    cost_low: float
    cost_high: float
    low: float
    high: float

    def x(self, cost: float) -> float:
        """Pixels from the left; ``cost`` above 0."""
        share = (math.log10(cost) - self.cost_low) / (self.cost_high - self.cost_low)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.low) / (self.high - self.low)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)


def cost_plot(points: Sequence[Point], *, cost_title: str, value_title: str, name: str, width: int, height: int) -> str:
    """Draw points with error bars, the front of those that no other beats, and labels that keep clear of each other.

    Args:
        points: at least one, each with a cost above 0.
        cost_title: name of the cost axis.
        value_title: name of the figure's axis.
        name: unique on the page; makes the ids of title and description.
        width: of the viewing box, in pixels.
        height: of the viewing box, in pixels.

    Returns:
        An ``<svg>`` element that takes its colours from the page's CSS variables.
    """
    frame = _frame(points, width, height)
    description = "; ".join(point.title for point in points)
    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title {name}-text">',
        f'<title id="{name}-title">{escape(value_title)} against {escape(cost_title)}</title>',
        f'<desc id="{name}-text">{escape(description)}</desc>',
        *_axes(frame, cost_title, value_title),
        _front(points, frame),
        *(_bar(point, frame) for point in points),
        *_labels(points, frame),
        *(_mark(point, frame) for point in points),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _frame(points: Sequence[Point], width: int, height: int) -> _Frame:
    costs = [math.log10(point.cost) for point in points]
    room = max(0.15, 0.08 * (max(costs) - min(costs)))
    low, high = min(point.low for point in points), max(point.high for point in points)
    padding = max(0.01, 0.06 * (high - low))
    return _Frame(width, height, min(costs) - room, max(costs) + room, low - padding, high + padding)


def _axes(frame: _Frame, cost_title: str, value_title: str) -> list[str]:
    bottom, right = frame.height - _BOTTOM, frame.width - _RIGHT
    parts = []
    values = _even_ticks(frame.low, frame.high)
    digits = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    for value in values:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for cost in _log_ticks(frame):
        x = frame.x(cost)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_amount(cost)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text class="name" x="{middle:.1f}" y="{frame.height - 8}" text-anchor="middle">{escape(cost_title)}</text>'
    )
    turned = f"translate(13 {(_TOP + bottom) / 2:.1f}) rotate(-90)"
    parts.append(f'<text class="name" transform="{turned}" text-anchor="middle">{escape(value_title)}</text>')
    return parts


def _even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def _log_ticks(frame: _Frame) -> list[float]:
    most = max(3, (frame.width - _LEFT - _RIGHT) // 70)
    decades = range(math.ceil(frame.cost_low), math.floor(frame.cost_high) + 1)
    if len(decades) >= 2:
        stride = math.ceil(len(decades) / most)
        return [10.0**n for n in decades if n % stride == 0]
    span = range(math.floor(frame.cost_low), math.ceil(frame.cost_high) + 1)
    candidates = [factor * 10.0**n for n in span for factor in (1, 2, 5)]
    return [cost for cost in candidates if frame.cost_low <= math.log10(cost) <= frame.cost_high]


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.9f}".rstrip("0").rstrip(".")


def _front(points: Sequence[Point], frame: _Frame) -> str:
    front = sorted((point for point in points if point.is_pareto), key=lambda point: point.cost)
    if len(front) < 2:
        return ""
    path = " ".join(f"{frame.x(point.cost):.1f},{frame.y(point.value):.1f}" for point in front)
    return f'<polyline class="front" points="{path}"/>'


def _bar(point: Point, frame: _Frame) -> str:
    x, top, bottom = frame.x(point.cost), frame.y(point.high), frame.y(point.low)
    caps = f"M{x - 4:.1f},{top:.1f}h8M{x - 4:.1f},{bottom:.1f}h8"
    return f'<path class="bar" d="M{x:.1f},{top:.1f}V{bottom:.1f}{caps}"/>'


def _mark(point: Point, frame: _Frame) -> str:
    x, y = frame.x(point.cost), frame.y(point.value)
    title = f"<title>{escape(point.title)}</title>"
    if point.verdict == "recommended":
        return f'<path class="chosen" d="M{x:.1f},{y - 9:.1f}l9,9l-9,9l-9,-9z">{title}</path>'
    kind = "tied" if point.verdict == "tied" else "worse"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5.5">{title}</circle>'


def _labels(points: Sequence[Point], frame: _Frame) -> list[str]:
    """Write each label at the place around its mark where it covers least of what is there already."""
    taken = [_mark_box(point, frame) for point in points]
    bars = [_bar_box(point, frame) for point in points]
    parts = []
    for point in sorted(points, key=lambda p: (p.verdict != "recommended", -p.value)):
        place = min(_places(point, frame), key=lambda place: _clutter(place, taken, bars, frame))
        taken.append(place.box)
        parts += _label(point, place, frame)
    return parts


@dataclass(frozen=True)
class _Place:
    """Where a label may stand; ``lift`` is how far from its mark's height, in pixels."""

    box: _Box
    anchor: str
    lift: int


def _places(point: Point, frame: _Frame) -> list[_Place]:
    x, y, wide, tall = frame.x(point.cost), frame.y(point.value), len(point.label) * _CHARACTER_PX, _FONT_PX + 4
    places = []
    for lift in (0, -16, 16, -32, 32, -48, 48):
        top = y - tall / 2 + lift
        places.append(_Place(_Box(x + 12, top, x + 12 + wide, top + tall), "start", lift))
        places.append(_Place(_Box(x - 12 - wide, top, x - 12, top + tall), "end", lift))
    return places


def _label(point: Point, place: _Place, frame: _Frame) -> list[str]:
    """Return the text, with a thin line to its mark where it stands away from it."""
    box = place.box
    x = box.left if place.anchor == "start" else box.right
    kind = "label chosen-label" if point.verdict == "recommended" else "label"
    where = f'x="{x:.1f}" y="{box.bottom - 3:.1f}" text-anchor="{place.anchor}"'
    text = f'<text class="{kind}" {where}>{escape(point.label)}</text>'
    if place.lift == 0:
        return [text]
    near = -2 if place.anchor == "start" else 2
    ends = (
        f'x1="{frame.x(point.cost):.1f}" y1="{frame.y(point.value):.1f}" x2="{x + near:.1f}" y2="{box.bottom - 7:.1f}"'
    )
    return [f'<line class="lead" {ends}/>', text]


def _clutter(place: _Place, taken: Sequence[_Box], bars: Sequence[_Box], frame: _Frame) -> float:
    """How much a label there would cover or stick out, in weighted square pixels."""
    box = place.box
    inside = _Box(_LEFT, 0, frame.width, frame.height - _BOTTOM)
    area = (box.right - box.left) * (box.bottom - box.top)
    outside = area - box.overlap(inside)
    covered = 4 * sum(box.overlap(other) for other in taken) + sum(box.overlap(bar) for bar in bars)
    return 20 * outside + covered + 0.5 * abs(place.lift)


def _mark_box(point: Point, frame: _Frame) -> _Box:
    x, y = frame.x(point.cost), frame.y(point.value)
    return _Box(x - 9, y - 9, x + 9, y + 9)


def _bar_box(point: Point, frame: _Frame) -> _Box:
    x = frame.x(point.cost)
    return _Box(x - 4, frame.y(point.high), x + 4, frame.y(point.low))
