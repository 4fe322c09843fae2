"""The holistic view of a predictor, kept in its folder, so that a study's report can show it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskfit.errors import PredictorError, StudyError
from taskfit.evaluation.sides import SIDES, Figure, Side
from taskfit.studies.folder import read_json, write_json

if TYPE_CHECKING:
    from taskfit.studies.holistic import HolisticView

__all__ = ["HOLISTIC_FILE", "read_holistic", "save_holistic"]

HOLISTIC_FILE = "holistic.json"
_FORMAT = 1


def save_holistic(view: HolisticView) -> None:
    """Write the view into its predictor's folder; an earlier one is replaced.

    Raises:
        ResourceError: the disk is full.
    """
    write_json(view.predictor / HOLISTIC_FILE, view.to_json())


def read_holistic(predictor: Path) -> tuple[str, tuple[Side, ...]]:
    """Return over what a predictor was looked at, in words, and its sides; nothing where it never was.

    Raises:
        PredictorError: the file is damaged.
    """
    path = predictor / HOLISTIC_FILE
    if not path.exists():
        return "", ()
    try:
        values: dict[str, Any] = cast("dict[str, Any]", read_json(path))
        if values["format"] != _FORMAT:
            raise ValueError(f"format {values['format']!r}")
        return f"{int(values['rows']):,} {values['split']} rows", tuple(map(_side, values["sides"]))
    except (StudyError, KeyError, TypeError, ValueError) as error:
        raise PredictorError(
            f"{path} is damaged ({error})", "write it again: taskfit evaluate PREDICTOR --on TASK --holistic --save"
        ) from error


def _side(values: dict[str, Any]) -> Side:
    if values["name"] not in SIDES:
        raise ValueError(f"unknown side {values['name']!r}")
    headline = None if values["headline"] is None else _figure(values["headline"])
    return Side(
        values["name"],
        headline,
        tuple(map(_figure, values["figures"])),
        tuple(map(str, values["notes"])),
        str(values["reason"]),
    )


def _figure(values: dict[str, Any]) -> Figure:
    low, high = (None if values[end] is None else float(values[end]) for end in ("low", "high"))
    return Figure(str(values["name"]), float(values["value"]), low, high, int(values["rows"]), str(values["note"]))
