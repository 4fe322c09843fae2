"""Predictor folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taskfit.errors import PredictorError, ResourceError

__all__ = ["is_disk_full", "new_folder", "write_file"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` to write into; it takes its name when the block ends well.

    Files are on the disk (fsync) before the folder has its name. After any failure nothing is left behind.

    Raises:
        PredictorError: ``folder`` exists and holds files, or cannot be written.
        ResourceError: the disk is full.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PredictorError(f"{folder} exists already", "give another folder, or move this one away")
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
        _sync(partial)
        partial.replace(folder)
        _sync_entry(folder.parent)
    except Exception as error:
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full: {folder} was not written", "free some space and run again"
            ) from error
        if isinstance(error, OSError):
            raise PredictorError(f"cannot write {folder}: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all, utf-8, replacing one that is there.

    Half of a surrogate pair, which utf-8 cannot hold, is written as its escape, as JSON writes it.

    Raises:
        ResourceError: the disk is full. PredictorError: the file cannot be written.
    """
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if is_disk_full(error):
            raise _full(path) from error
        raise PredictorError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _full(path: Path) -> ResourceError:
    return ResourceError(f"the disk is full: {path} was not written", "free some space and run again")


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


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync_entry(path)
    _sync_entry(folder)


def _sync_entry(path: Path) -> None:
    """Flush one file or folder to the disk; where the system cannot open a folder, its files were flushed."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
