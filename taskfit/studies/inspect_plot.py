"""Pictures of what is inside a predictor, as plain SVG in the colours of the page, each readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bars", "curves", "heat_map"]

_CELL, _EDGE = 26, 30


def heat_map(values: Sequence[Sequence[float]], *, name: str) -> str:
    """Draw a square table of cosines: the stronger the shade, the larger; hundredths stand in the cells.

    Args:
        values: from -1 to 1, as many columns as rows.
        name: what a screen reader is told.
    """
    size = _EDGE + _CELL * len(values)
    parts = [f'<svg class="plot" viewBox="0 0 {size} {size}" style="max-width:{size}px" role="img">']
    parts.append(f"<title>{escape(name)}</title>")
    for row, cells in enumerate(values):
        parts.append(_text(_EDGE - 6, _EDGE + _CELL * (row + 0.65), str(row), "end"))
        parts.append(_text(_EDGE + _CELL * (row + 0.5), _EDGE - 8, str(row), "middle"))
        for column, value in enumerate(cells):
            colour = "var(--accent)" if value >= 0 else "var(--bad)"
            x, y = _EDGE + _CELL * column, _EDGE + _CELL * row
            shade, told = min(1.0, abs(value)) * 0.6, f"{row} and {column}: {value:+.2f}"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="{colour}" fill-opacity="{shade:.2f}">'
                f"<title>{told}</title></rect>"
            )
            if row != column:
                parts.append(_text(x + _CELL / 2, y + _CELL * 0.65, f"{round(100 * value)}", "middle"))
    return "".join([*parts, "</svg>"])


def bars(labels: Sequence[str], values: Sequence[float], shown: Sequence[str], *, name: str) -> str:
    """Draw one bar a label, from 0, with its value in words behind it.

    Args:
        labels: in front of the bars.
        values: at least 0, one a label.
        shown: the values in words.
        name: what a screen reader is told.
    """
    height, left, width = 22 * len(labels) + 8, 230, 760
    largest = max([*values, 1e-30])
    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img"><title>{escape(name)}</title>']
    for number, (label, value, text) in enumerate(zip(labels, values, shown, strict=True)):
        y, length = 22 * number + 4, (width - left - 110) * value / largest
        parts.append(_text(left - 8, y + 14, label[-34:], "end"))
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="14" fill="var(--accent)"/>')
        parts.append(_text(left + length + 6, y + 14, text, "start"))
    return "".join([*parts, "</svg>"])


def curves(lines: Sequence[tuple[str, Sequence[float]]], *, name: str) -> str:
    """Draw one falling line a layer: its singular values, each divided by the layer's largest.

    Args:
        lines: (layer, values); values are at least 0, the largest first.
        name: what a screen reader is told.
    """
    width, height, left, bottom = 760, 300, 44, 36
    longest = max(len(values) for _, values in lines)
    step = (width - left - 16) / max(1, longest - 1)
    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img"><title>{escape(name)}</title>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _height(share, height, bottom)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 16}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{share:g}", "end"))
    parts += [
        _text(left + step * place, height - bottom + 18, str(place + 1), "middle")
        for place in range(0, longest, max(1, longest // 10))
    ]
    for layer, values in lines:
        top = values[0] or 1.0
        dots = " ".join(
            f"{left + step * place:.1f},{_height(value / top, height, bottom):.1f}"
            for place, value in enumerate(values)
        )
        parts.append(
            f'<polyline points="{dots}" fill="none" stroke="var(--accent)" stroke-opacity="0.45" stroke-width="1.4">'
            f"<title>{escape(layer)}</title></polyline>"
        )
    return "".join([*parts, "</svg>"])


def _height(share: float, height: int, bottom: int) -> float:
    return 12 + (1 - share) * (height - bottom - 12)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
