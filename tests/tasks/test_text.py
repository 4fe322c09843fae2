"""Documents of plain text: marks at the beginning, broken compression."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from taskfit.errors import DataError
from taskfit.tasks.text import documents_of


def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path: Path) -> None:
    """Windows writes one; the same text without it is the same document."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "b.txt").write_bytes(b"hello")
    assert [one.text for one in documents_of(str(tmp_path / "*.txt"), None, "text")] == ["hello"]


def test_a_packed_file_with_damage_inside_is_a_data_error(tmp_path: Path) -> None:
    """The header is whole, what follows is no deflate stream."""
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"hello")[:10] + b"\xff" * 20)
    with pytest.raises(DataError, match="cannot be read as text"):
        documents_of(str(tmp_path / "a.txt.gz"), None, "text")
