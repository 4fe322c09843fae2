"""Which rows ask the same, and how rows are cut into shards: pure functions of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.tasks.identity import DEFAULT_ID_FIELD, canonical_json
from taskfit.tasks.task import Row
from taskfit.tasks.template import fields_read

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition

__all__ = ["Question", "Unread", "cut", "needed_fields", "questions"]

MOST_SHARD_CHARACTERS = 64 * 2**20
"""A shard ends early where its rows hold more than this, so that memory is bounded for long texts, too."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A row that could not be read: where it stands, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """Rows of a shard that ask the same.

    Attributes:
        row: the first of them.
        places: of all of them in the shard.
        size: characters of what is read.
    """

    row: Row
    places: list[int]
    size: int


def needed_fields(definition: TaskDefinition) -> frozenset[str] | None:
    """Return the fields that the task's templates read, answers apart; None where they may read any."""
    sources = [definition.text, definition.messages or ""]
    for wording in definition.wordings:
        sources += [wording.prompt, wording.options or ""]
    found = [fields_read(source) for source in sources if source]
    return None if None in found else frozenset[str]().union(*(names for names in found if names is not None))


def questions(rows: Sequence[Row | Unread], needed: frozenset[str] | None) -> list[Question]:
    """Return what a shard's rows ask, each question once, the longest first.

    Rows ask the same where all fields that the task reads are the same (``needed``; None: all but the id).
    """
    found: dict[bytes, Question] = {}
    for place, row in enumerate(rows):
        if isinstance(row, Unread):
            continue
        names = row.fields.keys() - {DEFAULT_ID_FIELD} if needed is None else needed & row.fields.keys()
        text = canonical_json({name: row.fields[name] for name in names})
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key in found:
            found[key].places.append(place)
        else:
            found[key] = Question(row, [place], len(text))
    return sorted(found.values(), key=lambda question: (-question.size, question.places[0]))


def cut(rows: Iterable[Row | Unread], most_rows: int) -> Iterator[list[Row | Unread]]:
    """Yield the rows in shards of ``most_rows``, fewer where they hold long texts; the last one may be shorter."""
    shard: list[Row | Unread] = []
    characters = 0
    for row in rows:
        shard.append(row)
        characters += 0 if isinstance(row, Unread) else _characters(row)
        if len(shard) == most_rows or characters >= MOST_SHARD_CHARACTERS:
            yield shard
            shard, characters = [], 0
    if shard:
        yield shard


def _characters(row: Row) -> int:
    return sum(len(value) if isinstance(value, str) else 8 for value in row.fields.values())
