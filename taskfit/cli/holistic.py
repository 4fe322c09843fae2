"""``taskfit evaluate --holistic``: seven sides of a predictor, as a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.cli.output import print_data, print_json, print_table, say

if TYPE_CHECKING:
    from taskfit.evaluation.sides import Figure, Side
    from taskfit.studies.holistic import HolisticView
    from taskfit.tasks.task import Split

__all__ = ["print_holistic"]

_COLUMNS = ("side", "figure", "value", "95 % interval", "rows")
_RIGHT = {"value": True, "95 % interval": True, "rows": True}


def print_holistic(
    predictor: Path,
    on: Path | None,
    *,
    split: Split | None,
    rows: int | None,
    group_by: str | None,
    word_lists: Path | None,
    bias: Sequence[str] | None,
    is_saved: bool,
    as_json: bool,
) -> None:
    """Look at a predictor from seven sides and print them: the headlines first, then what stands behind each."""
    from taskfit.studies.holistic import holistic
    from taskfit.studies.holistic_file import save_holistic

    view = holistic(
        predictor, on, split=split, rows=rows, group_by=group_by, word_lists=word_lists, bias=bias or (), say=say
    )
    if is_saved:
        save_holistic(view)
        say(f"stored in {predictor}; the report of its study shows it")
    if as_json:
        print_json(view.to_json())
    else:
        _print(view)


def _print(view: HolisticView) -> None:
    from taskfit.studies.words import count

    print_table(_COLUMNS, [_headline(side) for side in view.sides], right=_RIGHT)
    print_data("")
    print_data(f"{view.strategy} on {count(view.rows, f'{view.split} row')} of {view.task}.")
    for side in view.sides:
        if side.figures:
            print_data("")
            print_table((side.name, *_COLUMNS[2:]), [_cells(figure) for figure in side.figures], right=_RIGHT)
    for side in view.sides:
        said = [f"{figure.name}: {figure.note}" for figure in _all(side) if figure.note]
        for note in (*said, *side.notes):
            say(f"{side.name}: {note}")
    for note in view.notes:
        say(f"note: {note}")


def _all(side: Side) -> tuple[Figure, ...]:
    return side.figures if side.headline is None else (side.headline, *side.figures)


def _headline(side: Side) -> tuple[str, ...]:
    if side.headline is None:
        return (side.name, f"not measured: {side.reason}", "", "", "")
    return (side.name, *_cells(side.headline))


def _cells(figure: Figure) -> tuple[str, ...]:
    interval = "" if figure.low is None or figure.high is None else f"{_number(figure.low)} to {_number(figure.high)}"
    return (figure.name, _number(figure.value), interval, f"{figure.rows:,}")


def _number(value: float) -> str:
    """Write three decimals, or three digits where the number is large or very small."""
    if value == 0 or 0.001 <= abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
