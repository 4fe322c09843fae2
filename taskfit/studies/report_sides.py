"""The holistic views of a study's predictors, where ``taskfit evaluate --holistic --save`` has kept some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.studies.holistic_file import read_holistic
from taskfit.studies.result import trial_folder
from taskfit.studies.words import figure

if TYPE_CHECKING:
    from taskfit.evaluation.sides import Figure, Side
    from taskfit.studies.candidate import Candidate

__all__ = ["Sided", "sides_of"]


@dataclass(frozen=True)
class Sided:
    """A candidate seen from seven sides.

    Attributes:
        key, label: the candidate's.
        over: over which rows, and of which seed.
        sides: name of each side, its headline in words, and those behind it, one a line.
    """

    key: str
    label: str
    over: str
    sides: tuple[tuple[str, str, tuple[str, ...]], ...]


def sides_of(folder: Path, keyed: Sequence[tuple[str, Candidate]]) -> tuple[Sided, ...]:
    """Return the views that are kept; of a candidate, that of its first seed that has one.

    Raises:
        PredictorError: one is damaged.
    """
    found = []
    for key, candidate in keyed:
        for result in candidate.results:
            over, sides = read_holistic(trial_folder(folder, result.spec.id) / "predictor")
            if sides:
                told = tuple((side.name, _headline(side), _behind(side)) for side in sides)
                found.append(Sided(key, candidate.label, f"{over}, seed {result.spec.seed}", told))
                break
    return tuple(found)


def _headline(side: Side) -> str:
    return f"not measured: {side.reason}" if side.headline is None else _words(side.headline)


def _behind(side: Side) -> tuple[str, ...]:
    return (*map(_words, side.figures), *side.notes)


def _words(one: Figure) -> str:
    value = figure(one.value) if abs(one.value) < 1000 else f"{one.value:,.0f}"
    interval = "" if one.low is None or one.high is None else f" ({figure(one.low)} to {figure(one.high)})"
    note = f"; {one.note}" if one.note else ""
    return f"{one.name}: {value}{interval}{note}"
