"""The files that rows come from: which they are, that they agree, and their rows with the broken ones told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import DataError, nearest
from taskfit.serving.questions import Unread, needed_fields
from taskfit.tasks.identity import DEFAULT_ID_FIELD, identified
from taskfit.tasks.reading import BrokenRow, read_each
from taskfit.tasks.sources import FileSource, source_files

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["InputFile", "find_inputs", "read_rows"]

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class InputFile:
    """A file of rows.

    Attributes:
        path: as the user's pattern found it.
        bytes: its size.
        sha256: of its bytes, in hexadecimal.
        rows: how many it holds, for the time left: exact for Parquet, the number of lines for plain text, None where it
            is compressed.
    """

    path: str
    bytes: int
    sha256: str
    rows: int | None


def find_inputs(pattern: str | Path, definition: TaskDefinition) -> tuple[InputFile, ...]:
    """Return the files that a path or glob names, in order of name, read once for their fingerprints.

    Raises:
        DataError: there is none; one cannot be read; or the files do not agree on a column that the task reads: then
            nothing was predicted yet.
    """
    paths = source_files(FileSource(str(pattern)))
    _check_columns(paths, definition)
    return tuple(_input_file(path) for path in paths)


def read_rows(files: Sequence[InputFile]) -> Iterator[Row | Unread]:
    """Yield the rows of all files, in order and in constant memory; those that cannot be read as :class:`Unread`.

    A row has the id of its field ``id``, else a hash of its content; an unread one has the name of its file and its
    place there.
    """
    for file in files:
        for raw in read_each(Path(file.path)):
            if isinstance(raw, BrokenRow):
                place, _, reason = raw.error.message.removeprefix(str(Path(file.path).parent) + "/").partition(": ")
                yield Unread(place, reason)
            else:
                yield from identified([raw], DEFAULT_ID_FIELD)


def _input_file(path: Path) -> InputFile:
    digest = hashlib.sha256()
    lines, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                last = chunk[-1:]
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    kind = path.suffix.lower()
    rows: int | None = lines + (last != b"\n")
    if kind == ".parquet":
        rows = _parquet_file(path).metadata.num_rows
    elif kind in (".csv", ".tsv"):
        rows = max(0, (rows or 0) - 1)
    elif kind not in (".jsonl", ".ndjson", ".json"):
        rows = None
    return InputFile(str(path), size, digest.hexdigest(), rows)


def _check_columns(paths: Sequence[Path], definition: TaskDefinition) -> None:
    """Refuse tables that lack a column which the first one has and the task reads, or have it of another type."""
    tables = [(path, columns) for path in paths if (columns := _columns(path)) is not None]
    if not tables:
        return
    needed = needed_fields(definition)
    first_path, first = tables[0]
    read = {name: kind for name, kind in first.items() if needed is None or name in needed or name == DEFAULT_ID_FIELD}
    for path, columns in tables[1:]:
        for name, kind in read.items():
            if name not in columns:
                raise DataError(
                    f"{path}: no column `{name}`{nearest(name, columns)}, which {first_path} has and the task reads",
                    "Predict files of other columns in a run of their own.",
                )
            if columns[name] != kind:
                raise DataError(
                    f"{path}: column `{name}` holds {columns[name]}, in {first_path} it holds {kind}",
                    "Write the files with one schema, or predict them in runs of their own.",
                )


def _columns(path: Path) -> Mapping[str, str] | None:
    """Column to type of a table, read from its beginning; None for JSON, where each row has fields of its own."""
    names = path.name.lower()
    if names.endswith(".parquet"):
        return {field.name: _plain_type(str(field.type)) for field in _parquet_file(path).schema_arrow}
    if ".csv" in names or ".tsv" in names:
        for row in islice(read_each(path), 1):
            return {} if isinstance(row, BrokenRow) else dict.fromkeys(row.fields, "text")
    return None


def _plain_type(name: str) -> str:
    """Types that read alike are one: ``string``, ``large_string`` and a dictionary of them."""
    for word in ("string", "int", "float", "double"):
        if word in name and "list" not in name and "struct" not in name:
            return {"string": "text", "int": "whole numbers"}.get(word, "numbers")
    return name


def _parquet_file(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}", "Is the file complete?") from error
