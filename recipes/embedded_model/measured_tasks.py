"""The tasks that the finished model is measured on, as task files of the library: held-out types, held-out data sets.

Every set is brought into one form (``text``, ``label``), and its test rows are drawn once, so that all models and
strategies answer the same ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from places import Places, write_rows

from taskfit.files import write_text

__all__ = ["MEASURED", "TUNED", "Measured", "write_task"]

TRAIN_ROWS, VALIDATION_ROWS = 4000, 200


@dataclass(frozen=True)
class Measured:
    """A data set to measure on.

    Attributes:
        type: of the task; one of ``held_out.TYPES``, or empty for a held-out data set of a type that is trained on.
        train, test: splits.
        question: what is asked, in three wordings for classification.
        text: a row's input.
        label: a row's answer.
        names: label in the data to the words that a model is asked for; empty: as in the data, without underscores.
        references: for summaries: all right answers of a test row; None for labels.
    """

    type: str
    train: str
    test: str
    question: tuple[str, ...]
    text: Callable[[dict[str, Any]], str]
    label: Callable[[dict[str, Any]], str]
    names: dict[str, str]
    references: Callable[[dict[str, Any]], list[str]] | None = None


def _pair(first: str, second: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{first.capitalize()}: {row[first]}\n{second.capitalize()}: {row[second]}"


def _field(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: str(row[name])


def _copa(row: dict[str, Any]) -> str:
    return f"{row['premise']}\nWhat is the {row['question']}?\nfirst: {row['choice1']}\nsecond: {row['choice2']}"


def _wsc(row: dict[str, Any]) -> str:
    target = row["target"]
    return f'{row["text"]}\nDoes "{target["span2_text"]}" mean "{target["span1_text"]}"?'


def _wic(row: dict[str, Any]) -> str:
    return f'{row["sentence1"]}\n{row["sentence2"]}\nDoes "{row["word"]}" mean the same in both?'


_SENTIMENT = (
    "Is the sentiment of this review positive or negative?",
    "Classify the sentiment.",
    "Does the writer like it?",
)
_POLARITY = {"0": "negative", "1": "positive"}
_YES_NO = {"False": "no", "True": "yes"}
_RELATION = (
    "Does the premise entail the hypothesis?",
    "Is the hypothesis true, given the premise?",
    "Compare the two.",
)
_TOPIC = ("What is the text about?", "Classify the topic.", "Choose the subject that fits best.")
_QUESTION_TYPES = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "thing",
    "HUM": "person",
    "LOC": "place",
    "NUM": "number",
}
_KIND_OF_ANSWER = ("What does the question ask for?", "Classify the question.", "Which kind of answer is wanted?")
_INTENT = ("What does the customer want?", "Classify the intent of the message.", "Choose the intent that matches.")

MEASURED = {
    "sst2": Measured("sentiment", "train", "validation", _SENTIMENT, _field("sentence"), _field("label"), _POLARITY),
    "imdb": Measured("sentiment", "train", "test", _SENTIMENT, _field("text"), _field("label"), {}),
    "trec": Measured(
        "question type", "train", "test", _KIND_OF_ANSWER, _field("text"), _field("coarse_label"), _QUESTION_TYPES
    ),
    "copa": Measured(
        "cause and effect",
        "train",
        "validation",
        ("Choose the likelier sentence.", "Which one is right, first or second?", "Pick the more plausible one."),
        _copa,
        _field("label"),
        {"0": "first", "1": "second"},
    ),
    "wic": Measured(
        "word sense",
        "train",
        "validation",
        ("Compare the use of the word.", "Is it the same meaning?", "Answer yes or no."),
        _wic,
        _field("label"),
        _YES_NO,
    ),
    "wsc": Measured(
        "coreference",
        "fewshot_validation",  # all rows of fewshot_train have one label
        "validation",
        ("Who or what is meant?", "Answer the question about the text.", "Answer yes or no."),
        _wsc,
        _field("label"),
        _YES_NO,
    ),
    "hate_speech_offensive": Measured(
        "toxicity",
        "train",
        "test",
        ("Is the text offensive?", "Classify the tone of the message.", "How rude is this?"),
        _field("tweet"),
        _field("label"),
        {"hate_speech": "hateful", "offensive_language": "offensive", "neither": "harmless"},
    ),
    "acl_arc": Measured(
        "citation intent",
        "train",
        "test",
        ("Why is the other work cited?", "Classify the citation.", "What is the purpose of the reference?"),
        _field("text"),
        _field("label"),
        {"CompareOrContrast": "comparison"},
    ),
    "rte": Measured("", "train", "validation", _RELATION, _pair("premise", "hypothesis"), _field("label"), {}),
    "cb": Measured("", "train", "validation", _RELATION, _pair("premise", "hypothesis"), _field("label"), {}),
    "ag_news": Measured("", "train", "test", _TOPIC, _field("text"), _field("label"), {}),
    "banking77": Measured("", "train", "test", _INTENT, _field("text"), _field("category"), {}),
}
"""Data set to how it is measured. Eight types that are held out whole; four held-out sets of types trained on."""

TUNED = ("sst2", "trec", "ag_news", "banking77", "dialogsum")
"""Data sets that the model is tuned on as a base."""

DIALOGSUM = Measured(
    "",
    "train",
    "test",
    ("Summarise this conversation.",),
    _field("dialogue"),
    lambda row: str(row.get("summary") or row["summary1"]),
    {},
    lambda row: [str(row[name]) for name in ("summary1", "summary2", "summary3") if row.get(name)],
)


def write_task(places: Places, folder: Path, name: str, *, test_rows: int, lists_labels: bool, seed: int = 0) -> Path:
    """Write a task file with its rows, and return its path.

    Args:
        places: the folders.
        folder: to write into.
        name: of the data set.
        test_rows: drawn from the test split, or all where there are fewer.
        lists_labels: whether the prompt lists the labels: for asking without training, where there are few.
        seed: of the draws.

    Raises:
        DataError: the data set is missing.
    """
    measured = DIALOGSUM if name == "dialogsum" else MEASURED[name]
    rng = random.Random(f"{seed}/{name}")
    test = _drawn(rng, _rows(places, name, measured.test, measured), test_rows)
    asked = {row["text"] for row in test}
    train = [row for row in _rows(places, name, measured.train, measured) if row["text"] not in asked]
    train = _drawn(rng, iter(train), len(train) if name in TUNED else TRAIN_ROWS)
    cut = min(VALIDATION_ROWS, len(train) // 4)
    for split, rows in (("test", test), ("validation", train[:cut]), ("train", train[cut:])):
        write_rows(folder / f"{name}-{split}.jsonl", rows)
    path = folder / f"{name}.yaml"
    write_text(path, _task_file(name, measured, {row["label"] for row in [*train, *test]}, lists_labels))
    return path


def _rows(places: Places, name: str, split: str, measured: Measured) -> Iterator[dict[str, Any]]:
    for row in places.rows(name, split):
        found: dict[str, Any] = {"text": measured.text(row).strip(), "label": measured.label(row).strip()}
        if measured.references is not None:
            found["references"] = measured.references(row) or [found["label"]]
        if found["text"] and found["label"]:
            yield found


def _drawn(rng: random.Random, rows: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return some of the rows, in an order drawn once, every text once."""
    known = list({row["text"]: row for row in rows}.values())
    return rng.sample(known, min(count, len(known)))


def _task_file(name: str, measured: Measured, labels: set[str], lists_labels: bool) -> str:
    """Return the text of the task file; JSON is YAML."""
    data = {split: f"{name}-{split}.jsonl" for split in ("train", "validation", "test")}
    task: dict[str, Any] = {"version": 1, "name": name, "data": data}
    if measured.references is not None:
        listed = [f"{{{{ references[{at}] | default('') }}}}" for at in range(3)]
        task |= {"kind": "generation", "instruction": measured.question[0], "input": "{{ text }}"}
        task |= {"target": "{{ label }}", "references": listed, "metrics": ["rouge_l"], "max_answer_tokens": 60}
        return json.dumps(task, indent=1) + "\n"
    names = {label: measured.names.get(label, label.replace("_", " ")) for label in sorted(labels)}
    choices = f"\nOptions: {', '.join(names.values())}" if lists_labels else ""
    prompts = (f"{question}{choices}\n\n{{{{ text }}}}" for question in measured.question)
    wordings = [
        {"name": f"wording {at}", "prompt": prompt, "target": "{{ label }}"} for at, prompt in enumerate(prompts)
    ]
    task |= {"kind": "classification", "templates": wordings, "labels": names, "metrics": ["accuracy", "macro_f1"]}
    return json.dumps(task, indent=1) + "\n"
