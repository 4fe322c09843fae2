"""Rows that a person should look at: written as CSV for any spreadsheet, and read back as from a stranger."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.distillation.ledger_file import transaction
from taskfit.errors import DataError, Faults, nearest
from taskfit.files import write_text

if TYPE_CHECKING:
    from taskfit.distillation.ledger import Label, Ledger, Part
    from taskfit.tasks.definition import TaskDefinition

__all__ = ["COLUMNS", "disputed", "read_review", "reviewed", "write_review"]

COLUMNS = ("id", "why", "text", "label_in_data", "label_of_teacher", "confidence", "person")
"""``person`` is for the person to fill in; the other columns are not read back, but for ``id``."""

_LARGEST_BYTES = 256 * 2**20
_MOST_FAULTS = 20
_PARTS: tuple[Part, ...] = ("train", "audit", "human")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def disputed(
    definition: TaskDefinition, ledger: Ledger, confidences: Mapping[str, float | None], most: int
) -> list[tuple[Label, str]]:
    """Return up to ``most`` labels that a person should look at, each with the reason, those looked at left out.

    First the rows where teacher and data differ; then the audit rows, all of which make estimates honest only together;
    then the least sure training rows.
    """
    done = reviewed(ledger.connection)
    wrong = [(found, "differs from data") for found in ledger.labels("human") if not _agrees(definition, found)]
    audit = [(found, "audit") for found in ledger.labels("audit")]
    unsure = [(confidences.get(found.row.id), found) for found in ledger.labels("train")]
    ranked = sorted(
        ((sure, found.row.id, found) for sure, found in unsure if sure is not None), key=lambda one: one[:2]
    )
    listed = [*wrong, *audit, *((found, "unsure") for _, _, found in ranked)]
    return [one for one in listed if one[0].row.id not in done][:most]


def write_review(
    path: Path, definition: TaskDefinition, rows: Sequence[tuple[Label, str]], confidences: Mapping[str, float | None]
) -> None:
    """Write rows for a person, whole or not at all, in UTF-8 with the mark that spreadsheets look for.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for found, why in rows:
        gold = definition.gold(found.row)[0] if why == "differs from data" else ""
        sure = confidences.get(found.row.id)
        cells = (found.row.id, why, definition.input_text(found.row), gold, found.answer)
        writer.writerow([*map(_harmless, cells), "" if sure is None else f"{sure:.3f}", ""])
    write_text(path, "\ufeff" + text.getvalue())


def read_review(path: Path, definition: TaskDefinition, ledger: Ledger) -> int:
    """Enter what a person filled in; return the number of rows. Empty cells are rows not looked at yet.

    A later answer for a row replaces an earlier one.

    Raises:
        DataError: the file is no CSV with the columns ``id`` and ``person``, names an unknown row, one row twice with
            two answers, or an answer outside the labels or the row's own options; all faults together, and nothing
            is entered.
    """
    faults = Faults(str(path))
    rows = {row.id: row for part in _PARTS for row in ledger.rows(part)}
    ids = list(rows)
    known = {_harmless(row_id): row_id for row_id in ids} | {row_id: row_id for row_id in ids}
    found: dict[str, str] = {}
    for number, (row_id, cell) in _filled(path):
        row = rows.get(known.get(row_id, ""))
        allowed = () if row is None else tuple(option.value for option in definition.options(row))
        answer = cell[1:] if cell[:1] == "'" and cell[1:] in allowed else cell
        fault = _fault(row_id, answer, known, found, allowed)
        if fault:
            faults.add(f"record {number}: {fault}")
        else:
            found[known[row_id]] = answer
    if len(faults.messages) > _MOST_FAULTS:
        faults.messages[_MOST_FAULTS:] = [f"and {len(faults.messages) - _MOST_FAULTS} more"]
    faults.raise_as(DataError)
    with transaction(ledger.connection):
        _make_table(ledger.connection)
        ledger.connection.executemany("REPLACE INTO reviews VALUES (?, ?)", found.items())
    return len(found)


def reviewed(connection: sqlite3.Connection) -> dict[str, str]:
    """Return row id to the label that a person gave."""
    _make_table(connection)
    return dict(connection.execute("SELECT id, answer FROM reviews"))


def _make_table(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS reviews (id TEXT PRIMARY KEY, answer TEXT NOT NULL)")


def _agrees(definition: TaskDefinition, label: Label) -> bool:
    return label.answer in definition.gold(label.row)


def _fault(row_id: str, answer: str, known: Mapping[str, str], found: Mapping[str, str], allowed: Sequence[str]) -> str:
    if row_id not in known:
        return f"no row has the id {row_id[:60]!r}"
    if allowed and answer not in allowed:
        listed = ", ".join(allowed[:20])
        return f"person must be one of {listed} (got {answer[:60]!r}){nearest(answer[:60], allowed)}"
    if found.get(known[row_id], answer) != answer:
        return f"row {row_id[:60]!r} has two answers"
    return ""


def _filled(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Return record number, id and answer of the records that a person filled in."""
    text = _text(path)
    dialect = csv.excel
    header_line = text.split("\n", 1)[0]
    delimiter = ";" if header_line.count(";") > header_line.count(",") else ","  # spreadsheets of some countries
    csv.field_size_limit(_LARGEST_BYTES)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), dialect, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: broken CSV: {error}", "Save it as CSV in UTF-8.") from error
    header = [name.strip() for name in records[0]] if records else []
    missing = [name for name in ("id", "person") if header.count(name) != 1]
    if missing:
        raise DataError(f"{path}: expected the columns id and person once each in the first line (got {header[:20]})")
    places = header.index("id"), header.index("person")
    listed = []
    for number, record in enumerate(records[1:], start=2):
        if not any(cell.strip() for cell in record):
            continue
        if len(record) != len(header):
            raise DataError(f"{path}: record {number} has {len(record)} columns where the first has {len(header)}")
        if record[places[1]].strip():
            listed.append((number, (record[places[0]], record[places[1]].strip())))
    return listed


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"{path}: larger than {_LARGEST_BYTES // 2**20} MiB: no review")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8: {error.reason} at byte {error.start}", "Save it as CSV in UTF-8.") from None
    if "\0" in text:
        raise DataError(f"{path}: holds NUL characters: no CSV")
    return text


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
