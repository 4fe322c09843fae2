"""Predictor folders appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskfit.errors import PredictorError, ResourceError
from taskfit.files import appearing, is_disk_full, write_text

__all__ = ["new_folder", "write_file"]


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` to write into; it takes its name when the block ends well.

    Raises:
        PredictorError: ``folder`` exists and holds files, or cannot be written.
        ResourceError: the disk is full.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PredictorError(f"{folder} exists already", "give another folder, or move this one away")
    with _named_errors(folder), appearing(folder) as partial:
        partial.mkdir()
        yield partial
        _let_read(partial)


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all, utf-8, replacing one that is there.

    Raises:
        ResourceError: the disk is full. PredictorError: the file cannot be written.
    """
    with _named_errors(path):
        write_text(path, text)


def _let_read(folder: Path) -> None:
    """Let files be read by whom the folder lets in: safetensors writes them for the owner alone."""
    allowed = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode | allowed)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise ResourceError(f"the disk is full: {path} was not written", "free some space and run again") from error
        if isinstance(error, OSError):
            raise PredictorError(f"cannot write {path}: {error.strerror or error}") from error
        raise
