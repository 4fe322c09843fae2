"""Files give their rows, or say which line is broken."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError
from taskfit.tasks.reading import plain_value, read_file

_WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)


def fields_of(path: Path) -> list[dict[str, object]]:
    """All rows of a file."""
    return [dict(raw.fields) for raw in read_file(path)]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"a": _WORDS, "b": _WORDS}), min_size=1, max_size=8))
def test_csv_and_json_lines_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    """What Python's writers write is read back, quotes, commas and line breaks included."""
    folder = tmp_path_factory.mktemp("rows")
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["a", "b"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert fields_of(folder / "rows.csv") == rows == fields_of(folder / "rows.jsonl")


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_packed_files_give_the_same_rows(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    """The name's last ending says how the file is packed; damage is an error."""
    path = tmp_path / f"rows.jsonl{ending}"
    packed = pack(b'{"a": 1}\n{"a": 2}\n')
    path.write_bytes(packed)
    assert fields_of(path) == [{"a": 1}, {"a": 2}]
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        fields_of(path)
    path.write_bytes(b"not packed at all")
    with pytest.raises(DataError, match="cannot be read"):
        fields_of(path)


def test_a_byte_order_mark_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    """Files from Windows read like any other, and places count all lines."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert [(raw.fields["a"], raw.place) for raw in read_file(path)] == [(1, f"{path}:1"), (2, f"{path}:3")]
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n")
    assert fields_of(tmp_path / "rows.csv") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "Infinity is no JSON number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1', "broken JSON"),
        (b'["a"]', "must be a JSON object"),
        (b"7", "must be a JSON object"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": "\xff"}', r"not UTF-8 \(byte 8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ' + b"[" * 100_000, "broken JSON"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path, line: bytes, said: str) -> None:
    """The rows before it are given first."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b"\n")
    rows = read_file(path)
    assert next(rows).fields == {"a": 0}
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{said}"):
        next(rows)


def test_whole_surrogate_pairs_are_characters(tmp_path: Path) -> None:
    """Escaped emoji are ordinary JSON."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}')
    assert fields_of(path) == [{"a": "\N{GRINNING FACE}"}]


def test_json_may_be_one_list_or_lines(tmp_path: Path) -> None:
    """Both are found under the name .json."""
    path = tmp_path / "rows.json"
    path.write_text('\n[{"a": 1},\n {"a": 2}]')
    assert fields_of(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert fields_of(path) == [{"a": 1}, {"a": 2}]
    path.write_text('[{"a": 1}, 2]')
    with pytest.raises(DataError, match=r"rows\.json\[2\]: a row must be a JSON object"):
        fields_of(path)
    path.write_text('[{"a": 1}')
    with pytest.raises(DataError, match="broken JSON"):
        fields_of(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n1,2,3\n", ":3: 3 columns where the header has 2"),
        ('a,b\n"x\ny",2\n1\n', ":4: 1 columns where the header has 2"),
        ('a,b\n1,2\n1,"open\n3,4\n', ":3: broken CSV"),
        ("a,\n1,2\n", "column 2 has none"),
        ("a,a\n1,2\n", "two columns have the name 'a'"),
    ],
)
def test_broken_tables_are_named_by_line(tmp_path: Path, text: str, said: str) -> None:
    """An open quote never swallows the rest of the file."""
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        fields_of(path)


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    """A quotation mark is a character like any other."""
    path = tmp_path / "rows.tsv"
    path.write_text('a\tb\n"x\ty"\n')
    assert fields_of(path) == [{"a": '"x', "b": 'y"'}]


def test_a_field_of_one_megabyte_is_read_from_csv(tmp_path: Path) -> None:
    """The csv module's limit of 128 KiB does not bind."""
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "x" * 1_000_000 + ",2\n")
    assert len(str(fields_of(path)[0]["a"])) == 1_000_000


def test_parquet_gives_plain_values(tmp_path: Path) -> None:
    """Dates and decimals become texts; packed Parquet is read too."""
    values = {
        "t": ["a", None],
        "d": [datetime.date(2024, 1, 2)] * 2,
        "n": [decimal.Decimal("1.50")] * 2,
        "l": [["x"], []],
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(values), buffer)
    (tmp_path / "rows.parquet").write_bytes(buffer.getvalue())
    (tmp_path / "packed.parquet.gz").write_bytes(gzip.compress(buffer.getvalue()))
    expected = [
        {"t": "a", "d": "2024-01-02", "n": "1.50", "l": ["x"]},
        {"t": None, "d": "2024-01-02", "n": "1.50", "l": []},
    ]
    assert fields_of(tmp_path / "rows.parquet") == expected == fields_of(tmp_path / "packed.parquet.gz")


def test_broken_parquet_is_a_data_error(tmp_path: Path) -> None:
    """Any file can be called .parquet."""
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(DataError, match="broken Parquet"):
        fields_of(tmp_path / "rows.parquet")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {"a": [b"deep"]}, object()])
def test_values_without_a_plain_form_are_refused(value: object) -> None:
    """Nothing is turned into a text that merely looks like data."""
    with pytest.raises(DataError, match="here: "):
        plain_value(value, "here")


def test_unknown_endings_and_missing_files_are_named(tmp_path: Path) -> None:
    """The message lists what would do, or the nearest file."""
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"ends in \.jsonl, \.ndjson"):
        fields_of(tmp_path / "rows.xlsx")
    with pytest.raises(DataError, match=r"no such file \(did you mean 'rows.jsonl'\?\)"):
        fields_of(tmp_path / "row.jsonl")


def test_a_line_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed file cannot unpack into all of the memory."""
    monkeypatch.setattr("taskfit.tasks.reading.MAX_LINE_BYTES", 2**20)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"x" * (2**20 + 1)))
    with pytest.raises(DataError, match=r":1: a line is longer than 1 MiB"):
        fields_of(tmp_path / "rows.jsonl.gz")


@pytest.mark.parametrize(
    "values",
    [
        pyarrow.array([0, 10**7], pyarrow.int32()).cast(pyarrow.date32()),
        pyarrow.array([0, 2**62], pyarrow.duration("s")),
        pyarrow.array([0, 1], pyarrow.timestamp("us", tz="Nowhere/Else")),
    ],
)
def test_parquet_values_that_python_cannot_hold_are_data_errors(tmp_path: Path, values: pyarrow.Array) -> None:
    """A date beyond the year 9999, a length of time beyond ours, a time zone that nobody knows."""
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": values}), path)
    with pytest.raises(DataError, match=r"rows\.parquet\[[12]\]: a value"):
        list(read_file(path))
