"""One training state on disk: a single safetensors file, replaced atomically.

Tensors go into the file's body, everything else as JSON into its header, so that the two can never belong to
different steps. Nothing is pickled. No random state is kept: the trainer seeds every step from (seed, step).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from taskfit.errors import StudyError

__all__ = ["CHECKPOINT_NAME", "TrainState", "check_same_run", "load_state", "save_state"]

CHECKPOINT_NAME = "checkpoint.safetensors"
"""File name of the newest state inside a training folder."""

T = TypeVar("T")

FORMAT = 1
"""Version of the file's layout."""


@dataclass(frozen=True)
class TrainState:
    """Everything that the next optimiser step depends on, and what the result will report."""

    step: int
    """Optimiser steps done."""
    run: Mapping[str, object]
    """What identifies the run (the config's fields and the caller's fingerprint); JSON values."""
    weights: Mapping[str, Tensor]
    """Trainable weights by parameter name."""
    optimizer: Mapping[str, Mapping[str, Tensor]]
    """Optimiser state by parameter name, then by the optimiser's own key."""
    best_weights: Mapping[str, Tensor]
    """Weights at the best validation; empty before the first."""
    best_step: int
    """Optimiser steps done at the best validation; 0 before the first."""
    best_validation: float | None
    """The best validation value; None before the first."""
    misses: int
    """Validations in a row without improvement."""
    stopped_early: bool
    """True once patience ran out: there is nothing left to train."""
    curve: tuple[tuple[float, float | None], ...]
    """(loss in nats per token, validation or None) of each step done."""


def save_state(folder: Path, state: TrainState) -> None:
    """Replace the folder's checkpoint with ``state``; a kill at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best_weights.items()}
    for name, values in state.optimizer.items():
        tensors |= {f"optimizer/{key}/{name}": tensor for key, tensor in values.items()}
    facts = {
        "format": FORMAT,
        "step": state.step,
        "run": dict(state.run),
        "best_step": state.best_step,
        "best_validation": state.best_validation,
        "misses": state.misses,
        "stopped_early": state.stopped_early,
        "curve": state.curve,
    }
    temporary = folder / f".{CHECKPOINT_NAME}.{os.getpid()}"
    # Copies: safetensors refuses tensors that share memory, and wants them contiguous on the CPU.
    body = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    save_file(body, temporary, metadata={"taskfit": json.dumps(facts, allow_nan=False)})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / CHECKPOINT_NAME)


def load_state(folder: Path) -> TrainState | None:
    """Read the folder's checkpoint; None when there is none.

    Raises:
        StudyError: the file is damaged or of another version.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    remedy = "Delete the file to start this training again from its beginning."
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = json.loads((file.metadata() or {})["taskfit"])
            # Clones: the file's own tensors are views of a mapping whose alignment is not ours to know.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        if facts["format"] != FORMAT:
            raise StudyError(f"{path} has format {facts['format']}; this version reads format {FORMAT}", remedy)
        return _state_from(facts, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not a readable training checkpoint ({error})", remedy) from error


def check_same_run(folder: Path, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        StudyError: naming every entry that differs, with both values.
    """
    wanted = json.loads(json.dumps(dict(wanted)))  # as a reader of the file would see it: tuples become lists
    differing = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    if differing:
        listed = "; ".join(f"{key} was {found.get(key)!r}, now {wanted.get(key)!r}" for key in differing)
        raise StudyError(
            f"{folder / CHECKPOINT_NAME} belongs to another training run: {listed}",
            "Use the settings of that run to go on with it, or another folder to start anew.",
        )


def _state_from(facts: dict[str, object], tensors: dict[str, Tensor]) -> TrainState:
    """Sort a file's header and tensors into a state."""
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}}
    optimizer: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        if group == "optimizer":
            entry, name = name.split("/", 1)
            optimizer.setdefault(name, {})[entry] = tensor
        else:
            groups[group][name] = tensor
    return TrainState(
        step=_checked(facts, "step", int),
        run=_checked(facts, "run", dict),
        weights=groups["weights"],
        optimizer=optimizer,
        best_weights=groups["best"],
        best_step=_checked(facts, "best_step", int),
        best_validation=None if facts["best_validation"] is None else _checked(facts, "best_validation", float),
        misses=_checked(facts, "misses", int),
        stopped_early=_checked(facts, "stopped_early", bool),
        curve=tuple((float(loss), value) for loss, value in _checked(facts, "curve", list)),
    )


def _checked(facts: dict[str, object], key: str, kind: type[T]) -> T:
    """The header's entry, which must have the type ``kind``."""
    value = facts[key]
    if not isinstance(value, kind):
        raise TypeError(f"{key} should be {kind.__name__}, is {type(value).__name__}")
    return value
