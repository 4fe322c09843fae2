"""Learning curves: the deciding metric against the number of training rows, one line a strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.charts import Spec, axis, frame, picture, shape_of, spread
from taskfit.studies.learning_curve import CurvePoint, LearningCurve

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
        fitted: the fitted law with its interval, to twice the largest size; empty where none is fitted.
    """

    label: str
    points: tuple[CurvePoint, ...]
    needs_rows: bool
    fitted: tuple[CurvePoint, ...] = ()


def learning_curves(comparison: Comparison, laws: Sequence[LearningCurve] = ()) -> tuple[Curve, ...]:
    """Return the curves of a study with several training sizes, the best end first; none where there is one size.

    Args:
        comparison: what the study found.
        laws: fitted to them, by the same labels.
    """
    fitted = {law.label: law.fitted for law in laws}
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
        Curve(label, tuple(sorted(points, key=_rows)), len(points) > 1, fitted.get(label, ()))
        for (name, model), points in found.items()
        for label in [name if model is None else f"{name} on {model}"]
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
    drawn = [point for curve in curves for point in (*curve.points, *curve.fitted)]
    low, high = _domain(min(point.low for point in drawn), max(point.high for point in drawn))
    lasts = [(curve.fitted or curve.points)[-1].value for curve in curves]
    ends = spread([(high - value) / (high - low) for value in lasts], _LABEL_PX / (height - 60), 0.0, 1.0)
    most = max(point.rows for point in drawn)
    values = [_record(place, curve, sizes, most) for place, curve in enumerate(curves)]
    labels = [{"text": f"{name}", "at": end, "place": i} for i, (name, end) in enumerate(zip(names, ends, strict=True))]
    inner: Spec = {"signal": f"width - {room:.0f}"}
    scales = [
        {"name": "x", "type": "log", "domain": _stretched([*sizes, *(p.rows for p in drawn)]), "range": [0, inner]},
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
        {"name": "laws", "values": [one for place, curve in enumerate(curves) for one in _law(place, curve)]},
        {"name": "labels", "values": labels},
    ]
    marks = [_bands(), *_lines(), *_dots(), _label(inner)]
    words = f"Learning curves: {metric} against training rows for {len(curves)} strategies; the figures stand below."
    parts = {"data": data, "scales": scales, "axes": axes, "marks": marks}
    return picture(frame(width, height, description=words, parts=parts), kind="wide" if is_wide else "narrow")


def _domain(low: float, high: float) -> tuple[float, float]:
    room = 0.04 * (high - low) or 0.05
    return low - room, high + room


def _stretched(sizes: Sequence[int]) -> list[float]:
    least, most = min(sizes), max(sizes)
    factor = (most / least) ** 0.05
    return [least / factor, most * factor]


def _record(place: int, curve: Curve, sizes: Sequence[int], most: int) -> list[Spec]:
    """Return the marks of one curve as data; a little apart along the axis, so that intervals do not cover another."""
    shift = 1 + 0.006 * math.log(sizes[-1] / sizes[0]) * ((place % 5) - 2)
    points = curve.points if curve.needs_rows else _flat(curve.points[0], (sizes[0], most))
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
            "is_line": not curve.fitted,
            "title": f"{curve.label}: {point.value:.3f}",
        }
        for point in points
    ]


def _law(place: int, curve: Curve) -> list[Spec]:
    dash = _DASHES[place % len(_DASHES)]
    return [
        {"place": place, "x": p.rows, "value": p.value, "low": p.low, "high": p.high, "dash": dash}
        for p in curve.fitted
    ]


def _bands() -> Spec:
    """The fitted laws: a line each, in the band that its points leave open."""
    band = {
        "x": {"scale": "x", "field": "x"},
        "y": {"scale": "y", "field": "low"},
        "y2": {"scale": "y", "field": "high"},
        "fill": _COLOUR,
        "fillOpacity": {"value": 0.1},
    }
    line = {
        "x": {"scale": "x", "field": "x"},
        "y": {"scale": "y", "field": "value"},
        "stroke": _COLOUR,
        "strokeWidth": {"value": 1.8},
        "strokeDash": {"field": "dash"},
    }
    facet = {"facet": {"name": "law", "data": "laws", "groupby": "place"}}
    inside = [
        {"type": "area", "from": {"data": "law"}, "encode": {"update": band}},
        {"type": "line", "from": {"data": "law"}, "encode": {"update": line}},
    ]
    return {"type": "group", "from": facet, "marks": inside}


def _flat(point: CurvePoint, sizes: Sequence[int]) -> list[CurvePoint]:
    return [CurvePoint(size, point.value, point.low, point.high) for size in sizes]


_COLOURS = [f"var(--series-{number})" for number in range(1, 7)]
_COLOUR: Spec = {"signal": f"{_COLOURS}[datum.place % 6]"}


def _lines() -> list[Spec]:
    line = {
        "x": {"scale": "x", "field": "x"},
        "y": {"scale": "y", "field": "value"},
        "stroke": _COLOUR,
        "strokeWidth": {"value": 1.8},
        "strokeDash": {"field": "dash"},
        "strokeOpacity": {"signal": "datum.is_line ? 1 : 0"},
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
