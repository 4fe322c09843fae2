"""The fingerprint of a model folder: what it was, when names and folders have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from taskfit.models.folder import tokenizer_files, weight_files

__all__ = ["fingerprint"]

_CHUNK_BYTES = 1 << 22
_digests: dict[tuple[Path, int, int], bytes] = {}  # this process only: a file's time can lie between machines


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 over names and contents of configuration, weights and tokenizer files, in hexadecimal.

    Python files count where the folder asks to run its own code. Other files (readme, examples) do not. Contents are
    read once per process and file state (path, size, modification time).
    """
    configurations = [path for path in (folder / "config.json", folder / "generation_config.json") if path.is_file()]
    total = hashlib.sha256()
    own_code = [*folder.rglob("*.py")] if _names_own_code(folder) else []
    for path in sorted({*configurations, *weight_files(folder), *tokenizer_files(folder), *own_code}):
        name = path.relative_to(folder).as_posix().encode()
        total.update(len(name).to_bytes(8, "big") + name + _digest(path))
    return total.hexdigest()


def _names_own_code(folder: Path) -> bool:
    """Tell whether a configuration names Python code of its folder; one that is no JSON has a fingerprint, too."""
    configurations = [path for path in (folder / "config.json", folder / "tokenizer_config.json") if path.is_file()]
    return any(b'"auto_map"' in path.read_bytes() for path in configurations)


def _digest(path: Path) -> bytes:
    state = path.stat()
    key = (path.resolve(), state.st_size, state.st_mtime_ns)
    if key not in _digests:
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                content.update(chunk)
        _digests[key] = content.digest()
    return _digests[key]
