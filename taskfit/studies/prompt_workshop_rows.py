"""Which answers a wording mixes up, and on which rows it does clearly better or worse than the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from taskfit.strategy.predictor import example_text
from taskfit.studies.report_view import Said, cut_text

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.strategy.contract import Prediction
    from taskfit.studies.prompt_workshop_runs import WordingRun
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = [
    "Favourite",
    "MixUp",
    "OddRow",
    "OddRows",
    "answers_given",
    "favourite",
    "mix_ups",
    "odd_rows",
    "prompt_shown",
    "row_values",
]

FloatArray = NDArray[np.float64]

_MOST_MIX_UPS = 5
_MOST_ODD_ROWS = 6
_MOST_TEXT = 400
_MOST_ANSWER = 160
_MOST_PROMPT = 4000
_CLEARLY = {"classification": 0.5, "choice": 0.5, "generation": 0.2}
"""By how much one wording must beat another on a row to be shown: for labels, in half of its draws or more."""


@dataclass(frozen=True)
class MixUp:
    """How often one answer was given where another was right, over all draws."""

    said: str
    right: str
    count: int


@dataclass(frozen=True)
class Favourite:
    """The answer given most often: how often it was given, and how often it was the right one to give."""

    answer: str
    said: int
    right: int


@dataclass(frozen=True)
class OddRow:
    """A row on which a wording does clearly better or worse than the others.

    Attributes:
        text: the row's input, cut.
        gold: the right answers, cut.
        said: what this wording answered (its first draw), then what the others did.
        gap: this one's value on the row minus the best of the others', means over draws.
        prompt: what this wording asked, in readable form.
    """

    row_id: str
    text: str
    gold: str
    said: tuple[Said, ...]
    gap: float
    prompt: str


@dataclass(frozen=True)
class OddRows:
    """The rows one wording loses against the best of the others, and those it wins against all of them.

    Attributes:
        lost, won: the clearest few of each.
        lost_count, won_count: how many there are in all.
    """

    lost: tuple[OddRow, ...] = ()
    won: tuple[OddRow, ...] = ()
    lost_count: int = 0
    won_count: int = 0


def row_values(metric: str, runs: Sequence[Outcomes]) -> FloatArray:
    """Return each row's value, mean over draws, in the order of row ids: the metric's, or 1 for right.

    A metric that has no value per row (macro F1) gives way to right or wrong.
    """
    from taskfit.evaluation.metrics import METRICS, per_row

    name = metric if METRICS[metric].is_per_row else "accuracy"
    mean: FloatArray = np.mean([per_row(name, run) for run in runs], axis=0)
    return mean


def answers_given(
    definition: TaskDefinition, rows: Sequence[Row], group: Sequence[WordingRun]
) -> list[tuple[str, str]]:
    """Return (given, right) of every answer of every draw: labels, or places of options; nothing for generated text."""
    if definition.kind == "generation":
        return []
    pairs = [(row, prediction) for run in group for row, prediction in zip(rows, run.predictions, strict=True)]
    return [_as_labels(definition, row, prediction) for row, prediction in pairs]


def mix_ups(given: Sequence[tuple[str, str]]) -> tuple[MixUp, ...]:
    """Return the most frequent wrong answers, from pairs of given and right."""
    wrong = Counter((said, right) for said, right in given if said != right)
    ordered = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return tuple(MixUp(said, right, count) for (said, right), count in ordered[:_MOST_MIX_UPS])


def favourite(given: Sequence[tuple[str, str]]) -> Favourite | None:
    """Return the most frequent answer, from pairs of given and right; None where there are none."""
    if not given:
        return None
    counts = Counter(said for said, _ in given)
    answer = min(counts, key=lambda said: (-counts[said], said))
    return Favourite(answer, counts[answer], sum(right == answer for _, right in given))


def odd_rows(
    name: str,
    groups: Mapping[str, Sequence[WordingRun]],
    values: Mapping[str, FloatArray],
    rows: Sequence[Row],
    definition: TaskDefinition,
) -> OddRows:
    """Return the rows that the variant of that name clearly loses, and those that it alone wins.

    Args:
        name: of the variant.
        groups: the runs of all variants.
        values: their values a row, in the order of row ids, see :func:`row_values`.
        rows: what was predicted, in the order of the runs' predictions.
        definition: of the task.
    """
    others = [other for other in groups if other != name]
    if not others:
        return OddRows()
    order = sorted(range(len(rows)), key=lambda place: rows[place].id)
    gaps = np.empty(len(rows))
    gaps[order] = values[name] - np.max([values[other] for other in others], axis=0)
    clearly = _CLEARLY[definition.kind]
    lost = [place for place in np.argsort(gaps, kind="stable") if gaps[place] <= -clearly]
    won = [place for place in np.argsort(-gaps, kind="stable") if gaps[place] >= clearly]

    def shown(places: Sequence[int]) -> tuple[OddRow, ...]:
        return tuple(
            _odd_row(rows[place], float(gaps[place]), place, [name, *others], groups, definition)
            for place in places[:_MOST_ODD_ROWS]
        )

    return OddRows(shown(lost), shown(won), len(lost), len(won))


def prompt_shown(run: WordingRun, definition: TaskDefinition, row: Row) -> str:
    """Return the prompt of a row for people to read, cut where it is very long."""
    text = example_text(definition, run.predictor.prepared, row)
    return text if len(text) <= _MOST_PROMPT else f"{text[:_MOST_PROMPT]}…"


def _odd_row(
    row: Row,
    gap: float,
    place: int,
    names: Sequence[str],
    groups: Mapping[str, Sequence[WordingRun]],
    definition: TaskDefinition,
) -> OddRow:
    said = tuple(_said(name, groups[name][0].predictions[place], row, definition) for name in names)
    text = cut_text(definition.input_text(row), _MOST_TEXT)
    gold = cut_text(" | ".join(definition.gold(row)), _MOST_ANSWER)
    return OddRow(row.id, text, gold, said, gap, prompt_shown(groups[names[0]][0], definition, row))


def _said(name: str, prediction: Prediction, row: Row, definition: TaskDefinition) -> Said:
    unread = f"(none, from: {prediction.raw})" if prediction.raw else "(none)"
    answer = prediction.answer if prediction.is_parsed else unread
    is_right = None
    if definition.kind != "generation":
        is_right = prediction.is_parsed and answer in definition.gold(row)
    return Said(name, cut_text(answer, _MOST_ANSWER), is_right)


def _as_labels(definition: TaskDefinition, row: Row, prediction: Prediction) -> tuple[str, str]:
    golds = definition.gold(row)
    right = prediction.answer if prediction.is_parsed and prediction.answer in golds else golds[0]
    said = prediction.answer if prediction.is_parsed else "(none)"
    if definition.kind == "classification":
        return said, right
    places = {option.value: f"option {number}" for number, option in enumerate(definition.options(row), start=1)}
    return places.get(said, "(none)"), places.get(right, "(none)")
