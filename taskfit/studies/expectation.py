"""What a saved predictor is expected to answer: the file pair that makes it a regression test.

``expected.parquet`` holds the answer to every row it was evaluated on, in the form of a trial's predictions;
``expected.json`` says which rows these were (with a digest of each field), the figure they gave, and what produced it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from taskfit.errors import DataError, Faults, PredictorError, TaskfitError
from taskfit.studies.folder import read_json, write_bytes, write_json
from taskfit.studies.holistic_file import HOLISTIC_FILE
from taskfit.studies.predictions import StoredPrediction, parquet_bytes, read_predictions
from taskfit.tasks.identity import canonical_json
from taskfit.versions import changed_versions

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Split, Task, Value

__all__ = [
    "HEAD_FILE",
    "ROWS_FILE",
    "Expectation",
    "changes_since",
    "file_digests",
    "has_expectation",
    "read_expectation",
    "row_digest",
    "rows_of",
    "write_expectation",
]

FORMAT = 1
HEAD_FILE = "expected.json"
ROWS_FILE = "expected.parquet"
_DIGITS = 16
_T = TypeVar("_T")


@dataclass(frozen=True)
class Expectation:
    """What a predictor answered when it was last accepted.

    Attributes:
        metric: the one that decides.
        value, low, high: its figure with the 95 % interval.
        task: name of the task.
        task_path: its file, as it lay then; where a later check looks when it is given no other.
        split: where the rows stood.
        rows: row id to field to a digest of its value.
        answers: one a row.
        files: name of each file of the predictor's folder to its SHA-256.
        versions: of Python and the libraries that computed it.
    """

    metric: str
    value: float
    low: float
    high: float
    task: str
    task_path: str
    split: Split
    rows: Mapping[str, Mapping[str, str]]
    answers: tuple[StoredPrediction, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def has_expectation(folder: Path) -> bool:
    """Tell whether a predictor's folder holds an expectation."""
    return (folder / HEAD_FILE).is_file()


def write_expectation(folder: Path, expectation: Expectation) -> None:
    """Write the two files into an existing folder, each whole or not at all; an older pair is replaced.

    The first file names the bytes of the second, so that a pair that does not belong together is never used.

    Raises:
        ResourceError: the disk is full.
    """
    payload = parquet_bytes(expectation.answers)
    write_bytes(folder / ROWS_FILE, payload)
    head: dict[str, Value] = {
        "format": FORMAT,
        "metric": expectation.metric,
        "value": expectation.value,
        "low": expectation.low,
        "high": expectation.high,
        "task": expectation.task,
        "task_path": expectation.task_path,
        "split": expectation.split,
        "rows_fingerprint": _sha256(canonical_json(expectation.rows).encode()),
        "answers_sha256": _sha256(payload),
        "files": dict(expectation.files),
        "versions": dict(expectation.versions),
        "rows": {row_id: dict(fields) for row_id, fields in expectation.rows.items()},
    }
    write_json(folder / HEAD_FILE, head)


def read_expectation(folder: Path) -> Expectation:
    """Read an expectation, checked.

    Args:
        folder: a predictor's folder, or any other that holds the two files.

    Raises:
        PredictorError: a file is missing, of another format or damaged, or the two do not belong together.
    """
    path = folder / HEAD_FILE
    hint = f"store it again: taskfit evaluate {folder} --on TASK --save --force"
    if not path.is_file():
        raise PredictorError(f"{folder} holds no expectation: it has no {HEAD_FILE}", hint)
    try:
        values = read_json(path)
        if values.get("format") != FORMAT:
            raise PredictorError(f"{path}: expected format {FORMAT} (got {values.get('format')!r})")
        if values.get("answers_sha256") != _sha256((folder / ROWS_FILE).read_bytes()):
            raise PredictorError(f"{folder / ROWS_FILE} is not the file that {HEAD_FILE} belongs to")
        return _checked(path, values, tuple(read_predictions(folder / ROWS_FILE)))
    except OSError as error:
        raise PredictorError(f"{folder / ROWS_FILE} cannot be read: {error.strerror or error}", hint) from error
    except TaskfitError as error:
        raise PredictorError(error.message, hint) from error
    except (TypeError, ValueError) as error:
        raise PredictorError(f"{folder / ROWS_FILE} holds values of another kind: {error}", hint) from error


def row_digest(row: Row) -> dict[str, str]:
    """Return a digest of each field of a row, so that a later change can be named without keeping the row."""
    return {name: _sha256(canonical_json(value).encode())[:_DIGITS] for name, value in row.fields.items()}


def rows_of(expectation: Expectation, task: Task) -> tuple[Row, ...]:
    """Return the rows that the expectation is about, as the task has them now, in the expectation's order.

    Raises:
        DataError: rows are missing from the split, or their fields or right answers have changed; says which and what.
    """
    split, here = expectation.split, {row.id: row for row in task.splits[expectation.split]}
    elsewhere = {row.id: name for name, rows in task.splits.items() if name != split for row in rows}
    missing = [row_id for row_id in expectation.rows if row_id not in here]
    golds = {answer.row_id: answer.gold for answer in expectation.answers}
    changed = {
        row_id: what
        for row_id, fields in expectation.rows.items()
        if row_id in here and (what := _change(here[row_id], fields, golds[row_id], task.definition))
    }
    faults = Faults(f"the {len(expectation.rows)} {split} rows of the expectation are not those of {task.path}")
    if missing:
        moved = f", which now stands in {elsewhere[missing[0]]}" if missing[0] in elsewhere else ""
        faults.add(f"{len(missing)} are missing, the first is {missing[0]!r}{moved}")
    if changed:
        first, what = next(iter(changed.items()))
        faults.add(f"{len(changed)} have changed, the first is {first!r}: {what}")
    faults.raise_as(
        DataError,
        "evaluate on the rows it was stored on; or, if these are the right ones now, store anew with --save --force",
    )
    return tuple(here[row_id] for row_id in expectation.rows)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a predictor's folder, but of the expectation itself and of what was looked at
    since.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (HEAD_FILE, ROWS_FILE, HOLISTIC_FILE):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def changes_since(expectation: Expectation, files: Mapping[str, str], versions: Mapping[str, str]) -> list[str]:
    """Return what is no longer as it was when the expectation was stored, one text each; often nothing."""
    names = sorted(expectation.files.keys() | files.keys())
    changed = [f"file {name}" for name in names if expectation.files.get(name) != files.get(name)]
    return changed + changed_versions(expectation.versions, versions)


def _change(row: Row, fields: Mapping[str, str], gold: Sequence[str], definition: TaskDefinition) -> str:
    """Return what has changed in a row, or nothing."""
    now = row_digest(row)
    names = [name for name in sorted(fields.keys() | now.keys()) if fields.get(name) != now.get(name)]
    if names:
        return f"field{'s' if len(names) > 1 else ''} {', '.join(names)}"
    if definition.gold(row) != tuple(gold):
        return f"the right answer was {' | '.join(gold)!r} and is {' | '.join(definition.gold(row))!r}"
    return ""


def _checked(path: Path, values: Mapping[str, Value], answers: tuple[StoredPrediction, ...]) -> Expectation:
    faults = Faults(str(path))
    split = _take(values, "split", str, faults)
    if split not in ("test", "validation"):
        faults.add(f"split must be test or validation (got {split!r})")
    listed = _take(values, "rows", dict, faults)
    found = Expectation(
        metric=_take(values, "metric", str, faults),
        value=_take(values, "value", float, faults),
        low=_take(values, "low", float, faults),
        high=_take(values, "high", float, faults),
        task=_take(values, "task", str, faults),
        task_path=_take(values, "task_path", str, faults),
        split=cast("Split", split),
        rows={row_id: _texts(fields, f"rows.{row_id}", faults) for row_id, fields in listed.items()},
        answers=answers,
        files=_texts(values.get("files"), "files", faults),
        versions=_texts(values.get("versions"), "versions", faults),
    )
    if [answer.row_id for answer in answers] != list(found.rows) or not answers:
        faults.add(f"its rows must be those of {ROWS_FILE}, at least one")
    faults.raise_as(PredictorError)
    return found


def _take(values: Mapping[str, Value], name: str, kind: type[_T], faults: Faults) -> _T:
    value = values.get(name)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is kind:
        return value
    faults.add(f"{name} must be {kind.__name__} (got {type(value).__name__})")
    return kind()


def _texts(value: Value, name: str, faults: Faults) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return cast("dict[str, str]", value)
    faults.add(f"{name} must map names to texts")
    return {}


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
