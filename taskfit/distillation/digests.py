"""What labels depend on, as digests: rows, folders, models that a strategy names itself."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from taskfit.tasks import rows_from
from taskfit.tasks.sources import FileSource, source_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskfit.tasks.sources import Source

__all__ = ["folder_digest", "model_digest", "rows_digest"]

_READ_BYTES = 2**20


def rows_digest(sources: Sequence[Source]) -> str:
    """Return a digest of the files with rows; of a hub's data set, of its name and revision.

    Raises:
        DataError: a file is missing.
    """
    digest = sha256()
    for source in sources:
        if not isinstance(source, FileSource):
            digest.update(repr(source).encode())
            continue
        for path in source_files(source):
            if not path.is_file():
                next(rows_from(path))  # says that it is missing
            with path.open("rb") as file:
                while part := file.read(_READ_BYTES):
                    digest.update(part)
    return digest.hexdigest()[:32]


def folder_digest(folder: Path) -> str:
    """Return a digest of names and contents of all files of a folder."""
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
    return digest.hexdigest()


def model_digest(name: str) -> str:
    """Return the fingerprint of a model that is named, without loading it.

    Raises:
        ModelError: there is no such model. MissingExtraError: its package is not installed.
    """
    from taskfit.models.fingerprint import fingerprint
    from taskfit.models.service import is_service_name, read_service_name
    from taskfit.models.source import find_folder

    return read_service_name(name).fingerprint if is_service_name(name) else fingerprint(find_folder(name))
