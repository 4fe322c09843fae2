"""Rows keep their ids, equal rows are one row, equal tasks have equal fingerprints."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError
from taskfit.tasks.identity import canonical_json, content_id, identified, identify
from taskfit.tasks.reading import RawRow


def raws(*fields: dict[str, object]) -> list[RawRow]:
    """Rows as if read from rows.jsonl."""
    return [RawRow(row, f"rows.jsonl:{n}") for n, row in enumerate(fields, start=1)]  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_ids_do_not_depend_on_the_order_of_fields(fields: dict[str, int | str | None]) -> None:
    """The same content has the same id, wherever it was written."""
    assert content_id(dict(fields)) == content_id(dict(reversed(list(fields.items()))))


def test_an_id_is_the_beginning_of_the_hash_of_canonical_json() -> None:
    """Pinned: another tool can compute it."""
    expected = hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()[:16]
    assert content_id({"b": 1, "a": "é"}) == expected
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


def test_unique_ids_of_the_data_are_used() -> None:
    """A field called id is the id, if it can be."""
    found = identify({"test": raws({"id": 7, "t": "a"}), "train": raws({"id": "8", "t": "b"})}, None)
    assert [row.id for rows in found.parts.values() for row in rows] == ["7", "8"]
    assert found.places["7"] == "rows.jsonl:1"
    assert found.note is None


def test_ids_that_are_there_twice_are_not_used_and_the_note_says_so() -> None:
    """Counting from 1 in every file is common."""
    found = identify({"test": raws({"id": 1, "t": "a"}), "train": raws({"id": 1, "t": "b"})}, None)
    assert found.note is not None and "'1' is there twice" in found.note
    assert found.parts["train"][0].id == content_id({"id": 1, "t": "b"})


def test_a_named_id_field_must_be_unique_and_filled() -> None:
    """What the task file asks for is not quietly replaced."""
    with pytest.raises(DataError, match=r"the id 'x' is there twice: rows.jsonl:1 and rows.jsonl:2"):
        identify({"all": raws({"key": "x", "t": "a"}, {"key": "x", "t": "b"})}, "key")
    with pytest.raises(DataError, match=r"rows.jsonl:1: no text or whole number in `key`"):
        identify({"all": raws({"key": None, "t": "a"})}, "key")


def test_equal_rows_are_dropped_and_reported() -> None:
    """Within a part they are duplicates; in a part that comes later they are moved. Ids do not make a difference."""
    parts = {
        "test": raws({"id": 1, "t": "a"}, {"id": 2, "t": "a"}),
        "train": raws({"id": 3, "t": "a"}, {"id": 4, "t": "b"}),
    }
    found = identify(parts, None)
    assert (found.duplicates, found.moved) == (("2",), ("3",))
    assert {part: [row.id for row in rows] for part, rows in found.parts.items()} == {"test": ["1"], "train": ["4"]}


def test_streamed_rows_get_the_ids_that_a_task_gives() -> None:
    """A given id where there is one, a hash elsewhere; True is no id."""
    rows = list(identified(raws({"id": 5, "t": "a"}, {"t": "b"}, {"id": True}), "id"))
    assert [row.id for row in rows] == ["5", content_id({"t": "b"}), content_id({"id": True})]
    assert [row.id for row in identified(raws({"id": 5}), None)] == [content_id({"id": 5})]
