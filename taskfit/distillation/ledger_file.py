"""The SQLite file behind a ledger: opened, checked, laid out, and tied to one task and teacher."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from taskfit.errors import StudyError
from taskfit.files import is_disk_full, write_ahead

__all__ = ["opened", "transaction"]

_APPLICATION = 0x74616C64
_FORMAT = 1
_BUSY_S = 60.0
_TABLES = """
CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rows (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, part TEXT NOT NULL, fields TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', worker TEXT, tries INTEGER NOT NULL DEFAULT 0);
CREATE INDEX rows_by_state ON rows (state, tries, position);
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY, row INTEGER NOT NULL REFERENCES rows (position), worker TEXT NOT NULL,
    started REAL NOT NULL, ended REAL, outcome TEXT, message TEXT);
CREATE INDEX attempts_by_row ON attempts (row);
CREATE TABLE annotations (
    row INTEGER PRIMARY KEY REFERENCES rows (position), attempt INTEGER NOT NULL REFERENCES attempts (number),
    answer TEXT NOT NULL, probabilities TEXT, raw TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cut_tokens INTEGER NOT NULL);
CREATE TABLE purse (one INTEGER PRIMARY KEY CHECK (one = 1), usd REAL NOT NULL, tokens INTEGER NOT NULL);
INSERT INTO purse VALUES (1, 0, 0);
"""


@contextmanager
def opened(path: Path, identity: Mapping[str, str] | None) -> Iterator[sqlite3.Connection]:
    """Open the ledger at ``path``, made where missing, for as long as the block runs.

    Args:
        path: the file.
        identity: what the labels depend on (task, teacher, choice of rows), by name; kept at the first opening.
            None: it is taken as it is.

    Raises:
        StudyError: it belongs to another task or teacher (each difference is named), is damaged, no ledger, or of
            another format; what stands in it is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # rows may be private
        # Another thread: the HTTP engine runs in one of its own where a loop runs already.
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StudyError(f"the ledger {path} cannot be opened: {error}") from error
    with closing(connection):
        try:
            _prepare(connection, path)
            if identity is not None:
                _check_identity(connection, path, identity)
            yield connection
        except sqlite3.OperationalError as error:
            reason = "the disk is full" if is_disk_full(error) or "full" in str(error) else str(error)
            raise StudyError(f"the ledger {path} cannot be used: {reason}", _KEPT) from error
        except sqlite3.DatabaseError as error:
            raise StudyError(f"the ledger {path} is damaged, or no ledger: {error}", _HINT) from error


_HINT = "Give another folder with --out, or move this one away."
_KEPT = "What was labelled so far is kept; run the same command again."


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Make what the block writes appear as a whole or not at all; other processes wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours before anything in it is changed; lay out a new one."""
    if _tables(connection):
        _check_format(connection, path)
    write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")  # a label that was paid for outlives a power cut, too
    with transaction(connection):
        if _tables(connection):  # another process was faster
            _check_format(connection, path)
            return
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _tables(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(count)


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise StudyError(f"{path} is another program's database", _HINT)
    if version != _FORMAT:
        raise StudyError(f"the ledger {path} has format {version}; this version reads format {_FORMAT}", _HINT)


def _check_identity(connection: sqlite3.Connection, path: Path, identity: Mapping[str, str]) -> None:
    with transaction(connection):
        kept = dict(connection.execute("SELECT name, value FROM identity"))
        if not kept:
            connection.executemany("INSERT INTO identity VALUES (?, ?)", identity.items())
            return
    others = [name for name in {**kept, **identity} if kept.get(name) != identity.get(name)]
    if others:
        differences = "; ".join(
            f"{name} was {_short(kept.get(name))}, is {_short(identity.get(name))}" for name in others
        )
        raise StudyError(f"the ledger {path} belongs to other work: {differences}", _HINT)


def _short(value: str | None) -> str:
    return "not set" if value is None else value if len(value) <= 60 else f"{value[:57]}..."
