"""Which row is which: ids, equal content, and the fingerprint of a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from taskfit.errors import DataError
from taskfit.tasks.reading import RawRow
from taskfit.tasks.task import Row

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Split, Value

__all__ = ["Identified", "canonical_json", "content_id", "fingerprint", "identified", "identify"]

DEFAULT_ID_FIELD = "id"
"""The field that holds the id where the task file names none, provided that its values are unique."""


@dataclass(frozen=True)
class Identified:
    """Rows with ids, after exact duplicates have gone.

    Attributes:
        parts: name of the part (a split, or ``all``) to its rows.
        places: row id to where the row was read.
        duplicates: ids of rows dropped because their part holds the same content already.
        moved: ids of rows dropped because a part that goes before holds the same content.
    """

    parts: Mapping[str, tuple[Row, ...]]
    places: Mapping[str, str]
    duplicates: tuple[str, ...]
    moved: tuple[str, ...]
    note: str | None = None


def canonical_json(value: object) -> str:
    """Return the one JSON text of ``value``: keys sorted, no spaces, no escapes beyond JSON's own."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def content_id(fields: Mapping[str, Value]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of ``fields``."""
    return _digest(canonical_json(fields))


def fingerprint(definition: TaskDefinition, splits: Mapping[Split, Sequence[Row]]) -> str:
    """Return the SHA-256 of the definition and of all rows in split order, as hex.

    It depends on what the rows say and their order, not on file names, formats of equal values or compression.
    """
    digest = sha256(canonical_json(definition.to_json()).encode())
    for split, rows in sorted(splits.items()):
        digest.update(f"\n{split} {len(rows)}\n".encode())
        for row in rows:
            digest.update(canonical_json([row.id, row.fields]).encode())
            if row.teacher is not None:
                digest.update(canonical_json(asdict(row.teacher)).encode())
    return digest.hexdigest()


def identified(rows: Iterable[RawRow], id_field: str | None) -> Iterator[Row]:
    """Yield rows with ids, in constant memory and so without a check that the ids are unique.

    Args:
        rows: rows as read.
        id_field: field that holds the id; a row without it, or None, gets the hash of its content.
    """
    for raw in rows:
        given = _given_id(raw.fields, id_field) if id_field else None
        yield Row(content_id(raw.fields) if given is None else given, raw.fields)


def identify(parts: Mapping[str, Sequence[RawRow]], id_field: str | None) -> Identified:
    """Give every row an id that is unique in the whole task, and drop exact duplicates.

    Args:
        parts: name to rows, in order of precedence: the first part to hold a content keeps it.
        id_field: field that must hold the id. None: the field ``id`` where all rows have one and its values are
            unique, otherwise a hash of the content.

    Raises:
        DataError: ``id_field`` is missing in a row, or two different rows have the same id.
    """
    if id_field is not None:
        return _identify_by(parts, id_field)
    if not all(_given_id(raw.fields, DEFAULT_ID_FIELD) is not None for rows in parts.values() for raw in rows):
        return _identify_by(parts, None)
    try:
        return _identify_by(parts, DEFAULT_ID_FIELD)
    except DataError as error:
        found = _identify_by(parts, None)
        note = f"ids are hashes of the content; the field `{DEFAULT_ID_FIELD}` is not used: {error.message}"
        return Identified(found.parts, found.places, found.duplicates, found.moved, note)


def _identify_by(parts: Mapping[str, Sequence[RawRow]], id_field: str | None) -> Identified:
    part_of: dict[str, str] = {}
    places: dict[str, str] = {}
    kept: dict[str, list[Row]] = {part: [] for part in parts}
    duplicates: list[str] = []
    moved: list[str] = []
    for part, raws in parts.items():
        for raw in raws:
            row, content = _row_and_content(raw, id_field)
            if content in part_of:
                (duplicates if part_of[content] == part else moved).append(row.id)
                continue
            if row.id in places:
                raise DataError(f"the id '{row.id}' is there twice: {places[row.id]} and {raw.place}")
            part_of[content] = part
            places[row.id] = raw.place
            kept[part].append(row)
    return Identified({part: tuple(rows) for part, rows in kept.items()}, places, tuple(duplicates), tuple(moved))


def _row_and_content(raw: RawRow, id_field: str | None) -> tuple[Row, str]:
    """Return the row and a digest of all its fields but the id."""
    if id_field is None:
        content = content_id(raw.fields)
        return Row(content, raw.fields), content
    given = _given_id(raw.fields, id_field)
    if given is None:
        raise DataError(f"{raw.place}: no text or whole number in `{id_field}`, the field that holds the id")
    return Row(given, raw.fields), content_id({name: value for name, value in raw.fields.items() if name != id_field})


def _given_id(fields: Mapping[str, Value], id_field: str) -> str | None:
    value = fields.get(id_field)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        return None
    return str(value)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
