"""The folder that predictions are written into: shards that appear whole, a manifest, one run at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import DataError, ResourceError
from taskfit.files import appearing, escaped, is_disk_full, remove_unfinished, write_text
from taskfit.serving.inputs import InputFile

if TYPE_CHECKING:
    from taskfit.serving.questions import Unread
    from taskfit.serving.shard import Answered
    from taskfit.tasks.task import Row, Value

__all__ = ["Counts", "Plan", "claimed", "finish", "folder_fingerprint", "journal_of", "shard_counts", "write_shard"]

FORMAT = 1
MANIFEST = "predictions.json"
_LOCK = ".lock"
_PACKAGES = ("taskfit", "torch", "transformers", "tokenizers", "pyarrow")
_EXPECTED_FILES = ("expected.parquet", "expected.json")


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of the shards; it stands in the manifest from the start.

    Attributes:
        predictor: SHA-256 over the names and bytes of the predictor's files.
        strategy: the predictor's, for people.
        model: the base model that the user named; None: the folder's own.
        inputs: the files, in order.
        shard_rows: most rows of a shard.
        versions: of the packages that shape predictions or files.
    """

    predictor: str
    strategy: str
    model: str | None
    inputs: tuple[InputFile, ...]
    shard_rows: int
    versions: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path, strategy: str, model: str | None, inputs: Sequence[InputFile], shard_rows: int) -> Plan:
        """Return the plan of a run with the packages that are installed."""
        versions = {package: version(package) for package in _PACKAGES}
        return cls(folder_fingerprint(folder), strategy, model, tuple(inputs), shard_rows, versions)

    def to_json(self) -> dict[str, Value]:
        """Return the plan as plain values."""
        values: dict[str, Value] = json.loads(json.dumps(asdict(self)))
        return values


@dataclass(frozen=True)
class Counts:
    """Rows of a shard, or of all: how many, how many failed, how many lost tokens."""

    rows: int = 0
    failed: int = 0
    cut: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.failed + other.failed, self.cut + other.cut)


@contextmanager
def claimed(out: Path, plan: Plan) -> Iterator[None]:
    """Hold the folder for as long as the block runs; it is made where missing, and must be of the same plan.

    Raises:
        DataError: another run writes into it; it belongs to another predictor, other inputs or settings: the message
            says what differs; or it holds something else.
        ResourceError: the disk is full.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file", "Give a folder with --out, or a name that ends in .jsonl.")
    _check_empty_or_ours(out)
    with _named_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / _LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets it go when the process ends
        except OSError:
            raise DataError(
                f"{out}: another run is writing into this folder", "Wait for it, or give another folder with --out."
            ) from None
        remove_unfinished(out)
        _check_plan(out, plan)
        if not (out / MANIFEST).is_file():
            _write_manifest(out, {"format": FORMAT, "status": "running", **plan.to_json()})
        with _named_errors(out):
            yield


def shard_path(out: Path, number: int) -> Path:
    """Return the file of a shard."""
    return out / f"part-{number:06d}.parquet"


def journal_of(out: Path, number: int) -> Path:
    """Return the file that remembers what a shard has so far."""
    return out / f".journal-{number:06d}"


def write_shard(out: Path, number: int, rows: Sequence[Row | Unread], answers: Sequence[Answered]) -> Counts:
    """Write a shard whole or not at all, and remove its journal; return its counts."""
    import pyarrow
    import pyarrow.parquet

    counts = Counts(
        len(rows), sum(one.error is not None for one in answers), sum(one.cut_tokens > 0 for one in answers)
    )
    columns: dict[str, tuple[Any, list[Any]]] = {
        "id": (pyarrow.string(), [escaped(row.id) for row in rows]),
        "answer": (pyarrow.string(), [None if one.error is not None else escaped(one.answer) for one in answers]),
        "probability": (pyarrow.float64(), [one.probability for one in answers]),
        "cut_tokens": (pyarrow.int32(), [one.cut_tokens for one in answers]),
        "error": (pyarrow.string(), [None if one.error is None else escaped(one.error) for one in answers]),
    }
    arrays = {name: pyarrow.array(values, kind) for name, (kind, values) in columns.items()}
    told = {"taskfit": json.dumps({"format": FORMAT, **asdict(counts)})}
    table = pyarrow.table(arrays).replace_schema_metadata(told)
    with appearing(shard_path(out, number)) as partial:
        pyarrow.parquet.write_table(table, partial, compression="zstd")
    journal_of(out, number).unlink(missing_ok=True)
    return counts


def shard_counts(out: Path, number: int) -> Counts | None:
    """Return the counts of a shard that is there; None where it is not.

    Raises:
        DataError: the file is none of ours.
    """
    path = shard_path(out, number)
    if not path.is_file():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        told = json.loads(pyarrow.parquet.read_schema(path).metadata[b"taskfit"])
        return Counts(told["rows"], told["failed"], told["cut"])
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {error}", "Remove this file and run again: it is predicted anew."
        ) from error


def finish(out: Path, plan: Plan, shards: int, counts: Counts) -> None:
    """Write the manifest of a finished run; a journal may stand there still, of a shard whose run was killed next."""
    for number in range(shards):
        journal_of(out, number).unlink(missing_ok=True)
    files: list[Value] = [shard_path(out, number).name for number in range(shards)]
    done: dict[str, Value] = {"status": "done", **asdict(counts), "shards": files}
    _write_manifest(out, {"format": FORMAT, **plan.to_json(), **done})


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of a predictor's files; what it was expected to answer does not count."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _EXPECTED_FILES):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        name = path.relative_to(folder).as_posix().encode()
        total.update(len(name).to_bytes(8, "big") + name + content)
    return total.hexdigest()


def _check_empty_or_ours(out: Path) -> None:
    others = [path.name for path in out.iterdir() if path.name != _LOCK] if out.is_dir() else []
    if others and not (out / MANIFEST).is_file() and not all(name.startswith(".unfinished-") for name in others):
        raise DataError(f"{out} holds {sorted(others)[0]} and no {MANIFEST}", "Give a new folder with --out.")


def _check_plan(out: Path, plan: Plan) -> None:
    if not (out / MANIFEST).is_file():
        return
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        is_ours = isinstance(found, dict) and found.get("format") == FORMAT
    except (OSError, ValueError):
        is_ours = False
    if not is_ours:
        raise DataError(f"{out / MANIFEST} is damaged, or of another version", "Give a new folder with --out.")
    differing = [
        f"{name} was {_shown(found.get(name))}, now {_shown(value)}"
        for name, value in plan.to_json().items()
        if found.get(name) != value
    ]
    if differing:
        raise DataError(
            f"{out} belongs to another run: {'; '.join(differing)}",
            "Give another folder with --out, or the same again.",
        )


def _shown(value: object) -> str:
    if isinstance(value, list):
        shown = [f"{file.get('path')} ({str(file.get('sha256'))[:12]})" for file in value if isinstance(file, dict)]
        return ", ".join(shown) if len(shown) <= 3 else f"{len(shown)} files, first {shown[0]}"
    return json.dumps(value)


def _write_manifest(out: Path, values: Mapping[str, Value]) -> None:
    with _named_errors(out):
        write_text(out / MANIFEST, json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


@contextmanager
def _named_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full: {out} is not finished", "Free some space and run the same command again."
            ) from error
        raise DataError(f"cannot write into {out}: {error.strerror or error}") from error
