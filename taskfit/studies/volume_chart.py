"""Total cost against the rows to predict, one line a strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from taskfit.studies.charts import Spec, axis, frame, spread
from taskfit.studies.cost_chart import AMOUNT, EDGE, SMALLEST, UPRIGHT, Point, hovering

__all__ = ["HIGHEST_VOLUME", "LOWEST_VOLUME", "volume_chart", "volume_range"]

LOWEST_VOLUME, HIGHEST_VOLUME = 100, 10_000_000

_HEIGHT = 300
_LETTER_PX = 14


def volume_range(volume: int) -> tuple[int, int]:
    """Return the least and the most rows to predict that the report looks at; the study's own are among them."""
    return min(LOWEST_VOLUME, volume), max(HIGHEST_VOLUME, volume)


def volume_chart(points: Sequence[Point], *, breaks: Sequence[int], volume: int, unit: str, width: int) -> Spec:
    """Return total cost against the rows to predict, with the volumes at which another choice becomes cheaper.

    Args:
        points: candidates worth a line.
        breaks: volumes where the choice changes.
        volume: rows to predict, marked by a line that the page moves.
        unit: of costs.
        width: in pixels.
    """
    low, high = volume_range(volume)
    ends = [max(SMALLEST, point.fit + high * point.row) for point in points]
    costs = [min(max(SMALLEST, point.fit + low * point.row) for point in points) / 1.5, max(ends) * 1.5]
    signals: list[Spec] = [
        {"name": "volume", "value": volume},
        {"name": "hovered", "value": "", "on": hovering("lines")},
        {"name": "sign", "value": "$" if unit == "US dollars" else ""},
    ]
    steps: list[Spec] = [
        {"type": "formula", "as": "power", "expr": "sequence(0, 1.001, 0.025)"},
        {"type": "flatten", "fields": ["power"]},
        {"type": "formula", "as": "rows", "expr": f"{low} * pow({high} / {low}, datum.power)"},
        {"type": "formula", "as": "cost", "expr": f"max({SMALLEST}, datum.fit + datum.rows * datum.row)"},
    ]
    values = [asdict(point) for point in points]
    letters = [{"key": p.key, "verdict": p.verdict, "y": y} for p, y in zip(points, _apart(ends, costs), strict=True)]
    scales = [
        {"name": "x", "type": "log", "domain": [low, high], "range": "width"},
        {"name": "y", "type": "log", "domain": costs, "range": "height"},
    ]
    title = f"total cost, {unit}"
    axes = [
        axis("y", "left", title, encode=AMOUNT, **UPRIGHT),
        axis("x", "bottom", "rows to predict", grid=False, encode=_ROWS),
    ]
    data = [
        {"name": "lines", "values": values, "transform": steps},
        {"name": "ends", "values": letters},
        {"name": "breaks", "values": [{"rows": rows} for rows in breaks]},
    ]
    marks = [_break_mark(), _volume_mark(), _line_groups(), _end_letters()]
    description = f"Total cost against the rows to predict, one line a strategy; breaks at {len(breaks)} volumes."
    parts = {"signals": signals, "data": data, "scales": scales, "axes": axes, "marks": marks}
    return frame(width, _HEIGHT, description=description, parts=parts)


_ROWS_TEXT = "datum.value >= 1e6 ? format(datum.value / 1e6, '~r') + ' million' : format(datum.value, ',.0f')"
_ROWS: Spec = {"labels": {"update": {"text": {"signal": _ROWS_TEXT}}}}


def _apart(ends: Sequence[float], costs: Sequence[float]) -> list[float]:
    """Shares of the height, from the top, for letters that do not cover each other."""
    low, high = map(math.log, costs)
    tops = [(high - math.log(end)) / (high - low) for end in ends]
    return spread(tops, _LETTER_PX / _HEIGHT, 0.0, 1.0)


def _break_mark() -> Spec:
    encode = {
        "x": {"scale": "x", "field": "rows"},
        "y": {"value": 0},
        "y2": {"signal": "height"},
        "stroke": {"value": "var(--soft)"},
        "strokeDash": {"value": [2, 3]},
    }
    return {"type": "rule", "from": {"data": "breaks"}, "interactive": False, "encode": {"update": encode}}


def _volume_mark() -> Spec:
    encode = {
        "x": {"scale": "x", "signal": "volume"},
        "y": {"value": 0},
        "y2": {"signal": "height"},
        "stroke": {"value": "var(--accent)"},
        "strokeWidth": {"value": 2},
    }
    return {"type": "rule", "interactive": False, "encode": {"update": encode}}


_IS_WORSE = "(datum.verdict == 'worse' || datum.verdict == 'over')"


def _line_groups() -> Spec:
    line = {
        "x": {"scale": "x", "field": "rows"},
        "y": {"scale": "y", "field": "cost"},
        "stroke": EDGE,
        "strokeWidth": {"signal": "hovered == datum.key ? 3.5 : datum.verdict == 'recommended' ? 2.5 : 1.5"},
        "strokeDash": {"signal": f"{_IS_WORSE} ? [4, 3] : [1, 0]"},
        "strokeOpacity": {"signal": f"{_IS_WORSE} ? 0.55 : 1"},
        "tooltip": {"signal": "datum"},
    }
    return {
        "type": "group",
        "from": {"facet": {"name": "line", "data": "lines", "groupby": "key"}},
        "marks": [{"type": "line", "name": "lines", "from": {"data": "line"}, "encode": {"update": line}}],
    }


def _end_letters() -> Spec:
    encode = {
        "x": {"signal": "width + 5"},
        "y": {"signal": "datum.y * height"},
        "text": {"field": "key"},
        "baseline": {"value": "middle"},
        "fontWeight": {"value": 700},
        "fontSize": {"value": 11},
        "fill": EDGE,
    }
    return {"type": "text", "from": {"data": "ends"}, "interactive": False, "encode": {"update": encode}}
