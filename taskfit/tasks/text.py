"""Plain text to learn a language from: documents of files that the user names, or the task's own text."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from taskfit.errors import DataError
from taskfit.files import named_path
from taskfit.tasks.load import rows_from, unlabelled_rows
from taskfit.tasks.sources import FileSource, source_files

if TYPE_CHECKING:
    from taskfit.tasks.task import Task

__all__ = ["TEXT_ENDINGS", "Document", "documents_of", "task_documents"]

TEXT_ENDINGS = (".txt", ".md", ".rst")
"""Files with these names are one document each; of all others (tables, JSON Lines) each row is one."""

_OPENERS: Mapping[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        place: file, or file and row, for messages.
        text: without white space around it; never empty.
    """

    place: str
    text: str

    @property
    def digest(self) -> str:
        """Hash of the text: the order of documents, and which are held out, follow it, not the order of files."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def documents_of(pattern: str, beside: Path | None, field: str) -> list[Document]:
    """Read the documents of a file or glob; a text that comes again is left out.

    Args:
        pattern: ``.txt``, ``.md`` and ``.rst`` are one document each; other files are read as rows. All may be
            compressed (``.gz``, ``.xz``, ``.bz2``).
        beside: the file that names the pattern, from whose folder it counts; None: the working directory.
        field: of rows, the one that holds the text.

    Raises:
        DataError: there is no such file or field, it holds something else than text, or all of it is empty.
    """
    where = named_path(pattern)
    where = where if beside is None else beside.parent / where
    files = source_files(FileSource(str(where)))
    found = _distinct(document for path in files for document in _read(path, field))
    if not found:
        raise DataError(f"{where}: no text in {len(files)} files")
    return found


def task_documents(task: Task) -> list[Document]:
    """Return the task's own text: the inputs of its training rows and of its rows without an answer.

    What stands in validation or test is left out.
    """
    held_out = {task.definition.input_text(row) for row in (*task.validation, *task.test)}
    rows = (row for part in (task.train, unlabelled_rows(task)) for row in part)
    texts = (Document(f"row {row.id}", task.definition.input_text(row)) for row in rows)
    return _distinct(document for document in texts if document.text not in held_out)


def _distinct(documents: Iterator[Document]) -> list[Document]:
    return list({document.text: document for document in documents if document.text}.values())


def _read(path: Path, field: str) -> Iterator[Document]:
    suffixes = path.suffixes[-2:]
    opener = _OPENERS.get(suffixes[-1]) if suffixes else None
    ending = suffixes[-1] if opener is None and suffixes else suffixes[0] if len(suffixes) == 2 else ""
    if ending in TEXT_ENDINGS:
        yield Document(str(path), _text(path, open if opener is None else opener))
        return
    for number, row in enumerate(rows_from(path), start=1):
        text = row.fields.get(field)
        if not isinstance(text, str):
            names = ", ".join(row.fields)
            raise DataError(
                f"{path}: row {number} has no text in the field {field!r} (it has {names})",
                "Name the field that holds the text with field=.",
            )
        yield Document(f"{path}:{number}", text.strip())


def _text(path: Path, opener: Callable[..., IO[Any]]) -> str:
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            return str(handle.read()).strip()
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
