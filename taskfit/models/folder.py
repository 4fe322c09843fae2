"""What is checked in a model folder before anything in it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from taskfit.errors import Faults, ModelError

__all__ = ["check_folder", "read_json", "tokenizer_files", "weight_files"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "*.model",
)
_VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}
_CONVERT = (
    "Pickle files can run code when they are read. Convert them once on a machine you trust: load the model there with "
    "transformers and call save_pretrained(folder), which writes model.safetensors."
)


def read_json(path: Path) -> dict[str, object]:
    """Return the object in a JSON file, or an empty one when there is no such file.

    Raises:
        ModelError: the file is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object (got a {type(value).__name__})")
    return value


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder, and the index of their shards, sorted by name."""
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")])


def tokenizer_files(folder: Path) -> list[Path]:
    """Return every file that decides how text becomes tokens, chat templates included, sorted by name."""
    return sorted({path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()})


def _asking_for_code(folder: Path) -> list[str]:
    return [name for name in ("config.json", "tokenizer_config.json") if "auto_map" in read_json(folder / name)]


def check_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Check that a folder holds a model that can be loaded without running anything from it.

    Raises:
        ModelError: all faults together: no config.json, no tokenizer, no weights, weights only as pickle, code of its
            own that was not asked for, an adapter in place of a model.
    """
    faults = Faults(f"model folder {folder}")
    hint = _check_weights(folder, faults)
    if not (folder / "config.json").is_file():
        faults.add("config.json is missing: it says what kind of model this is")
    if not any(path.is_file() for pattern in _VOCABULARY_FILES for path in folder.glob(pattern)):
        faults.add(f"no tokenizer: none of {', '.join(_VOCABULARY_FILES)} is there")
    if (folder / "adapter_config.json").is_file():
        faults.add("adapter_config.json makes this an adapter; load the base model's folder, or the predictor's")
    for name in () if trust_remote_code else _asking_for_code(folder):
        faults.add(f"{name} asks to run the folder's own code (auto_map); read that code, then trust_remote_code")
    faults.raise_as(ModelError, hint)


def _check_weights(folder: Path, faults: Faults) -> str | None:
    """Note missing weights; return a hint when they are there, but as pickle."""
    if any(path.suffix == ".safetensors" for path in weight_files(folder)):
        return None
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if pickles:
        faults.add(f"weights only as pickle ({', '.join(pickles)}); safetensors are needed")
        return _CONVERT
    faults.add("no weights: no *.safetensors file is there")
    return None
