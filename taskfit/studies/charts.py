"""Charts: specifications in the Vega grammar, drawn once as SVG and, in the page, again by Vega's own JavaScript.

A specification is plain JSON. Its colours are names of the page's CSS variables, so one picture serves light, dark and
print. Numbers and texts of data and models stand in the specification as data, never as expressions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["SHAPES", "Spec", "axis", "frame", "library", "picture", "shape_of", "spread"]

Spec = dict[str, Any]
"""A Vega specification, or a part of one, as JSON values."""

_FONT = "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif"
_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_GEOMETRY = re.compile(r' (?:d|transform|[xy][12]?|width|height|viewBox)="[^"]*"')
_LONG_NUMBER = re.compile(r"(\d\.\d)\d+")
_NOISE = re.compile(r' (?:xmlns[:\w]*|version|role|aria-roledescription|font-family)="[^"]*"|(?<=<svg) class="marks"')

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
"""Marks told apart without colour."""


def shape_of(place: int) -> str:
    """Return the shape of the series at a place, from 0 up; shapes come again after six."""
    return SHAPES[place % len(SHAPES)]


def frame(width: int, height: int, *, description: str, parts: Mapping[str, Any]) -> Spec:
    """Return a whole specification: the common frame with the parts of one chart.

    Args:
        width: of the whole, axes included, in pixels.
        height: the same.
        description: what a screen reader says of it.
        parts: signals, data, scales, axes and marks.
    """
    text = {"font": _FONT, "fontSize": 12, "fill": "var(--ink)"}
    return {
        "description": description,
        "width": width,
        "height": height,
        "padding": 5,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": {"style": {"guide-label": text, "guide-title": text}, "text": text},
        **parts,
    }


def axis(scale: str, orient: str, title: str | Spec, **more: Any) -> Spec:  # passed on as they are to Vega
    """Return an axis with a thin grid; ``more`` goes before what is usual."""
    return {
        "scale": scale,
        "orient": orient,
        "title": title,
        "titleFontWeight": "normal",
        "titleColor": "var(--soft)",
        "titlePadding": 8,
        "labelColor": "var(--soft)",
        "labelOverlap": True,
        "labelSeparation": 10,
        "labelFlush": True,
        "labelPadding": 4,
        "grid": True,
        "gridColor": "var(--grid)",
        "domain": orient == "bottom",
        "domainColor": "var(--soft)",
        "ticks": False,
        "tickCount": 5,
        **more,
    }


@lru_cache(maxsize=64)
def _drawn(spec: str) -> str:
    import vl_convert

    drawn: str = vl_convert.vega_to_svg(spec)
    return drawn


def picture(spec: Spec, *, kind: str = "") -> str:
    """Draw a specification: one ``<svg>`` element that a page can hold, scaled to its place.

    Args:
        spec: the whole specification.
        kind: further classes of the element.
    """
    from html import escape

    svg = _drawn(json.dumps(spec, sort_keys=True))
    svg = _GEOMETRY.sub(lambda found: _LONG_NUMBER.sub(r"\1", found[0]), _NOISE.sub("", svg))
    return svg.replace("<svg", f'<svg class="chart {kind}" role="img" aria-label="{escape(spec["description"])}"', 1)


@lru_cache(maxsize=1)
def library() -> str:
    """Return the JavaScript that draws specifications in a browser, 0.9 MB: Vega, as ``vl-convert-python`` holds it.

    It comes with Vega's interpreter of expressions, so a page needs no right to compile code.
    """
    import vl_convert

    script: str = vl_convert.javascript_bundle(_SNIPPET)
    return script


def spread(places: Sequence[float], least: float, lowest: float, highest: float) -> list[float]:
    """Move places apart so that neighbours keep a distance, with no place further than needed; order is kept.

    Args:
        places: where labels would like to stand, in pixels, in any order.
        least: smallest distance of two.
        lowest: none goes below, while there is room.
        highest: none goes above, while there is room.

    >>> spread([10, 11, 50], 8, 0, 100)
    [10, 18, 50]
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = [0.0] * len(places)
    last = lowest - least
    for i in order:
        last = found[i] = max(places[i], last + least)
    last = highest + least
    for i in reversed(order):
        last = found[i] = min(found[i], last - least)
    return found
