"""A first task file from a look at the data: a guess, with its reasons written beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import DataError, TaskError, TaskfitError
from taskfit.files import write_text
from taskfit.tasks.metric_names import DEFAULT_METRICS
from taskfit.tasks.options import options_from
from taskfit.tasks.reading import FORMATS, read_file
from taskfit.tasks.sources import HUB_SPLITS
from taskfit.tasks.task import Kind
from taskfit.tasks.template import field_source

if TYPE_CHECKING:
    from taskfit.tasks.task import Split, Value

__all__ = ["Guess", "guess_task", "init_task"]

SAMPLE_ROWS = 5_000
"""Rows that are looked at."""
MAX_GUESSED_LABELS = 200

_ID_NAMES = ("id", "row_id", "uid", "guid", "uuid", "example_id", "idx")
_LABEL_NAMES = (
    "label",
    "labels",
    "category",
    "class",
    "intent",
    "sentiment",
    "emotion",
    "topic",
    "target",
    "gold",
    "type",
)
_ANSWER_NAMES = ("answer", "answerkey", "target", "output", "response", "completion", "summary", "translation", "label")
_TEXT_NAMES = ("text", "sentence", "input", "message", "question", "dialogue", "document", "article", "review", "query")
_PAIRS = (("premise", "hypothesis"), ("passage", "question"), ("context", "question"), ("sentence1", "sentence2"))


@dataclass(frozen=True)
class Guess:
    """What the data seem to be.

    Attributes:
        input: fields of the input, in the order of the prompt.
        target: field of the answer.
        options: field of a row's options, for kind ``choice``.
        id_field: field that holds the id, unless it is called ``id``.
        labels: label values seen, for kind ``classification``.
        reasons: one sentence for each decision.
    """

    kind: Kind
    input: tuple[str, ...]
    target: str
    options: str | None
    id_field: str | None
    labels: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class _Column:
    """One field over the sample."""

    name: str
    values: tuple[Value, ...]

    @property
    def is_text(self) -> bool:
        return all(isinstance(value, str) for value in self.values)

    @property
    def is_scalar(self) -> bool:
        return all(isinstance(value, str | int) for value in self.values)

    @property
    def distinct(self) -> int:
        return len({str(value) for value in self.values})

    @property
    def mean_length(self) -> float:
        return sum(len(str(value)) for value in self.values) / max(1, len(self.values))


def init_task(data_path: str | Path, out_path: str | Path | None = None) -> str:
    """Return the text of a commented task file for the rows at ``data_path``, and write it where ``out_path`` is given.

    Args:
        data_path: a file of rows, or a folder with files called train, validation (or valid, dev) and test. A file with
            such a name brings its neighbours along.
        out_path: the task file to write; paths in it are relative to its folder. None: nothing is written, paths are
            relative to the folder of the data.

    Raises:
        TaskError: ``out_path`` exists already. DataError: the rows cannot be read, or have no field with text.
    """
    target = None if out_path is None else Path(out_path)
    if target is not None and target.exists():
        raise TaskError(f"{target}: exists already, and is never overwritten", "Name another file, or remove this one.")
    files = _split_files(Path(data_path))
    rows = [raw.fields for raw in islice(read_file(files.get("train") or next(iter(files.values()))), SAMPLE_ROWS)]
    folder = target.parent if target is not None else next(iter(files.values())).parent
    text = _task_text(guess_task(rows, str(data_path)), _task_name(Path(data_path)), _data_lines(files, folder))
    if target is not None:
        write_text(target, text)
    return text


def guess_task(rows: Sequence[Mapping[str, Value]], where: str = "the data") -> Guess:
    """Guess kind and fields from a sample of rows.

    A field of lists with a field that names one of each is a choice; a field of few different short values beside a
    text is a classification; anything else with two fields of text is a generation.

    Raises:
        DataError: there are no rows, or no two fields that could be input and answer.
    """
    if not rows:
        raise DataError(f"{where}: no rows")
    names = [name for name in rows[0] if all(row.get(name) is not None for row in rows)]
    columns = [_Column(name, tuple(row[name] for row in rows)) for name in names]
    id_field = _id_field(columns)
    columns = [column for column in columns if column.name != id_field]
    found = _choice(columns, rows) or _classification(columns) or _generation(columns)
    if found is None:
        raise DataError(
            f"{where}: no field of text with an answer beside it; fields in every row: {', '.join(names) or 'none'}",
            "Write the task file by hand: `kind`, `data`, `input`, `target`.",
        )
    kind, inputs, target, options, reasons = found
    labels = sorted({str(row[target]) for row in rows}) if kind == "classification" else []
    if id_field is not None:
        reasons["id"] = f"`{id_field}` has another value in every row that was looked at"
    return Guess(kind, inputs, target, options, None if id_field == "id" else id_field, tuple(labels), reasons)


_Found = tuple[Kind, tuple[str, ...], str, str | None, dict[str, str]]


def _choice(columns: Sequence[_Column], rows: Sequence[Mapping[str, Value]]) -> _Found | None:
    for options in columns:
        if not all(isinstance(value, list | dict) for value in options.values):
            continue
        for answer in _by_name(columns, _ANSWER_NAMES):
            if answer is not options and answer.is_scalar and _answers(options, answer, rows):
                others = [column for column in columns if column not in (options, answer)]
                inputs = _input_fields(others)
                if inputs:
                    reasons = {
                        "kind": f"`{options.name}` holds lists, and `{answer.name}` names one of each",
                        "input": _input_reason(inputs),
                        "target": f"its values are among the options of `{options.name}`",
                    }
                    return "choice", inputs, answer.name, options.name, reasons
    return None


def _answers(options: _Column, answer: _Column, rows: Sequence[Mapping[str, Value]]) -> bool:
    try:
        listed = [options_from(value) for value in options.values]
    except TaskfitError:
        return False
    named = [{option.value for option in found} | {option.text for option in found} for found in listed]
    return all(str(row[answer.name]).strip() in texts for row, texts in zip(rows, named, strict=True))


def _classification(columns: Sequence[_Column]) -> _Found | None:
    for label in _by_name(columns, _LABEL_NAMES):
        is_named = label.name.lower() in _LABEL_NAMES
        most = min(MAX_GUESSED_LABELS, len(label.values) // (2 if is_named else 5))
        if not label.is_scalar or not 2 <= label.distinct <= most or label.mean_length > 50:
            continue
        inputs = _input_fields(
            [column for column in columns if column is not label and column.distinct > label.distinct]
        )
        if inputs:
            reasons = {
                "kind": f"`{label.name}` has {label.distinct} different values in {len(label.values)} rows",
                "input": _input_reason(inputs),
                "target": "few different short values" + (", and its name" if is_named else ""),
            }
            return "classification", inputs, label.name, None, reasons
    return None


def _generation(columns: Sequence[_Column]) -> _Found | None:
    texts = [column for column in columns if column.is_scalar]
    named = [column for column in texts if column.name.lower() in _ANSWER_NAMES]
    if len(texts) < 2:
        return None
    answer = named[0] if named else texts[-1]
    inputs = _input_fields([column for column in texts if column is not answer]) or _input_fields(texts[:1])
    if not inputs or answer.name in inputs:
        return None
    reasons = {
        "kind": f"`{answer.name}` has {answer.distinct} values in {len(answer.values)} rows, no set of labels",
        "input": _input_reason(inputs),
        "target": "its name" if named else "the last field with text",
    }
    return "generation", inputs, answer.name, None, reasons


def _by_name(columns: Sequence[_Column], names: Sequence[str]) -> list[_Column]:
    """Return the columns with a known name first, in the order of ``names``, then the others from the last one."""
    known = [column for name in names for column in columns if column.name.lower() == name]
    return known + [column for column in reversed(columns) if column not in known]


def _input_fields(columns: Sequence[_Column]) -> tuple[str, ...]:
    """Return a known pair of fields, else the field of text with a known name, else the longest."""
    texts = {column.name.lower(): column for column in columns if column.is_text}
    for pair in _PAIRS:
        if all(name in texts for name in pair):
            return tuple(texts[name].name for name in pair)
    named = next((texts[name] for name in _TEXT_NAMES if name in texts), None)
    longest = max(texts.values(), key=lambda column: column.mean_length, default=None)
    chosen = named or longest
    return (chosen.name,) if chosen else ()


def _input_reason(inputs: Sequence[str]) -> str:
    if len(inputs) > 1:
        return "fields that usually belong together"
    return "its name" if inputs[0].lower() in _TEXT_NAMES else "the field with the longest text"


def _id_field(columns: Sequence[_Column]) -> str | None:
    for column in _by_name(columns, _ID_NAMES)[: len(columns)]:
        if column.name.lower() in _ID_NAMES and column.is_scalar and column.distinct == len(column.values):
            return column.name
    return None


def _split_files(path: Path) -> dict[Split | str, Path]:
    """Return the files by split; a file that is called like no split stands under ``all``."""
    if not path.exists():
        return {"all": path}  # reading says that it is missing
    if path.is_file() and _split_name(path) is None:
        return {"all": path}
    folder = path if path.is_dir() else path.parent
    ending = None if path.is_dir() else path.name.split(".", 1)[-1].split(".")[0]
    found: dict[Split | str, Path] = {}
    for entry in sorted(folder.iterdir()):
        split = _split_name(entry)
        if split is not None and (ending is None or ending in entry.suffixes or f".{ending}" in entry.suffixes):
            found.setdefault(split, entry)
    if path.is_file():
        found[_split_name(path) or "all"] = path
    if "train" in found:
        return {split: found[split] for split in ("train", "validation", "test") if split in found}
    if path.is_file():
        return {"all": path}
    raise DataError(f"{path}: a folder needs a file called train, such as train.jsonl", "Or name the file of all rows.")


def _task_name(path: Path) -> str:
    """Name the task after the file, or after its folder where the file is called like a split."""
    name = path.name if _split_name(path) is None else path.resolve().parent.name
    return name.split(".")[0] or "task"


def _split_name(path: Path) -> Split | None:
    is_rows = path.is_file() and any(suffix.lower() in FORMATS for suffix in path.suffixes)
    return HUB_SPLITS.get(path.name.split(".")[0].lower()) if is_rows else None


def _data_lines(files: Mapping[Split | str, Path], folder: Path) -> list[str]:
    shown = {split: _quoted(os.path.relpath(path, folder).replace(os.sep, "/")) for split, path in files.items()}
    if "all" in shown:
        return [
            f"data: {shown['all']}",
            "# One file for all: validation (10 % of rows) and test (20 %) are cut from it, the same way every time.",
            "# split: {validation: 0.1, test: 0.2, seed: 0}",
        ]
    lines = ["data:", *(f"  {split}: {name}" for split, name in shown.items())]
    missing = [split for split in ("validation", "test") if split not in shown]
    return lines + (
        [f"# Missing splits ({', '.join(missing)}) are cut from train, the same way every time."] if missing else []
    )


def _task_text(guess: Guess, name: str, data_lines: Sequence[str]) -> str:
    source = guess.input[0] if len(guess.input) == 1 else "\n".join(field_source(field) for field in guess.input)
    reasons = {key: " ".join(reason.split()) for key, reason in guess.reasons.items()}  # a line break ends a comment
    lines = [
        "# A task file for taskfit, guessed from the data. Read it through: the reasons stand beside each guess.",
        f"name: {_quoted(name)}",
        "",
        f"# classification, choice or generation. Guessed: {reasons['kind']}.",
        f"kind: {guess.kind}",
        "",
        *data_lines,
        "",
        "# A field, or Jinja2 text that names fields.",
        f"input: {_quoted(source)}  # {reasons['input']}",
        f"target: {_quoted(guess.target)}  # {reasons['target']}",
    ]
    if guess.options:
        lines.append(f"options: {_quoted(guess.options)}  # what the answer is chosen from")
    if guess.id_field:
        lines.append(f"id: {_quoted(guess.id_field)}  # {reasons['id']}")
    lines += ["", "# What the model is told before the input.", "# instruction: …", ""]
    if guess.kind == "classification":
        lines += _label_lines(guess.labels)
    if guess.kind == "generation":
        lines += ["# Most tokens of an answer.", "max_answer_tokens: 64", ""]
    lines += ["# The first metric decides.", f"metrics: [{', '.join(DEFAULT_METRICS[guess.kind])}]", ""]
    return "\n".join(lines)


def _label_lines(labels: Sequence[str]) -> list[str]:
    shown = ", ".join(_quoted(label) for label in labels[:20])
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    lines = ["# Labels are read from the training rows unless they are listed. Seen:", f"#   {shown}{more}"]
    if all(label.removeprefix("-").isdecimal() for label in labels):
        texts = ", ".join(f"{_quoted(label)}: …" for label in labels[:20])
        lines += ["# Numbers say little to a language model. Give each a text:", f"# labels: {{{texts}}}"]
    return [*lines, ""]


def _quoted(text: str) -> str:
    """Return ``text`` as it can stand in YAML: bare where that is safe, else in double quotes."""
    is_bare = (
        text.replace("_", "a").replace("-", "a").replace(".", "a").replace("/", "a").isalnum() and text[0].isalpha()
    )
    return text if is_bare and text.lower() not in ("true", "false", "null") else json.dumps(text, ensure_ascii=False)
