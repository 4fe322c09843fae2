"""Files and folders that appear whole or not at all, and databases that survive a kill."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "appearing",
    "escaped",
    "is_disk_full",
    "named_path",
    "remove_unfinished",
    "write_ahead",
    "write_bytes",
    "write_text",
]

_PREFIX = ".unfinished-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give an unused path beside ``path`` for a file or folder; it becomes ``path`` when the block ends well.

    Everything is on the disk (fsync) before it has its name. After any failure nothing is left behind, and what stood
    there before is untouched; what a killed process leaves is found by :func:`remove_unfinished`. An older file or
    folder of the name is replaced.

    Raises:
        OSError: it cannot be written; :func:`is_disk_full` tells one reason from the others.
    """
    partial = path.with_name(f"{_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for entry in (*partial.rglob("*"), partial):
            _sync_entry(entry)
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
        _sync_entry(path.parent)
    finally:
        _remove(partial)


def named_path(name: str) -> Path:
    """Return a path as a user writes it, ``~`` being the home folder; that of an unknown user is a path like others."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def write_text(path: Path, text: str) -> None:
    """Write a file in utf-8, whole or not at all.

    Half of a surrogate pair is written as its escape; see :func:`escaped`.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(path, escaped(text).encode())


def escaped(text: str) -> str:
    """Return the text with halves of surrogate pairs, which utf-8 cannot hold, as their escapes, as JSON writes them.

    A service's answer, a key of broken JSON and the name of a file can hold them.
    """
    return text.encode("utf-8", errors="backslashreplace").decode()


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with appearing(path) as partial:
        partial.write_bytes(payload)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``. Call it only where no other process writes."""
    for path in folder.glob(f"{_PREFIX}*"):
        _remove(path)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or the one behind it, says that no space is left.

    Libraries that write weights wrap the system's error into their own, with its number in the text alone.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    text = str(error).lower()
    if any(f"os error {number}" in text for number in _FULL) or "no space left" in text:
        return True
    behind = error.__cause__ or error.__context__
    return behind is not None and is_disk_full(behind)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _sync_entry(path: Path) -> None:
    """Flush one file or folder to the disk; where the system cannot open a folder, its files were flushed."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; of processes that do so at one moment, SQLite lets the others fail at once.

    Raises:
        sqlite3.OperationalError: they go on doing so for five seconds.
    """
    import sqlite3

    for _ in range(100):
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
            return
        time.sleep(0.05)
    connection.execute("PRAGMA journal_mode = WAL")
