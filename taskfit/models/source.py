"""Where a model's files are: a folder, a known name, or a name on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from taskfit.errors import ModelError, nearest
from taskfit.models.table import KNOWN_MODELS, known_folder

__all__ = ["find_folder"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_ANSWER_TIME_S = 5.0


def find_folder(name_or_folder: str | Path, *, revision: str | None = None, with_code: bool = False) -> Path:
    """Return the folder that holds a model's files, downloading it from the hub when it is nowhere else.

    A known name comes first, then an existing folder, then the hub. Only weights as safetensors and text files are
    downloaded. ``HF_HUB_OFFLINE=1`` keeps to what was downloaded before.

    Args:
        name_or_folder: ``taskfit-tiny``, ``minilm``, a path, or a hub name such as ``owner/name``.
        revision: branch, tag or commit on the hub; hub names only.
        with_code: download Python files too (for models that bring their own code).

    Raises:
        ModelError: there is no such folder, or the hub cannot be reached or does not have it.
        MissingExtraError: a known name's package is not installed.
    """
    name = str(name_or_folder)
    known = known_folder(name) if isinstance(name_or_folder, str) else None
    folder = known or _as_folder(name)
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"revision is for hub names only (got {revision!r} for the folder {folder})")
        return folder
    if folder.exists():
        raise ModelError(f"a model is a folder with config.json, tokenizer files and weights; {folder} is a file")
    if isinstance(name_or_folder, Path) or not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"there is no model folder {folder}", "Give an existing folder, or a hub name like owner/name."
        )
    return _download(name, revision, with_code)


def _as_folder(name: str) -> Path:
    """Return the path that a name is; whether something is there can be asked without an error."""
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{name[:80]!r} cannot be a model's name or folder: {reason}") from None
    return folder


def _download(name: str, revision: str | None, with_code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_HUB_FILES, "*.py"] if with_code else _HUB_FILES
    hint = "Without a network, give a folder that holds the model, or a model in the package: " + ", ".join(
        KNOWN_MODELS
    )
    known = f"{nearest(name, KNOWN_MODELS)}; it is no folder and no known name either"
    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=patterns,
            etag_timeout=_ANSWER_TIME_S,
            local_files_only=_is_offline(),
        )
    except LocalEntryNotFoundError:
        reason = "HF_HUB_OFFLINE is set and it was not downloaded before" if _is_offline() else "it cannot be reached"
        raise ModelError(f"model {name!r} did not come from the hub: {reason}{known}", hint) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model {name!r} did not come from the hub: {first_line}{known}", hint) from None
    return Path(found)


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
