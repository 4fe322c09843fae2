"""Files of a study on disk: whole or not at all, one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit import files
from taskfit.errors import ResourceError, StudyError
from taskfit.files import appearing, is_disk_full

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = [
    "disk_full_named",
    "folder_bytes",
    "locked",
    "read_json",
    "staged",
    "write_bytes",
    "write_json",
    "write_text",
]


_DYING_S = 5.0
"""Seconds that the lock of a process that is gone is waited for."""


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files under ``folder``; 0 when it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        ResourceError: the disk is full; the old file, if any, is untouched.
    """
    with disk_full_named(path.parent, bytes_expected=len(payload)):
        files.write_bytes(path, payload)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all.

    Raises:
        ResourceError: the disk is full; the old file, if any, is untouched.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, values: Mapping[str, Value]) -> None:
    """Write a JSON file whole or not at all; NaN and infinity are refused.

    Raises:
        ResourceError: the disk is full.
    """
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Value]:
    """Read a JSON object.

    Raises:
        StudyError: the file is missing, broken, or holds something else than an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise StudyError(f"{path} must hold a JSON object (got {type(values).__name__})")
    return values


@contextmanager
def staged(target: Path, bytes_expected: int = 0) -> Iterator[Path]:
    """Give a temporary sibling of ``target`` to fill; it takes the target's name only when the block ends well.

    An older ``target`` is replaced. When the process dies half-way, the target is not there (or still the old one)
    and the temporary folder is swept away by :func:`taskfit.files.remove_unfinished`.

    Args:
        target: the folder to appear.
        bytes_expected: what the block is going to write, for the message when the disk is full.

    Raises:
        ResourceError: the disk is full; nothing is left behind.
    """
    needed = bytes_expected
    try:
        with appearing(target) as staging:
            staging.mkdir()
            try:
                yield staging
            finally:
                needed += folder_bytes(staging)
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, ResourceError):
            raise _disk_full(target, needed) from error
        raise


@contextmanager
def disk_full_named(target: Path, written: Path | None = None, bytes_expected: int = 0) -> Iterator[None]:
    """Turn whatever says that the disk is full into one error that names the folder and the bytes.

    Args:
        target: the folder that the user knows.
        written: where the bytes went so far, if anywhere; they count as needed.
        bytes_expected: what was still to be written.

    Raises:
        ResourceError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, ResourceError):
            raise _disk_full(target, bytes_expected + (0 if written is None else folder_bytes(written))) from error
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two processes never work on one study. The lock dies with its process.

    A process that was killed while it started another leaves its lock in that one's hands for a moment; so a lock whose
    owner is gone is waited for, some seconds.

    Raises:
        StudyError: another process holds the lock.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "study.lock").open("a+", encoding="utf-8") as handle:
        deadline = time.monotonic() + _DYING_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                handle.seek(0)
                owner = handle.read(32).strip() or "unknown"
                if _lives(owner) or time.monotonic() > deadline:
                    raise StudyError(
                        f"{folder} is being worked on by another process (process id {owner})",
                        "wait until it ends, or give another folder with --out",
                    ) from None
                time.sleep(0.02)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _lives(owner: str) -> bool:
    """Tell whether a process of this number, read from a file, is there."""
    try:
        os.kill(int(owner), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _disk_full(folder: Path, bytes_needed: int) -> ResourceError:
    free = shutil.disk_usage(_existing(folder)).free
    return ResourceError(
        f"the disk is full: {folder} needs {bytes_needed:,} bytes or more and {free:,} bytes are free",
        "free some space, or give a folder on another disk with --out; then run the same command again",
    )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
