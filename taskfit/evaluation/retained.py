"""What a model should still be able to do after it was tuned: the texts and tasks that forgetting is measured on."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["MOST_UNITS", "Retained", "RetainedAnswers", "RetainedTask", "RetainedText", "read_retained", "suite"]

MOST_UNITS = 200
"""Documents or rows of each part that are looked at; of more, a sample that is always the same."""

_SUITE = "retained_suite.jsonl"
_TEXT_ENDINGS = (".txt", ".md")
_PIECE = 500  # characters that paragraphs of a plain file are joined to
_LARGEST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class RetainedText:
    """Plain texts, whose loss is looked at.

    Attributes:
        name: as reports write it.
        texts: at least two, none empty.
        fingerprint: SHA-256 of the texts.
        note: what a reader must know, or "".
    """

    name: str
    texts: tuple[str, ...]
    fingerprint: str
    note: str = ""


@dataclass(frozen=True)
class RetainedAnswers:
    """Questions with one answer each, whose loss after the question is looked at; otherwise as a text."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    fingerprint: str
    note: str = ""


@dataclass(frozen=True)
class RetainedTask:
    """Rows of another task, answered zero-shot; otherwise as a text.

    Attributes:
        definition: of the task; its first metric is looked at.
        rows: at least two, with answers.
    """

    name: str
    definition: TaskDefinition
    rows: tuple[Row, ...]
    fingerprint: str
    note: str = ""


Retained = RetainedText | RetainedAnswers | RetainedTask


@lru_cache(maxsize=1)
def suite() -> tuple[Retained, ...]:
    """Return the suite that ships with the package: short prose, and questions with short answers.

    All of it was written for this project, so no model has been trained on it and anybody may pass it on. It is
    English and small: enough to see a model fall apart, too little to see a fact forgotten.
    """
    content = files("taskfit.evaluation").joinpath(_SUITE).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in content.splitlines()]
    texts = tuple(row["text"] for row in rows if row["part"] == "text")
    pairs = tuple((row["question"], row["answer"]) for row in rows if row["part"] == "answers")
    return RetainedText("text", texts, _digest(texts)), RetainedAnswers("answers", pairs, _digest(pairs))


def read_retained(names: Sequence[str | Path]) -> tuple[Retained, ...]:
    """Return what the user named, in order; nothing named: the shipped suite.

    A part is called as its task or file is; where two would be called alike, by its path.

    Args:
        names: task files (``.yaml``), whose test rows are asked; plain texts (``.txt``, ``.md``), cut into pieces of
            whole paragraphs; files of rows with a field ``text``; ``suite`` for the shipped one.

    Raises:
        ConfigError: a name twice. DataError: a file is missing, of another form, or holds fewer than two documents.
        TaskError: a task file is wrong.
    """
    if len(set(map(str, names))) < len(names):
        raise ConfigError(f"every retained file is named once (got {', '.join(map(str, names))})")
    found: list[tuple[str | Path, Retained]] = []
    for name in names or ("suite",):
        found.extend((name, part) for part in (suite() if str(name) == "suite" else [_read(Path(name))]))
    often = Counter(part.name for _, part in found)
    return tuple(
        part if often[part.name] == 1 or str(name) == "suite" else replace(part, name=Path(name).as_posix())
        for name, part in found
    )


def _read(path: Path) -> Retained:
    if not path.is_file():
        raise DataError(
            f"retained file {path} is missing", "name a task file, a text (.txt, .md), rows with `text`, or `suite`"
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        return _task(path)
    texts = _paragraphs(path) if path.suffix.lower() in _TEXT_ENDINGS else _fields(path)
    if len(texts) < 2:
        raise DataError(
            f"{path}: at least 2 documents are needed to say how sure a change is (got {len(texts)})",
            "a blank line ends a paragraph; give a longer text, or rows with a field `text`",
        )
    kept, note = _sampled(texts, "documents")
    return RetainedText(_name(path), kept, _digest(kept), note)


def _name(path: Path) -> str:
    """The file's name; a task file that is called so is told by its folder."""
    return path.parent.name or path.stem if path.stem == "task" else path.stem


def _task(path: Path) -> RetainedTask:
    from taskfit.tasks import load_task

    task = load_task(path)
    rows = task.test or task.validation
    if len(rows) < 2:
        raise DataError(f"{path}: at least 2 test rows are needed to say how sure a change is (got {len(rows)})")
    from taskfit.tasks import take_rows

    note = ""
    if len(rows) > MOST_UNITS:
        note = f"a sample of {MOST_UNITS} of {len(rows)} rows"
        rows = take_rows(task.definition, rows, MOST_UNITS, 0, of="retained")
    digest = _digest([task.fingerprint, *(row.id for row in rows)])
    return RetainedTask(task.definition.name, task.definition, rows, digest, note)


def _paragraphs(path: Path) -> list[str]:
    """Cut a plain file at blank lines and join paragraphs until a piece is long enough."""
    if path.stat().st_size > _LARGEST_BYTES:
        raise DataError(f"{path} is larger than {_LARGEST_BYTES // 2**20} MB; a sample of it is enough")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    pieces, current = list[str](), ""
    for paragraph in filter(None, map(str.strip, re.split(r"\n\s*\n", content))):
        current = f"{current}\n\n{paragraph}" if current else paragraph
        if len(current) >= _PIECE:
            pieces.append(current)
            current = ""
    return [*pieces, current] if current else pieces


def _fields(path: Path) -> list[str]:
    from taskfit.tasks.reading import read_file

    texts = []
    for row in read_file(path):
        text = row.fields.get("text")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{row.place}: a retained document needs a field `text` that is not empty")
        texts.append(text)
    return texts


def _sampled(texts: Sequence[str], what: str) -> tuple[tuple[str, ...], str]:
    if len(texts) <= MOST_UNITS:
        return tuple(texts), ""
    places = sorted(Random(0).sample(range(len(texts)), MOST_UNITS))
    return tuple(texts[place] for place in places), f"a sample of {MOST_UNITS} of {len(texts)} {what}"


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()
