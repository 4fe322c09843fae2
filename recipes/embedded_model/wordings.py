"""Other people's wordings over open data sets: promptsource's Jinja templates and FLAN's, filled with rows.

Sources: Bach et al. 2022 (promptsource); Wei et al. 2022 (FLAN). Both collections are Apache-2.0.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from held_out import is_held_out
from places import Places

from taskfit.errors import TaskError
from taskfit.tasks.promptsource import split_template
from taskfit.tasks.template import render

__all__ = ["Worded", "worded_rows"]

CHOICES = "|||"
LONGEST_PROMPT = 2000
"""Characters; a longer row is left out, as it would not fit into the context with its answer."""


@dataclass(frozen=True)
class Worded:
    """A row in somebody's wording.

    Attributes:
        data_set: where the row is from.
        licence: its terms.
        collection: whose wording it is.
        prompt, answer: the two turns.
    """

    data_set: str
    licence: str
    collection: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class _Source:
    """An open data set, and its rows as the two collections name their fields."""

    licence: str
    promptsource: tuple[str, str | None]
    flan: str | None
    fields: Callable[[dict[str, Any]], dict[str, Any]]
    slots: Callable[[dict[str, Any]], dict[str, str]]


def _boolq(row: dict[str, Any]) -> dict[str, Any]:
    return {"passage": row["passage"], "question": row["question"], "label": int(bool(row["label"]))}


def _mnli(row: dict[str, Any]) -> dict[str, Any]:
    names = ("entailment", "neutral", "contradiction")
    return {"premise": row["premise"], "hypothesis": row["hypothesis"], "label": names.index(row["label"])}


def _commonsense(row: dict[str, Any]) -> dict[str, Any]:
    asked = row["question"]
    texts, labels = ([choice[key] for choice in asked["choices"]] for key in ("text", "label"))
    concept = asked.get("question_concept", "")
    own = {"question": asked["stem"], "choices": {"text": texts, "label": labels}, "question_concept": concept}
    return {**own, "answerKey": row["answerKey"]}


def _listed(options: list[str], answer: str) -> dict[str, str]:
    return {"options_": "OPTIONS:\n" + "\n".join(f"- {option}" for option in options), "answer": answer}


def _boolq_slots(row: dict[str, Any]) -> dict[str, str]:
    answer = "yes" if row["label"] else "no"
    return {"text": row["passage"], "title": "", "question": row["question"], **_listed(["no", "yes"], answer)}


def _mnli_slots(row: dict[str, Any]) -> dict[str, str]:
    spoken = {"entailment": "yes", "neutral": "it is not possible to tell", "contradiction": "no"}
    listed = _listed(list(spoken.values()), spoken[row["label"]])
    return {"premise": row["premise"], "hypothesis": row["hypothesis"], **listed}


SOURCES = {
    "boolq": _Source("CC BY-SA 3.0", ("super_glue", "boolq"), "bool_q", _boolq, _boolq_slots),
    "mnli": _Source("OANC and other open terms per genre", ("glue", "mnli"), "mnli", _mnli, _mnli_slots),
    "commonsense_qa": _Source("MIT", ("commonsense_qa", None), None, _commonsense, lambda row: {}),
}


def worded_rows(places: Places, per_set: int, seed: int = 0) -> Iterator[Worded]:
    """Yield up to ``per_set`` rows of each open data set, each in one wording drawn from both collections.

    A wording that does not fit a row (a template that says so, or asks for a field that is not there) is passed over.

    Raises:
        DataError: a data set is missing.
    """
    jinja = list(places.rows("promptsource_templates", "templates"))
    flan = list(places.rows("flan_templates", "templates"))
    for name, source in SOURCES.items():
        if is_held_out(name):
            continue
        rng = random.Random(f"{seed}/{name}")
        own = [one for one in jinja if (one["dataset"], one["subset"]) == source.promptsource]
        ways: list[tuple[str, dict[str, Any]]] = [("promptsource_templates", one) for one in own]
        ways += [("flan_templates", one) for one in flan if one["dataset"] == source.flan]
        if not ways:
            continue
        rows = list(places.rows(name, "train"))
        for row in rng.sample(rows, min(per_set, len(rows))):
            collection, way = rng.choice(ways)
            filled = _by_jinja(way, source.fields(row)) if "jinja" in way else _by_slots(way, source.slots(row))
            if filled and all(filled) and len(filled[0]) <= LONGEST_PROMPT:
                yield Worded(name, source.licence, collection, *filled)


def _by_jinja(way: dict[str, Any], row: dict[str, Any]) -> tuple[str, str] | None:
    try:
        choices = way["answer_choices"]
        listed = [one.strip() for one in render(choices, row).split(CHOICES)] if choices else []
        prompt, answer = (render(half, {**row, "answer_choices": listed}) for half in split_template(way["jinja"]))
    except TaskError:
        return None
    return prompt.strip(), answer.strip()


def _by_slots(way: dict[str, Any], slots: dict[str, str]) -> tuple[str, str] | None:
    try:
        return way["input"].format(**slots).strip(), way["target"].format(**slots).strip()
    except (KeyError, IndexError):
        return None
