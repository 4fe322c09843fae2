"""How to train: steps, learning rate, averages, validation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from taskfit.errors import ConfigError, Faults
from taskfit.tuning.schedule import Decay

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """How to train. All faults are reported together as one ConfigError."""

    steps: int
    """Optimiser steps."""
    learning_rate: float
    """Peak learning rate."""
    warmup_share: float = 0.06
    """Share of the steps over which the rate rises to its peak."""
    decay: Decay = "linear"
    """How the rate falls after the warm-up; "stable" keeps it and falls over the last ``decay_share``."""
    decay_share: float = 0.2
    """Share of the steps over which "stable" falls; the other decays ignore it."""
    weight_decay: float = 0.0
    """Decoupled weight decay on parameters of two or more dimensions; vectors (norms, biases) get none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging rates of gradient and squared gradient."""
    clip_norm: float = 1.0
    """Largest allowed norm of the whole gradient; longer ones are scaled down to it."""
    validate_every: int = 0
    """Steps between validations; the last step is validated too. 0: never."""
    patience: int = 0
    """Validations in a row without improvement before stopping. 0: never stops early."""
    checkpoint_every_s: float = 60.0
    """Wall seconds between checkpoints when a folder is given; the end is always saved."""
    seed: int = 0
    """Seeds dropout and whatever else draws from torch's generator."""

    def __post_init__(self) -> None:
        faults = Faults("training settings")
        if self.steps < 1:
            faults.add(f"steps must be at least 1 (got {self.steps})")
        for name in ("learning_rate", "clip_norm"):
            if not (0 < getattr(self, name) < math.inf):
                faults.add(f"{name} must be above 0 and finite (got {getattr(self, name)})")
        if not 0 <= self.warmup_share < 1:
            faults.add(f"warmup_share must be at least 0 and below 1 (got {self.warmup_share})")
        if not 0 < self.decay_share <= 1:
            faults.add(f"decay_share must be above 0 and at most 1 (got {self.decay_share})")
        if self.decay not in ("linear", "cosine", "constant", "stable"):
            faults.add(f"decay must be one of linear, cosine, constant, stable (got {self.decay!r})")
        if not all(0 <= beta < 1 for beta in self.betas):
            faults.add(f"betas must be at least 0 and below 1 (got {self.betas})")
        for name in ("weight_decay", "validate_every", "patience", "checkpoint_every_s", "seed"):
            if not (0 <= getattr(self, name) < math.inf):
                faults.add(f"{name} must be at least 0 and finite (got {getattr(self, name)})")
        if self.patience and not self.validate_every:
            faults.add(f"patience {self.patience} has no effect without validation; set validate_every as well")
        faults.raise_as(ConfigError)
