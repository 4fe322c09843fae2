"""Tuned models as ordinary model folders: configuration, safetensors weights, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import Faults, ModelError, PredictorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["are_numbers", "copy_tensors", "load_model_folder", "read_tensors", "save_model_folder"]


def save_model_folder(model: LanguageModel, folder: Path) -> None:
    """Write weights as safetensors, configuration and tokenizer into an existing folder."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.module.save_pretrained(folder)  # type: ignore[operator]
        model.tokenizer.save_pretrained(folder)
    finally:
        if had_bars:
            logging.enable_progress_bar()


def load_model_folder(folder: Path, *, device: str = "auto") -> LanguageModel:
    """Load a model from a predictor folder, in the number format in which it was saved: another predicts otherwise.

    Raises:
        PredictorError: the folder holds no complete model.
    """
    from taskfit.models.load import open_folder

    try:
        return open_folder(folder, dtype=_saved_format(folder / "config.json"), device=device)
    except ModelError as error:
        raise PredictorError(f"{folder} holds no complete model: {error.message}", error.hint) from error


def copy_tensors(path: Path, into: Mapping[str, torch.Tensor]) -> None:
    """Read a safetensors file into tensors of the same names and shapes, nothing left over on either side.

    Raises:
        PredictorError: the file cannot be read, or tensors are missing, superfluous, of another shape or not finite;
            all faults together.
    """
    import torch

    values = read_tensors(path)
    faults = Faults(str(path))
    for word, names in (("missing", into.keys() - values.keys()), ("superfluous", values.keys() - into.keys())):
        if names:
            faults.add(f"{len(names)} weights are {word}, first {min(names)}")
    for name in sorted(into.keys() & values.keys()):
        if into[name].shape != values[name].shape:
            faults.add(f"{name} must have shape {tuple(into[name].shape)} (got {tuple(values[name].shape)})")
        elif not are_numbers(values[name]):
            faults.add(f"{name} holds values that are not finite, or in no number format of weights")
    faults.raise_as(PredictorError)
    with torch.no_grad():
        for name, value in values.items():
            into[name].copy_(value)


def are_numbers(values: torch.Tensor) -> bool:
    """Return whether values are finite and in a number format that weights are saved in."""
    import torch

    formats = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    return values.dtype in formats and bool(torch.isfinite(values).all())


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, unchecked.

    Raises:
        PredictorError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PredictorError(f"{path} cannot be read as weights ({error})") from error
    return found


def _saved_format(path: Path) -> str:
    """The number format named in a model's configuration."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        name = config.get("dtype")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise PredictorError(f"{path} cannot be read as a model's configuration ({error})") from error
    if name not in ("float32", "bfloat16"):
        raise PredictorError(f"{path}: dtype must be float32 or bfloat16, as tuning leaves it (got {name!r})")
    return str(name)
