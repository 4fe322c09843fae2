"""A training run: the module, its optimiser and the state they have reached, on disk and off."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from taskfit.errors import TrainingError
from taskfit.tuning.checkpoint import TrainState, check_same_run, load_state, save_state
from taskfit.tuning.ranks import Ranks, join_ranks
from taskfit.tuning.schedule import rate_share
from taskfit.tuning.sharding import Shards, part_of, whole
from taskfit.tuning.train_config import TrainConfig

__all__ = ["CurvePoint", "Progress", "TrainResult", "TrainRun"]

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """What a caller is told after each optimiser step."""

    step: int
    """Optimiser steps done, this one included."""
    steps: int
    """Optimiser steps planned."""
    loss: float
    """Training loss of this step, nats per supervised token."""
    learning_rate: float
    """Learning rate this step used."""
    gradient_norm: float
    """Norm of the gradient before clipping."""
    tokens_per_s: float
    """Supervised tokens per wall second, this call of ``train`` so far."""
    left_s: float
    """Estimated wall seconds left at the mean speed of this call."""
    validation: float | None
    """Validation value after this step; None when this step was not validated."""


@dataclass(frozen=True)
class CurvePoint:
    """One optimiser step of a training curve."""

    step: int
    """Optimiser steps done, this one included."""
    loss: float
    """Training loss, nats per supervised token."""
    validation: float | None
    """Validation value after this step; None when this step was not validated."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished training reports; the module itself holds the weights."""

    steps_done: int
    """Optimiser steps done, those before a resume included."""
    best_step: int
    """Steps done at the weights the module was left with: the best validation, or the end without validation."""
    best_validation: float | None
    """Validation value of those weights; None without validation."""
    stopped_early: bool
    """True when patience ran out before the planned steps."""
    curve: tuple[CurvePoint, ...]
    """Every step, in order."""


class TrainRun:
    """The module, its optimiser and the state they have reached."""

    def __init__(
        self,
        module: torch.nn.Module,
        config: TrainConfig,
        fingerprint: str | Mapping[str, str],
        folder: Path | None,
    ) -> None:
        self.module = module
        self.config = config
        self.folder = folder
        found = _trainable(module)
        self.ranks: Ranks = join_ranks(next(iter(found.values())).device)
        shapes = {name: list(parameter.shape) for name, parameter in found.items()}
        self.shards = Shards(module) if self.ranks.shards else None
        self.parameters = _trainable(module)  # in parts, if they are
        self.optimizer = _adamw(self.parameters, config)
        settings = {key: value for key, value in asdict(config).items() if key != "checkpoint_every_s"}
        trainable = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()
        parts = {"fingerprint": fingerprint} if isinstance(fingerprint, str) else dict(fingerprint)
        # Another torch rounds differently somewhere, so the rest of the run would not be the same one's.
        identity: dict[str, object] = {
            **settings,
            **parts,
            "trainable_parameters": trainable,
            "torch": str(torch.__version__),
        }
        identity |= {"processes": self.ranks.count, "sharded": self.ranks.shards}
        self.state = TrainState(0, identity, {}, {}, {}, 0, None, 0, False, ())
        saved = load_state(folder) if folder is not None else None
        if saved is not None and folder is not None:
            check_same_run(folder, saved.run, identity)
            self._restore(saved)
        self.saved_at = time.monotonic()

    @property
    def is_done(self) -> bool:
        """True when no step is left: all are done, or patience ran out."""
        return self.state.step >= self.config.steps or self.state.stopped_early

    @property
    def is_validated_next(self) -> bool:
        """True when the weights after the present step are to be validated."""
        step = self.state.step + 1
        return step % self.config.validate_every == 0 or step == self.config.steps

    def learning_rate(self, step: int) -> float:
        """The rate that optimiser step ``step`` uses."""
        config = self.config
        return config.learning_rate * rate_share(
            step,
            config.steps,
            warmup_share=config.warmup_share,
            decay=config.decay,
            decay_share=config.decay_share,
        )

    def progress(self, norm: float, tokens_done: int, first_step: int, wall_s: float) -> Progress:
        """What to tell the caller about the step just done.

        Args:
            norm: of its gradient.
            tokens_done: supervised tokens since ``first_step``.
            first_step: steps that were done when this call began.
            wall_s: seconds since then.
        """
        step, steps = self.state.step, self.config.steps
        loss, validation = self.state.curve[-1]
        left_s = wall_s / (step - first_step) * (steps - step)
        rate = self.learning_rate(step - 1)
        return Progress(step, steps, loss, rate, norm, tokens_done / max(wall_s, 1e-9), left_s, validation)

    def note(self, loss: float, validation: float | None) -> None:
        """Count the step just done and judge its validation."""
        state = replace(self.state, step=self.state.step + 1, curve=(*self.state.curve, (loss, validation)))
        if validation is not None and (state.best_validation is None or validation < state.best_validation):
            weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
            state = replace(state, best_weights=weights, best_step=state.step, best_validation=validation, misses=0)
        elif validation is not None:
            state = replace(state, misses=state.misses + 1)
        has_lost_patience = 0 < self.config.patience <= state.misses
        self.state = replace(state, stopped_early=has_lost_patience and state.step < self.config.steps)

    def compute(self, function: Callable[[], T]) -> T:
        """Return what a function computes with the module, whose weights may lie in parts."""
        return function() if self.shards is None else self.shards.compute(function)

    def save(self) -> None:
        """Write the state with the current weights and optimiser values, if there is a folder; one process does.

        Where weights are sharded, all processes must call it.
        """
        if self.folder is None or (self.ranks.rank and self.shards is None):
            return
        optimizer = {
            name: {key: whole(value) for key, value in self.optimizer.state[parameter].items()}
            for name, parameter in self.parameters.items()
        }
        weights = {name: whole(parameter.detach()) for name, parameter in self.parameters.items()}
        best = {name: whole(value) for name, value in self.state.best_weights.items()}
        if self.ranks.rank == 0:
            save_state(self.folder, replace(self.state, weights=weights, optimizer=optimizer, best_weights=best))
        self.saved_at = time.monotonic()

    def save_when_due(self) -> None:
        """Save when the last checkpoint is old enough, by the first process's clock."""
        is_due = time.monotonic() - self.saved_at >= self.config.checkpoint_every_s
        if self.shards is not None:
            is_due = self.ranks.add(is_due and self.ranks.rank == 0)[0] > 0
        if is_due:
            self.save()

    def stop(self) -> None:
        """Save because the caller stops; not where others would have to take part, and know nothing of it."""
        if self.shards is None:
            self.save()

    def finish(self) -> TrainResult:
        """Leave the module at its best weights and report."""
        state = self.state
        if state.best_weights:
            _copy_into(self.parameters, state.best_weights)
        if self.shards is not None:
            self.shards.gather()
        curve = tuple(CurvePoint(step, *point) for step, point in enumerate(state.curve, start=1))
        best_step = state.best_step if state.best_weights else state.step
        return TrainResult(state.step, best_step, state.best_validation, state.stopped_early, curve)

    def _restore(self, found: TrainState) -> None:
        _copy_into(self.parameters, self._parts(found.weights))
        for name, values in found.optimizer.items():
            parameter = self.parameters[name]
            self.optimizer.state[parameter] = {
                key: part_of(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
                for key, value in values.items()
            }
        self.state = replace(found, weights={}, optimizer={}, best_weights=self._parts(found.best_weights))

    def _parts(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values as the parameters of the same names lie on this process."""
        return {name: part_of(value, self.parameters[name]) for name, value in values.items()}


def _trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters that require gradients, by name; tied ones once."""
    found = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not found:
        raise TrainingError("no parameter of the model requires gradients; there is nothing to train")
    for name, parameter in found.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise TrainingError(
                f"trainable parameter {name} is {parameter.dtype}; updates would be lost to rounding",
                "Keep trainable weights in float32 and pass autocast=torch.bfloat16 for speed.",
            )
    return found


def _adamw(parameters: dict[str, torch.nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) with weight decay on matrices only."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, fused=True
    )


def _copy_into(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrite the parameters with the values of the same names."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
