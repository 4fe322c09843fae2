"""What the tuning methods share in their settings: checks, steps from epochs, learning rate from width."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from taskfit.errors import ConfigError, Faults
from taskfit.strategy.parameters import check_types
from taskfit.strategy.table import name_of

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = [
    "Paced",
    "RateRule",
    "Schedule",
    "learning_rate_for",
    "plan_schedule",
    "refuse_merging_into_packed",
    "refuse_quantised",
    "training_format",
    "weights_in_float32",
    "width_of",
]

PATIENCE = 3
"""Validations in a row without improvement before training stops."""

LEAST_STEPS = 60
"""Steps of the smallest sets, where nothing else is said."""

LABEL_SHOWS = 60
"""How often each label is shown at least, where nothing else is said: 500 rows of 77 labels got too few of them."""

LARGEST_RATIO = 4.0
"""Models are taken for no narrower than a quarter of 768, when a learning rate is chosen."""

RateRule = Literal["whole", "matrix", "vector", "fixed"]
"""How a learning rate follows the width of a model: as that of all weights, of matrices, of vectors, or not at all."""

VALIDATIONS = 5
"""Most validations of one training; fewer than two per epoch where an epoch is short."""


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to validate.

    Attributes:
        steps: optimiser steps.
        steps_per_epoch: steps that pass over the rows once.
        validate_every: steps between validations; 0: never.
        patience: validations in a row without improvement before stopping; 0: never.
    """

    steps: int
    steps_per_epoch: int
    validate_every: int
    patience: int


@dataclass(frozen=True)
class Paced:
    """The parameters that every training has, checked when they are set."""

    learning_rate: float | None = None
    """Peak learning rate; none: the method's own, where that depends on it for the width of the model."""
    epochs: int = 3
    """Passes over the training rows; Devlin et al. 2019 (appendix A.3) choose among 2, 3 and 4."""
    batch: int = 16
    """Rows of one optimiser step: 16 or 32 in Devlin et al. 2019 (appendix A.3)."""
    min_steps: int | None = None
    """Small sets are passed over more often, until this many steps; none: 60, or as many as show every label 60 times
    where the labels are many. Mosbach et al. 2021 (section 6) take 20 passes; 60 steps are what a comparison on two
    cores bears."""
    max_steps: int | None = None
    """Most steps, whatever the number of rows; none: as many as the epochs take."""

    def __post_init__(self) -> None:
        faults = Faults(name_of(type(self)))
        check_types(self, faults)
        if not faults.messages:
            self.check(faults)
            self._check_pace(faults)
        faults.raise_as(ConfigError)

    def check(self, faults: Faults) -> None:
        """Note every fault of the parameters that are the class's own; their types are right."""

    def _check_pace(self, faults: Faults) -> None:
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            faults.add(f"learning_rate must be above 0 and finite (got {self.learning_rate})")
        for name, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                faults.add(f"{name} must be at least 1 (got {value})")
        if self.min_steps is not None and self.min_steps < 0:
            faults.add(f"min_steps must be at least 0 (got {self.min_steps})")
        if self.max_steps is not None and self.max_steps < 1:
            faults.add(f"max_steps must be at least 1 (got {self.max_steps})")

    def steps(self, rows: int, labels: int) -> int:
        """Return the optimiser steps that training on so many rows takes, if it is not stopped early.

        Args:
            rows: of training.
            labels: that the task has; 0 where it has none.
        """
        least = self.min_steps
        if least is None:
            least = max(LEAST_STEPS, math.ceil(labels * LABEL_SHOWS / self.batch))
        wanted = max(self.epochs * math.ceil(rows / self.batch), least)
        return wanted if self.max_steps is None else min(wanted, self.max_steps)


def plan_schedule(rows: int, labels: int, pace: Paced, *, is_validated: bool) -> Schedule:
    """Return the steps of ``epochs`` passes, or ``min_steps`` where that is more, and when to validate.

    Small sets are passed over more often: a fixed number of epochs leaves them with too few updates to learn
    anything (Mosbach et al. 2021, section 6; Zhang et al. 2021, section 6).
    """
    steps_per_epoch = math.ceil(rows / pace.batch)
    steps = pace.steps(rows, labels)
    if not is_validated:
        return Schedule(steps, steps_per_epoch, 0, 0)
    validate_every = max(math.ceil(steps_per_epoch / 2), math.ceil(steps / VALIDATIONS))
    return Schedule(steps, steps_per_epoch, validate_every, PATIENCE)


def learning_rate_for(width: int, *, at_768: float, rule: RateRule = "matrix") -> float:
    """Scale a learning rate that suits models of width 768 to another width.

    Matrices, wider models: inversely proportional. The rule is that of Adam for hidden weights in Yang et al. 2022
    ("Tensor Programs V", table 3); it meets the usual 1e-5 of 4096-wide models from the usual 5e-5 of BERT-base.

    Matrices, narrower models: inversely proportional to the square. They are weakly pre-trained, too, and have further
    to go: with the other rule the embedded model (192 wide) stopped half-way on 77 labels (``LOG.md``, 2026-11-21).

    All weights, narrower models: inversely proportional to the power of 2.5. Twice the rate of the square is better
    for models 192 and 256 wide on each of four sets, three times is not (``LOG.md``, 2026-11-22).

    Vectors: the same in wider models, inversely proportional in narrower ones (``LOG.md``, 2026-11-21). Nothing
    narrower than 192 has been tried; it gets the same rate.
    """
    ratio = min(768 / width, LARGEST_RATIO)
    if rule == "fixed":
        return at_768
    if rule == "vector":
        return at_768 * max(1.0, ratio)
    return at_768 * (ratio if ratio <= 1 else ratio ** (2.5 if rule == "whole" else 2.0))


def width_of(model: LanguageModel) -> int:
    """Return the number of values that represent one token between layers."""
    config = getattr(model.module, "config", None)
    for name in ("hidden_size", "d_model", "n_embd"):
        width = getattr(config, name, None)
        if isinstance(width, int):
            return width
    raise ConfigError(
        f"the width of {model.name} is not known from its configuration, so no learning rate can be chosen",
        "Name one: learning_rate=0.0001",
    )


def training_format(model: LanguageModel) -> torch.dtype | None:
    """Return the number format that the forward pass is computed in while training; None: that of the weights.

    Training computes in the format in which the model was loaded, as predicting will: ``dtype="auto"`` loads
    bfloat16 where that pays on this machine.

    Raises:
        ConfigError: the model is in float16, whose range gradients leave.
    """
    import torch

    if model.dtype == torch.bfloat16:
        return torch.bfloat16
    if model.dtype in (torch.float32, torch.float64):
        return None
    raise ConfigError(
        f"tuning needs a model in float32 or bfloat16 (got {str(model.dtype).removeprefix('torch.')})",
        'Load it with dtype="float32" or dtype="bfloat16".',
    )


@contextmanager
def weights_in_float32(module: torch.nn.Module) -> Iterator[None]:
    """Make all weights trainable in float32, and afterwards frozen in the format each had before.

    Buffers keep theirs: rotary frequencies, which transformers holds in float32, would be spoiled by rounding.

    Raises:
        ConfigError: the weights are quantised; no gradient can move them.
    """
    refuse_quantised(module)
    formats = {name: parameter.dtype for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(formats[name])
        module.eval()


def refuse_quantised(module: torch.nn.Module) -> None:
    """Check that every weight is a number that a gradient can move.

    Raises:
        ConfigError: some are packed into fewer bits.
    """
    if packed := _packed(module):
        raise ConfigError(
            f"the model is quantised ({len(packed)} of its weights, first {packed[0]}), so they cannot be trained",
            "Load it in float32 or bfloat16, or use qlora, which trains updates beside quantised weights.",
        )


def refuse_merging_into_packed(module: torch.nn.Module) -> None:
    """Check that updates can be folded into the weights without changing what was evaluated.

    Raises:
        ConfigError: weights are packed into fewer bits. The sum would be packed anew, and predict something else than
            was evaluated; on the unpacked base, the updates have never been evaluated either.
    """
    if _packed(module):
        raise ConfigError(
            "updates of a quantised base cannot be merged: the merged model would predict otherwise than was evaluated",
            "Keep base and updates apart, or fit lora on the base as it is.",
        )


def _packed(module: torch.nn.Module) -> list[str]:
    """Names of the weights that are packed into fewer bits."""
    return [name for name, value in module.named_parameters() if not value.is_floating_point()]
