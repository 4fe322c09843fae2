"""Data sets with gold labels and, where models labelled them, theirs: for the benchmarks of distillation."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from common import shared

from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import DataReport, Row, Task

BABE = ("gpt_4", "zephyr", "flan_t5_xl", "llama_7b")


@dataclass(frozen=True)
class Labelled:
    """Rows of one set.

    Attributes:
        train, test: rows with ``text`` and ``label``.
        teachers: name to row id to the label that a model gave; empty where none did.
    """

    name: str
    train: list[Row]
    test: list[Row]
    teachers: dict[str, dict[str, str]]

    @property
    def definition(self) -> TaskDefinition:
        """The task without its rows."""
        labels = tuple(sorted({str(row.fields["label"]) for row in (*self.train, *self.test)}))
        return text_task(self.name, labels)

    def task(self, train: list[Row], test: list[Row]) -> Task:
        """Return a task with these rows, and none to choose by."""
        splits = {"train": tuple(train), "validation": (), "test": tuple(test)}
        return Task(self.definition, splits, "0" * 64, DataReport())


def text_task(name: str, labels: tuple[str, ...]) -> TaskDefinition:
    """Return the definition of a classification of texts."""
    wording = Wording("default", "{{ text }}\nLabel:", "{{ label }}", {})
    return TaskDefinition(
        name, "classification", (wording,), "{{ text }}", ("{{ label }}",), labels, ("accuracy", "macro_f1")
    )


def read(name: str, split: str) -> list[dict]:
    """Return the rows of a split, plain or compressed."""
    path = shared(name) / f"{split}.jsonl"
    if path.exists():
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with gzip.open(f"{path}.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class KeptFits:
    """The fits of a benchmark that goes on where it was stopped: one JSON object a line.

    Args:
        path: of the file.
        key: names of the fields that tell fits apart.
        quick: read and write nothing; fits are held in memory.
    """

    def __init__(self, path: Path, key: tuple[str, ...], *, quick: bool) -> None:
        self.path, self.key, self.quick = path, key, quick
        self.held: list[dict] = []

    def all(self) -> list[dict]:
        """Return what was fitted before, each once."""
        if self.quick:
            return self.held
        records = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return list({tuple(one[name] for name in self.key): one for one in records}.values())

    def add(self, record: dict) -> None:
        """Add one fit."""
        if self.quick:
            self.held.append(record)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def label(value: object) -> str:
    """Return a label as text: 1 and 1.0 are the same."""
    return str(int(value)) if isinstance(value, int | float) else str(value)


def babe() -> Labelled:
    """Return media bias with the labels of four language models."""
    records = {split: read("llm_annotations_babe", split) for split in ("train", "test")}
    said = {
        teacher: {
            f"train/{n}": label(record["llm_labels"]["zero-shot"][teacher])
            for n, record in enumerate(records["train"])
            if record["llm_labels"]["zero-shot"].get(teacher) is not None
        }
        for teacher in BABE
    }
    return Labelled("llm_annotations_babe", _rows(records["train"], "train"), _rows(records["test"], "test"), said)


def global_warming() -> Labelled:
    """Return stances on global warming with GPT's labels; every fourth row is for testing."""
    records = [
        record
        for record in read("llm_annotations_global_warming", "train")
        if record["gold_label"] is not None and record["gpt_label"] is not None
    ]
    rows = _rows([record | {"label": record["gold_label"]} for record in records], "all")
    said = {row.id: label(record["gpt_label"]) for row, record in zip(rows, records, strict=True)}
    train, test = [row for n, row in enumerate(rows) if n % 4], rows[::4]
    return Labelled("llm_annotations_global_warming", train, test, {"gpt": said})


def plain(name: str, text: str = "text") -> Labelled:
    """Return a set without labels of models."""
    records = {split: read(name, split) for split in ("train", "test")}
    rows = {split: _rows(found, split, text) for split, found in records.items()}
    return Labelled(name, rows["train"], rows["test"], {})


def _rows(records: list[dict], split: str, text: str = "text") -> list[Row]:
    return [
        Row(f"{split}/{n}", {"text": record[text], "label": label(record["label"])}) for n, record in enumerate(records)
    ]
