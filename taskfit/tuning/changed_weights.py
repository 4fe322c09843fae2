"""The file of methods that no other library has a format for: the changed tensors, and a JSON header that says whose.

``changed_weights.safetensors`` holds the tensors by name. Its header's entry ``taskfit`` is JSON: ``format``, the
method's name, and what the method must find again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import PredictorError

if TYPE_CHECKING:
    import torch

__all__ = ["CHANGED_WEIGHTS_FILE", "check_header", "save_changed"]

CHANGED_WEIGHTS_FILE = "changed_weights.safetensors"
FORMAT = 1


def save_changed(folder: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, object]) -> None:
    """Write the tensors with their header into an existing folder."""
    from safetensors.torch import save_file

    body = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    header = json.dumps({"format": FORMAT, **facts}, allow_nan=False)
    save_file(body, folder / CHANGED_WEIGHTS_FILE, metadata={"taskfit": header})


def check_header(path: Path, facts: Mapping[str, object]) -> None:
    """Check that a file's header says what the method's parameters give.

    Raises:
        PredictorError: the file cannot be read, or its header says otherwise.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {})["taskfit"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise PredictorError(f"{path} cannot be read as changed weights ({error!r})") from error
    expected = {"format": FORMAT, **facts}
    if found != expected:
        raise PredictorError(f"{path} must say {expected} in its header (got {found})", "Its strategy is another one.")
