"""Learning curves: the deciding metric against the number of training rows, one line a strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.charts import Spec, axis, frame, picture, shape_of, spread
from taskfit.studies.learning_curve import CurvePoint

if TYPE_CHECKING:
    from taskfit.studies.compare import Comparison

__all__ = ["Curve", "curve_chart", "learning_curves"]

_LABEL_PX = 15
_CHARACTER_PX = 6.6
_DASHES = ([1, 0], [8, 4], [10, 3, 3, 3], [5, 5])


@dataclass(frozen=True)
class Curve:
    """One strategy with one model.

    Attributes:
        points: from few rows to many; a single one for what needs no training rows.
        needs_rows: false for strategies that look at no training rows.
    """

    label: str
    points: tuple[CurvePoint, ...]
    needs_rows: bool


def learning_curves(comparison: Comparison) -> tuple[Curve, ...]:
    """Return the curves of a study with several training sizes, the best end first; none where there is one size."""
    rows = comparison.study.plan.data.get("rows")
    whole = rows.get("train") if isinstance(rows, dict) else None
    if not isinstance(whole, int):
        return ()
    found: dict[tuple[str, str | None], list[CurvePoint]] = {}
    for candidate in comparison.candidates:
        size = whole if candidate.train_rows is None else candidate.train_rows
        value = candidate.metrics[comparison.metric]
        point = CurvePoint(size, value.value, value.low, value.high)
        found.setdefault((candidate.strategy, candidate.model_shown), []).append(point)
    if all(len(points) < 2 for points in found.values()):
        return ()
    curves = [
        Curve(name if model is None else f"{name} on {model}", tuple(sorted(points, key=_rows)), len(points) > 1)
        for (name, model), points in found.items()
    ]
    return tuple(sorted(curves, key=lambda curve: -curve.points[-1].value))


def _rows(point: CurvePoint) -> int:
    return point.rows


def curve_chart(curves: Sequence[Curve], metric: str, *, is_wide: bool) -> str:
    """Draw the curves as SVG: shapes, dashes and names tell them apart, not colour.

    Args:
        curves: at least one with two points.
        metric: the axis's title.
        is_wide: with names at the ends of the lines; else numbers, which stand for the curves in their order.
    """
    names = [curve.label if is_wide else str(place) for place, curve in enumerate(curves, 1)]
    width, height = (860, 400) if is_wide else (400, 340)
    room = max(len(name) for name in names) * _CHARACTER_PX + 24
    sizes = sorted({point.rows for curve in curves for point in curve.points})
    lows, highs = zip(*((p.low, p.high) for curve in curves for p in curve.points), strict=True)
    low, high = _domain(min(lows), max(highs))
    ends = spread([(high - c.points[-1].value) / (high - low) for c in curves], _LABEL_PX / (height - 60), 0.0, 1.0)
    values = [_record(place, curve, sizes) for place, curve in enumerate(curves)]
    labels = [{"text": f"{name}", "at": end, "place": i} for i, (name, end) in enumerate(zip(names, ends, strict=True))]
    inner: Spec = {"signal": f"width - {room:.0f}"}
    scales = [
        {"name": "x", "type": "log", "domain": _stretched(sizes), "range": [0, inner]},
        {"name": "y", "domain": [low, high], "range": "height"},
    ]
    axes = [
        axis(
            "y", "left", metric, titleAnchor="end", titleAngle=0, titleAlign="left", titleX=-28, titleY=-12, grid=False
        ),
        axis("x", "bottom", "training rows", grid=False, values=sizes, format=",", labelOverlap=False),
    ]
    data = [
        {"name": "points", "values": [one for record in values for one in record]},
        {"name": "labels", "values": labels},
    ]
    marks = [*_lines(), *_dots(), _label(inner)]
    words = f"Learning curves: {metric} against training rows for {len(curves)} strategies; the figures stand below."
    parts = {"data": data, "scales": scales, "axes": axes, "marks": marks}
    return picture(frame(width, height, description=words, parts=parts), kind="wide" if is_wide else "narrow")


def _domain(low: float, high: float) -> tuple[float, float]:
    room = 0.04 * (high - low) or 0.05
    return low - room, high + room


def _stretched(sizes: Sequence[int]) -> list[float]:
    factor = (sizes[-1] / sizes[0]) ** 0.05
    return [sizes[0] / factor, sizes[-1] * factor]


def _record(place: int, curve: Curve, sizes: Sequence[int]) -> list[Spec]:
    """Return the marks of one curve as data; a little apart along the axis, so that intervals do not cover another."""
    shift = 1 + 0.006 * math.log(sizes[-1] / sizes[0]) * ((place % 5) - 2)
    points = curve.points if curve.needs_rows else _flat(curve.points[0], sizes)
    return [
        {
            "place": place,
            "x": point.rows * shift,
            "value": point.value,
            "low": point.low,
            "high": point.high,
            "shape": shape_of(place),
            "dash": _DASHES[place % len(_DASHES)] if curve.needs_rows else [1, 4],
            "is_dot": curve.needs_rows,
            "title": f"{curve.label}: {point.value:.3f}",
        }
        for point in points
    ]


def _flat(point: CurvePoint, sizes: Sequence[int]) -> list[CurvePoint]:
    return [CurvePoint(size, point.value, point.low, point.high) for size in (sizes[0], sizes[-1])]


_COLOURS = [f"var(--series-{number})" for number in range(1, 7)]
_COLOUR: Spec = {"signal": f"{_COLOURS}[datum.place % 6]"}


def _lines() -> list[Spec]:
    line = {
        "x": {"scale": "x", "field": "x"},
        "y": {"scale": "y", "field": "value"},
        "stroke": _COLOUR,
        "strokeWidth": {"value": 1.8},
        "strokeDash": {"field": "dash"},
    }
    bar = {
        "x": {"scale": "x", "field": "x"},
        "y": {"scale": "y", "field": "low"},
        "y2": {"scale": "y", "field": "high"},
        "stroke": _COLOUR,
        "strokeOpacity": {"signal": "datum.is_dot ? 0.6 : 0"},
    }
    facet = {"facet": {"name": "curve", "data": "points", "groupby": "place"}}
    inside = [{"type": "line", "from": {"data": "curve"}, "encode": {"update": line}}]
    return [
        {"type": "rule", "from": {"data": "points"}, "encode": {"update": bar}},
        {"type": "group", "from": facet, "marks": inside},
    ]


def _dots() -> list[Spec]:
    dot = {
        "x": {"scale": "x", "field": "x"},
        "y": {"scale": "y", "field": "value"},
        "shape": {"field": "shape"},
        "size": {"signal": "datum.is_dot ? 70 : 0"},
        "fill": _COLOUR,
        "stroke": {"value": "var(--sheet)"},
        "description": {"field": "title"},
    }
    return [{"type": "symbol", "from": {"data": "points"}, "encode": {"update": dot}}]


def _label(inner: Spec) -> Spec:
    text = {
        "x": {"signal": f"{inner['signal']} + 8"},
        "y": {"signal": "datum.at * height"},
        "text": {"field": "text"},
        "baseline": {"value": "middle"},
        "fill": _COLOUR,
        "fontWeight": {"value": 600},
    }
    return {"type": "text", "from": {"data": "labels"}, "encode": {"update": text}}
