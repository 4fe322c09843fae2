"""Arrays of a predictor folder, read as from a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskfit.errors import PredictorError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_numbers"]


def read_numbers(path: Path, shapes: Mapping[str, tuple[int | None, ...]], dtype: Any) -> dict[str, Any]:
    """Return the arrays of a safetensors file, of exactly these names and shapes.

    Args:
        path: the file.
        shapes: name to shape; None stands for any length.
        dtype: numpy's number format that all of them must have.

    Raises:
        PredictorError: the file is missing or damaged, or an array is missing, superfluous, of another shape or format,
            or holds NaN or infinity.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        numbers: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PredictorError(f"cannot read {path}: {error}") from error
    if numbers.keys() != shapes.keys():
        raise PredictorError(f"{path}: expected {', '.join(shapes)} (got {', '.join(numbers) or 'nothing'})")
    for name, shape in shapes.items():
        found = numbers[name]
        fits = len(found.shape) == len(shape) and all(
            wanted in (None, got) for wanted, got in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype != np.dtype(dtype):
            raise PredictorError(
                f"{path}: {name} must be {np.dtype(dtype)} of shape {shape} (got {found.dtype} {found.shape})"
            )
        if not np.isfinite(found).all():
            raise PredictorError(f"{path}: {name} holds NaN or infinity")
    return numbers
