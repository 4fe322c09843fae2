"""How commands speak: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

__all__ = ["is_terminal", "print_data", "print_json", "print_table", "say"]


def is_terminal() -> bool:
    """Tell whether standard error is a terminal (a bar with time left) or not (plain lines)."""
    return sys.stderr.isatty()


def say(line: str) -> None:
    """Write one line about what is going on to standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def print_data(text: str) -> None:
    """Write data to standard output."""
    print(text, flush=True)  # noqa: T201


def print_json(value: object) -> None:
    """Write one JSON document to standard output; NaN is refused, as JSON has none."""
    print_data(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Mapping[str, bool] | None = None) -> None:
    """Write a table to standard output, as wide as its content, so that a pipe never loses a column.

    Args:
        columns: headings.
        rows: one text per column each.
        right: columns whose text is set flush right (numbers).
    """
    flush_right = right or {}
    widths = [
        max(len(heading), *(len(row[i]) for row in rows)) if rows else len(heading) for i, heading in enumerate(columns)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if flush_right.get(heading) else cell.ljust(width)
            for cell, width, heading in zip(cells, widths, columns, strict=True)
        ]
        return "  ".join(padded).rstrip()

    print_data(line(columns))
    print_data("  ".join("─" * width for width in widths))
    for row in rows:
        print_data(line(row))
