"""Rows from files: JSON Lines, JSON, CSV, TSV and Parquet, plain or compressed, streamed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

from taskfit.errors import DataError, nearest
from taskfit.tasks.task import Value

__all__ = ["FORMATS", "BrokenRow", "RawRow", "plain_value", "read_each", "read_file"]

MAX_LINE_BYTES = 256 * 2**20
"""A line longer than this is refused: it would be a broken file, or an attack on memory."""

_COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")


@dataclass(frozen=True, slots=True)
class RawRow:
    """The fields of one row and the place they come from, such as ``rows.csv:17``."""

    fields: dict[str, Value]
    place: str


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read, though those behind it can: the error that :func:`read_file` raises for it."""

    error: DataError


def read_file(path: Path) -> Iterator[RawRow]:
    """Yield the rows of one file, in order, in constant memory (a ``.json`` file with one list is held whole).

    The format is told by the name: ``.jsonl``, ``.ndjson``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, each alone or
    with ``.gz``, ``.xz``, ``.bz2`` or ``.zst`` behind it. Text is UTF-8, with or without a byte order mark. CSV follows
    RFC 4180; TSV has no quoting. Values of CSV and TSV are texts. Dates and decimals of Parquet become texts.

    Raises:
        DataError: the file is missing, of another format, damaged, not UTF-8, or a line of it is broken; the message
            names file and line.
    """
    for row in read_each(path):
        if isinstance(row, BrokenRow):
            raise row.error
        yield row


def read_each(path: Path) -> Iterator[RawRow | BrokenRow]:
    """Yield the rows of one file as :func:`read_file` does; a row that alone is broken does not end it.

    That is a line of JSON Lines that is no JSON object; one that is not UTF-8; a record of CSV with too few columns; a
    row of Parquet with a text that is not UTF-8 or a value that JSON cannot hold.

    Raises:
        DataError: the file as a whole cannot be read, or nobody could tell where the next row begins.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in _COMPRESSIONS else (suffixes or [""])[-1]
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(
            f"{path}: rows must be in a file that ends in {known}, optionally with {', '.join(_COMPRESSIONS)} behind it"
        )
    try:
        with _opened(path) as stream:
            yield from FORMATS[kind](stream, path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{_nearest_file(path)}") from None
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}", "Is the file complete, and is it what its name says?"
        ) from error


def plain_value(value: object, place: str) -> Value:
    """Return ``value`` as JSON can hold it: dates and decimals as texts, tuples and arrays as lists.

    Raises:
        DataError: it is a number that is not finite, bytes, or of a type that has no plain form.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{place}: a number is {value}; use null for what is missing")
        return value
    if isinstance(value, dict):
        return {str(key): plain_value(item, place) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, place) for item in value]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise DataError(
        f"{place}: a value of type {type(value).__name__} is no text, number, list or mapping; leave its column out"
    )


class _NotUtf8Error(DataError):
    """A line that cannot be decoded, with its bytes."""

    def __init__(self, message: str, hint: str, line: bytes) -> None:
        super().__init__(message, hint)
        self.line = line


def _read_json_lines(stream: BinaryIO, path: Path) -> Iterator[RawRow | BrokenRow]:
    for number, line in _text_lines(stream, path):
        if isinstance(line, _NotUtf8Error):
            yield BrokenRow(line)
        elif line.strip():
            yield _json_row(line, f"{path}:{number}")


def _read_json(stream: BinaryIO, path: Path) -> Iterator[RawRow | BrokenRow]:
    """A list of objects, or JSON Lines under the name ``.json``."""
    lines = _text_lines(stream, path)
    for number, line in lines:
        if isinstance(line, _NotUtf8Error):
            yield BrokenRow(line)
            continue
        if not line.strip():
            continue
        if not line.lstrip().startswith("["):
            yield _json_row(line, f"{path}:{number}")
            continue
        text = line + "".join(_sound(rest) for _, rest in lines)
        items = _json_value(text, str(path))
        for position, item in enumerate(cast("list[Value]", items), start=1):
            yield RawRow(_object(item, f"{path}[{position}]"), f"{path}[{position}]")


def _json_row(line: str, place: str) -> RawRow | BrokenRow:
    try:
        return RawRow(_object(_json_value(line, place), place), place)
    except DataError as error:
        return BrokenRow(error)


def _sound(line: str | _NotUtf8Error) -> str:
    """Return a line where nothing can be read without it."""
    if isinstance(line, _NotUtf8Error):
        raise line
    return line


def _json_value(text: str, place: str) -> Value:
    try:
        value = cast(
            "Value",
            json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys),
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{place}: half of a surrogate pair (\\ud800 to \\udfff) is no character; escape both halves"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: broken JSON: {error}", "Each line must hold one JSON object.") from error
    return value


def _object(value: Value, place: str) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise DataError(f'{place}: a row must be a JSON object like {{"text": …}} (got {type(value).__name__})')
    return value


def _refuse_constant(name: str) -> Value:
    raise ValueError(f"{name} is no JSON number; use null for what is missing")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


def _unique_keys(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{repeated}' is there twice")
    return fields


def _read_csv(stream: BinaryIO, path: Path) -> Iterator[RawRow | BrokenRow]:
    csv.field_size_limit(MAX_LINE_BYTES)  # the default of 128 KiB refuses long documents
    broken: list[DataError] = []  # lines of the record being read

    def lines() -> Iterator[str]:
        for _, line in _text_lines(stream, path):
            if isinstance(line, _NotUtf8Error):
                broken.append(line)
                yield line.line.decode("utf-8", errors="replace")  # the record ends where it would
            else:
                yield line

    reader = csv.reader(lines(), strict=True)

    def records() -> Iterator[tuple[int, list[str] | DataError]]:
        start = 1
        try:
            for record in reader:
                yield start, broken[0] if broken else record
                broken.clear()
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{start}: broken CSV: {error}", 'Quote with "…" and double the quotes inside.'
            ) from error

    yield from _table_rows(records(), path)


def _read_tsv(stream: BinaryIO, path: Path) -> Iterator[RawRow | BrokenRow]:
    def records() -> Iterator[tuple[int, list[str] | DataError]]:
        for number, line in _text_lines(stream, path):
            if isinstance(line, _NotUtf8Error):
                yield number, line
            else:
                bare = line.rstrip("\r\n")
                yield number, bare.split("\t") if bare else []

    yield from _table_rows(records(), path)


def _table_rows(records: Iterable[tuple[int, list[str] | DataError]], path: Path) -> Iterator[RawRow | BrokenRow]:
    """Give each record the names of the first one; a record of another width is broken."""
    header: Sequence[str] | None = None
    for number, record in records:
        if header is None:
            if isinstance(record, DataError):
                raise record
            header = _checked_header(record, f"{path}:{number}")
            continue
        if isinstance(record, DataError):
            yield BrokenRow(record)
            continue
        if not record and len(header) > 1:  # an empty line
            continue
        if len(record) != len(header):
            problem = f"{len(record)} columns where the header has {len(header)} ({', '.join(header)})"
            yield BrokenRow(DataError(f"{path}:{number}: {problem}"))
            continue
        yield RawRow(dict(zip(header, record, strict=True)), f"{path}:{number}")


def _checked_header(names: list[str], place: str) -> list[str]:
    empty = [number for number, name in enumerate(names, start=1) if not name.strip()]
    if empty or not names:
        raise DataError(f"{place}: every column needs a name in the first line (column {(empty or [1])[0]} has none)")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{place}: two columns have the name '{repeated}'")
    return names


def _read_parquet(stream: BinaryIO, path: Path) -> Iterator[RawRow | BrokenRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(stream)
        for batch in table.iter_batches(batch_size=1024):
            for fields in _batch_rows(batch):
                number += 1
                place = f"{path}[{number}]"
                try:
                    if isinstance(fields, UnicodeDecodeError):
                        raise DataError(f"{place}: a text is not UTF-8 (byte {fields.start + 1})")
                    if isinstance(fields, Exception):
                        raise DataError(f"{place}: a value cannot be read: {fields}")
                    row: RawRow | BrokenRow = RawRow(cast("dict[str, Value]", plain_value(fields, place)), place)
                except DataError as error:
                    row = BrokenRow(error)
                yield row
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: broken Parquet: {error}") from error


def _batch_rows(batch: Any) -> Iterator[object]:
    """Yield the rows of a pyarrow batch; in place of one that Python cannot hold, the error.

    That is a text that is not UTF-8, a date beyond the year 9999, or a time zone that nobody knows.
    """
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, KeyError) as error:  # pyarrow's own errors are some of these
        if batch.num_rows == 1:
            yield error
            return
        for position in range(batch.num_rows):
            yield from _batch_rows(batch.slice(position, 1))
    else:
        yield from rows


def _text_lines(stream: BinaryIO, path: Path) -> Iterator[tuple[int, str | _NotUtf8Error]]:
    """Yield line numbers from 1 and decoded lines, ends kept; for a line that is not UTF-8 the error."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{path}:{number}: a line is longer than {MAX_LINE_BYTES // 2**20} MiB")
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            problem = f"{path}:{number}: not UTF-8 (byte {error.start + 1} of the line)"
            yield number, _NotUtf8Error(problem, "Save the file as UTF-8.", line)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked where its name says that it is packed."""
    openers = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": _open_zstandard}
    opener = openers.get(path.suffix.lower())
    with opener(path, "rb") if opener else path.open("rb") as stream:  # type: ignore[operator]
        yield cast("BinaryIO", stream)


def _open_zstandard(path: Path, mode: str) -> BinaryIO:
    """Python reads Zstandard itself from 3.14 on."""
    import pyarrow

    del mode
    return cast("BinaryIO", io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")))


def _nearest_file(path: Path) -> str:
    return nearest(path.name, sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""


FORMATS: dict[str, Callable[[BinaryIO, Path], Iterator[RawRow | BrokenRow]]] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
"""File name ending to reader. A new format is one function and one line here."""
