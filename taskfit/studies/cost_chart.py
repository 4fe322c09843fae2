"""Quality against total cost, with intervals and the front of those that no other beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from taskfit.studies.charts import Spec, axis, frame

__all__ = ["AMOUNT", "EDGE", "SMALLEST", "UPRIGHT", "Figure", "Point", "cost_chart", "hovering"]

SMALLEST = 1e-9
"""A cost of nothing, on an axis of powers of ten."""

UPRIGHT: Spec = {"titleAnchor": "end", "titleAngle": 0, "titleAlign": "left", "titleX": -34, "titleY": -12}
"""A vertical axis's title, lying above it."""


@dataclass(frozen=True)
class Figure:
    """A metric with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One candidate on the charts.

    Attributes:
        key: the letters that stand for it.
        label: its name.
        verdict: as in the table; a candidate over a limit is ``over``.
        fit: cost before the first row is predicted, in the chart's unit.
        row: cost of one predicted row, in the same unit.
        is_main: false for smaller training sets, which are shown on demand.
        figures: metric to figure; metrics that it lacks are left out.
    """

    key: str
    label: str
    verdict: str
    fit: float
    row: float
    is_main: bool
    figures: Mapping[str, Figure]


def cost_chart(
    points: Sequence[Point],
    *,
    metric: str,
    names: Mapping[str, str],
    falling: Sequence[str],
    volume: int,
    unit: str,
    width: int,
    height: int,
    is_live: bool,
) -> Spec:
    """Return quality against total cost, with intervals and the front of those that no other beats in both.

    Args:
        points: all candidates.
        metric: which one is drawn first.
        names: metric to what people call it.
        falling: metrics of which less is better.
        volume: rows to predict, for the total cost.
        unit: of costs: "US dollars" or "seconds".
        width: of the whole, in pixels.
        height: the same.
        is_live: with names beside the marks, which only a browser can place.
    """
    title = "unit_title + ' for ' + format(volume, ',.3~r') + ' rows'"
    signals = [
        {"name": "volume", "value": volume},
        {"name": "metric", "value": metric},
        {"name": "all", "value": False},
        {"name": "hovered", "value": "", "on": hovering("marks")},
        {"name": "falling", "value": list(falling)},
        {"name": "names", "value": dict(names)},
        {"name": "unit_title", "value": unit},
        {"name": "sign", "value": "$" if unit == "US dollars" else ""},
    ]
    scales = [
        {
            "name": "x",
            "type": "log",
            "domain": {"data": "points", "field": "cost"},
            "range": "width",
            "padding": 34,
        },
        {
            "name": "y",
            "domain": {"data": "points", "fields": ["low", "high"]},
            "range": "height",
            "zero": False,
            "padding": 16,
        },
    ]
    axes = [
        axis("y", "left", {"signal": "names[metric]"}, **UPRIGHT),
        axis("x", "bottom", {"signal": title}, grid=False, values={"signal": _TICKS}, tickCount=40, encode=AMOUNT),
    ]
    return frame(
        width,
        height,
        description=f"Quality against total cost; the table of strategies holds the same figures. {len(points)} marks.",
        parts={
            "signals": signals,
            "data": _cost_data(points),
            "scales": scales,
            "axes": axes,
            "marks": [*_front_marks(), *_point_marks(), *(_name_marks() if is_live else [])],
        },
    )


_AMOUNT_TEXT = (
    "sign + (datum.value >= 1000 ? format(datum.value, ',.0f') : "
    "datum.value >= 1e-7 ? format(datum.value, '.7~f') : format(datum.value, '.1~e'))"
)
_DECADES = [10.0**power for power in range(-9, 10)]
_FIVES = [float(f"{digit}e{power}") for power in range(-9, 10) for digit in (1, 2, 5)]
_TICKS = f"domain('x')[1] > 100 * domain('x')[0] ? {_DECADES} : {_FIVES}"
AMOUNT: Spec = {"labels": {"update": {"text": {"signal": _AMOUNT_TEXT}}}}


def _cost_data(points: Sequence[Point]) -> list[Spec]:
    shown = "datum.is_main || all || datum.verdict == 'recommended'"
    better = "indexof(falling, metric) < 0 ? datum.value : -datum.value"
    order = {"field": ["cost", "better"], "order": ["ascending", "descending"]}
    window = {"type": "window", "sort": order, "ignorePeers": True}
    transform: list[Spec] = [
        {"type": "filter", "expr": f"datum.figures[metric] && ({shown})"},
        {"type": "formula", "as": "cost", "expr": f"max({SMALLEST}, datum.fit + volume * datum.row)"},
        *(
            {"type": "formula", "as": name, "expr": f"datum.figures[metric].{name}"}
            for name in ("value", "low", "high")
        ),
        {"type": "formula", "as": "better", "expr": better},
        {**window, "ops": ["max"], "fields": ["better"], "as": ["best"], "frame": [None, 0]},
        {**window, "ops": ["lag"], "fields": ["best"], "params": [1], "as": ["before"]},
        {"type": "formula", "as": "is_front", "expr": "!isValid(datum.before) || datum.better > datum.before"},
        {"type": "collect", "sort": {"field": "is_last"}},
    ]
    transform.insert(1, {"type": "formula", "as": "is_last", "expr": "datum.verdict == 'recommended'"})
    front: list[Spec] = [{"type": "filter", "expr": "datum.is_front"}, {"type": "collect", "sort": {"field": "cost"}}]
    return [
        {"name": "points", "values": [asdict(point) for point in points], "transform": transform},
        {"name": "front", "source": "points", "transform": front},
    ]


def _front_marks() -> list[Spec]:
    line = {
        "x": {"scale": "x", "field": "cost"},
        "y": {"scale": "y", "field": "value"},
        "interpolate": {"value": "step-after"},
        "stroke": {"value": "var(--accent)"},
        "strokeWidth": {"value": 1.5},
        "strokeDash": {"value": [5, 4]},
        "strokeOpacity": {"value": 0.8},
    }
    # The sort is the mark's own: items keep the order in which they came when costs change places.
    order = {"field": "x"}
    mark = {"type": "line", "from": {"data": "front"}, "sort": order, "interactive": False, "encode": {"update": line}}
    return [mark]


_IS_HOVERED = "hovered == datum.key"


def _point_marks() -> list[Spec]:
    at = {"x": {"scale": "x", "field": "cost"}, "y": {"scale": "y", "field": "value"}}
    stroke = {"stroke": {"value": "var(--soft)"}, "strokeWidth": {"signal": f"{_IS_HOVERED} ? 2.5 : 1.3"}}
    bar = {"x": at["x"], "y": {"scale": "y", "field": "low"}, "y2": {"scale": "y", "field": "high"}, **stroke}
    caps = [_cap(end, stroke) for end in ("low", "high")]
    return [
        {"type": "rule", "from": {"data": "points"}, "interactive": False, "encode": {"update": bar}},
        *caps,
        {"type": "symbol", "name": "marks", "from": {"data": "points"}, "encode": {"update": _symbol(at)}},
        {"type": "text", "from": {"data": "points"}, "interactive": False, "encode": {"update": _letter(at)}},
    ]


def _cap(end: str, stroke: Spec) -> Spec:
    x, y = {"scale": "x", "field": "cost"}, {"scale": "y", "field": end}
    encode = {"x": {**x, "offset": -4}, "x2": {**x, "offset": 4}, "y": y, **stroke}
    return {"type": "rule", "from": {"data": "points"}, "interactive": False, "encode": {"update": encode}}


_SHAPE = {"signal": "{recommended: 'diamond', over: 'square'}[datum.verdict] || 'circle'"}
_FILL = {"signal": "{recommended: 'var(--accent)', tied: 'var(--ink)'}[datum.verdict] || 'var(--sheet)'"}
EDGE = {"signal": "datum.verdict == 'recommended' ? 'var(--accent)' : 'var(--ink)'"}
_ON_FILL = {"signal": "datum.verdict == 'recommended' || datum.verdict == 'tied' ? 'var(--sheet)' : 'var(--ink)'"}


def _symbol(at: Spec) -> Spec:
    return {
        **at,
        "shape": _SHAPE,
        "size": {"signal": f"(datum.verdict == 'recommended' ? 640 : 300) * ({_IS_HOVERED} ? 1.4 : 1)"},
        "fill": _FILL,
        "stroke": EDGE,
        "strokeWidth": {"signal": f"{_IS_HOVERED} ? 2.5 : 1.4"},
        "strokeDash": {"signal": "datum.verdict == 'over' ? [3, 2] : [1, 0]"},
        "tooltip": {"signal": "datum"},
        "cursor": {"value": "pointer"},
        "description": {"signal": "datum.key + ' ' + datum.label + ': ' + format(datum.value, '.3f')"},
    }


def _letter(at: Spec) -> Spec:
    return {
        **at,
        "text": {"field": "key"},
        "align": {"value": "center"},
        "baseline": {"value": "middle"},
        "dy": {"value": 0.5},
        "fontSize": {"signal": "length(datum.key) > 1 ? 9 : 11"},
        "fontWeight": {"value": 700},
        "fill": _ON_FILL,
    }


def _name_marks() -> list[Spec]:
    style = {
        "text": {"signal": "width < 460 ? '' : datum.datum.label"},
        "fill": {"value": "var(--ink)"},
        "fontWeight": {"signal": "datum.datum.verdict == 'recommended' ? 700 : 400"},
        "stroke": {"value": "var(--sheet)"},
        "strokeWidth": {"value": 3},
    }
    place: Spec = {
        "type": "label",
        "size": {"signal": "[width, height]"},
        "anchor": ["right", "left", "top-right", "bottom-right", "top-left", "bottom-left", "top", "bottom"],
        "offset": [4, 8, 14],
        "sort": {"field": "datum.is_last", "order": "descending"},
        "padding": 4,
    }
    return [
        {
            "type": "text",
            "from": {"data": "marks"},
            "interactive": False,
            "encode": {"enter": {"text": style["text"]}, "update": {**style, "zindex": {"value": 1}}},
            "transform": [place],
        }
    ]


def hovering(marks: str) -> list[Spec]:
    """Return what sets the signal ``hovered`` to the key under the pointer."""
    return [
        {"events": f"@{marks}:pointerover", "update": "datum.key"},
        {"events": f"@{marks}:pointerout", "update": "''"},
    ]
