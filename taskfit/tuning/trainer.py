"""The training loop. It does not know which method it trains: that is the module's and the loss function's affair.

One step: micro-batches → summed losses → gradient of the mean over the step's supervised tokens → clip → AdamW.
Every step draws its randomness from (seed, step) alone and its batches from ``batches_at(step)``, so a run that was
killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taskfit.errors import ConfigError, Faults, TrainingError
from taskfit.tuning.checkpoint import TrainState, check_same_run, load_state, save_state
from taskfit.tuning.ranks import Ranks, join_ranks
from taskfit.tuning.schedule import Decay, rate_share

__all__ = [
    "AfterStep",
    "Batch",
    "BatchesAt",
    "CurvePoint",
    "LossSum",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "train",
]

Batch = Any
"""One micro-batch; only ``batches_at`` and ``loss_sum`` know what it is (mostly a dict of tensors)."""

BatchesAt = Callable[[int], Sequence[Batch]]
"""The micro-batches of optimiser step i (from 0). A pure function of the step, so that resuming needs no state."""

LossSum = Callable[[torch.nn.Module, Batch], tuple[Tensor, int]]
"""(loss summed over the supervised tokens, in nats; number of supervised tokens) of one micro-batch."""

NameBatch = Callable[[int, int], str]
"""What a step's micro-batch holds, in words, for errors; takes the step and the micro-batch, both from 0."""

DIVERGED_NATS = 3.0
"""Rise of the loss, mean of ``DIVERGED_STEPS`` steps against that of the first ones, at which training has diverged."""

DIVERGED_STEPS = 10

AfterStep = Callable[[torch.optim.Optimizer, int, int], None]
"""Takes the optimiser, the optimiser steps done and those planned. A method whose weights follow a schedule of their
own (AdaLoRA) changes them here, after the update and before the gradients are dropped."""


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


def train(
    module: torch.nn.Module,
    batches_at: BatchesAt,
    loss_sum: LossSum,
    config: TrainConfig,
    *,
    validate: Callable[[], float] | None = None,
    folder: Path | None = None,
    fingerprint: str | Mapping[str, str] = "",
    on_progress: Callable[[Progress], None] | None = None,
    autocast: torch.dtype | None = None,
    after_step: AfterStep | None = None,
    name_batch: NameBatch | None = None,
) -> TrainResult:
    """Train the parameters of ``module`` that require gradients, in place.

    Args:
        module: trained in place; its trainable parameters must be float32 (or float64), frozen ones as they like.
        batches_at: the micro-batches of a step; a pure function of the step.
        loss_sum: summed loss and supervised tokens of one micro-batch; micro-batches add up to one exact gradient.
        config: how to train.
        validate: called every ``config.validate_every`` steps in evaluation mode without gradients; lower is
            better. The module ends with the weights of the best value.
        folder: where to keep a checkpoint, and to resume from one of the same run.
        fingerprint: what else identifies the run, in one word or by its parts (data, model, method); a checkpoint
            of another one is refused, and the parts that differ are named.
        on_progress: called after each step; what it raises ends the training, with the state saved before.
        autocast: run the loss function under autocast of this type (bfloat16); weights and state stay float32.
        after_step: called after every optimiser step. What it remembers must stand in the optimiser's state of a
            parameter, as tensors: nothing else is in a checkpoint.
        name_batch: names a micro-batch whose loss or gradient is not finite.

    Where a launcher (``accelerate launch``, ``torchrun``) has started several processes, each must be given its own
    part of every step's micro-batches by ``batches_at``; losses, tokens and gradients are summed over all of them.

    Raises:
        ConfigError: ``validate`` and ``config.validate_every`` do not go together.
        TrainingError: nothing is trainable or supervised, a loss, gradient or validation is not finite, or the loss
            has risen so far that training has diverged.
        StudyError: the folder's checkpoint is damaged or belongs to another run.
    """
    if (validate is None) != (config.validate_every == 0):
        raise ConfigError(
            "a validation function and validate_every go together "
            f"(got {'none' if validate is None else 'one'} and validate_every={config.validate_every})"
        )
    run = _Run(module, config, fingerprint, folder)
    was_training, first_step, tokens_done = module.training, run.state.step, 0
    started = time.monotonic()
    with torch.random.fork_rng(devices=_cuda_devices(run.parameters)):
        while not run.is_done:
            loss, norm, tokens = _optimise(run, batches_at(run.state.step), loss_sum, autocast, name_batch)
            if after_step is not None:
                after_step(run.optimizer, run.state.step + 1, config.steps)
            is_validated = validate is not None and run.is_validated_next
            validation = _validated(module, validate, run.state.step + 1) if validate and is_validated else None
            run.note(loss, validation)
            _check_course([point[0] for point in run.state.curve])
            run.save_when_due()
            tokens_done += tokens
            if on_progress is not None:
                progress = _progress(run, norm, tokens_done, first_step, time.monotonic() - started)
                try:
                    on_progress(progress)
                except BaseException:  # the caller stops here, perhaps to go on another day
                    run.save()
                    raise
    if run.state.step > first_step:
        run.save()
    module.train(was_training)
    return run.finish()


def _optimise(
    run: _Run,
    batches: Sequence[Batch],
    loss_sum: LossSum,
    autocast: torch.dtype | None,
    name_batch: NameBatch | None,
) -> tuple[float, float, int]:
    """One optimiser step: (loss per token, gradient norm before clipping, supervised tokens)."""
    step, parameters = run.state.step, list(run.parameters.values())
    torch.manual_seed(_seed_of(run.config.seed, step))
    run.module.train()
    run.optimizer.zero_grad(set_to_none=True)
    loss_total, tokens_total = 0.0, 0.0
    for index, batch in enumerate(batches):
        with _autocast(parameters[0].device, autocast):
            loss, tokens = loss_sum(run.module, batch)
        named = "" if name_batch is None else f" ({name_batch(step, index)})"
        where = f"step {step + 1}, micro-batch {index + 1} of {len(batches)}{named}"
        _check_finite(loss.item(), "loss", where)
        if tokens == 0:
            continue  # a sum over no tokens: adds nothing, and may not even depend on the weights
        if not loss.requires_grad:
            raise TrainingError(f"the loss does not depend on any trainable parameter at {where}")
        loss.backward()  # type: ignore[no-untyped-call]
        _check_finite(torch.nn.utils.get_total_norm(_gradients(parameters)).item(), "gradient norm", where)
        loss_total += loss.item()
        tokens_total += tokens
    run.ranks.add_gradients(parameters)
    loss_total, tokens_total = run.ranks.add(loss_total, tokens_total)
    if tokens_total == 0:
        raise TrainingError(
            f"step {step + 1} has no supervised token in its {len(batches)} micro-batches",
            "Every token is masked: check the template, the label position and the length limit.",
        )
    for gradient in _gradients(parameters):
        gradient.div_(tokens_total)
    norm = torch.nn.utils.clip_grad_norm_(parameters, run.config.clip_norm).item()
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate(step)
    run.optimizer.step()
    return loss_total / tokens_total, norm, int(tokens_total)


def _progress(run: _Run, norm: float, tokens_done: int, first_step: int, wall_s: float) -> Progress:
    """What to tell the caller about the step just done."""
    step, steps = run.state.step, run.config.steps
    loss, validation = run.state.curve[-1]
    left_s = wall_s / (step - first_step) * (steps - step)
    rate = run.learning_rate(step - 1)
    return Progress(step, steps, loss, rate, norm, tokens_done / max(wall_s, 1e-9), left_s, validation)


class _Run:
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
        self.parameters = _trainable(module)
        self.ranks: Ranks = join_ranks(next(iter(self.parameters.values())).device)
        self.optimizer = _adamw(self.parameters, config)
        settings = {key: value for key, value in asdict(config).items() if key != "checkpoint_every_s"}
        shapes = {name: list(parameter.shape) for name, parameter in self.parameters.items()}
        trainable = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()
        parts = {"fingerprint": fingerprint} if isinstance(fingerprint, str) else dict(fingerprint)
        # Another torch rounds differently somewhere, so the rest of the run would not be the same one's.
        identity = {**settings, **parts, "trainable_parameters": trainable, "torch": str(torch.__version__)}
        self.state = TrainState(0, identity, {}, {}, {}, 0, None, 0, False, ())
        found = load_state(folder) if folder is not None else None
        if found is not None and folder is not None:
            check_same_run(folder, found.run, identity)
            self._restore(found)
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

    def save(self) -> None:
        """Write the state with the current weights and optimiser values, if there is a folder; one process does."""
        if self.folder is None or self.ranks.rank:
            return
        optimizer = {name: self.optimizer.state[parameter] for name, parameter in self.parameters.items()}
        weights = {name: parameter.detach() for name, parameter in self.parameters.items()}
        save_state(self.folder, replace(self.state, weights=weights, optimizer=optimizer))
        self.saved_at = time.monotonic()

    def save_when_due(self) -> None:
        """Save when the last checkpoint is old enough."""
        if time.monotonic() - self.saved_at >= self.config.checkpoint_every_s:
            self.save()

    def finish(self) -> TrainResult:
        """Leave the module at its best weights and report."""
        state = self.state
        if state.best_weights:
            _copy_into(self.parameters, state.best_weights)
        curve = tuple(CurvePoint(step, *point) for step, point in enumerate(state.curve, start=1))
        best_step = state.best_step if state.best_weights else state.step
        return TrainResult(state.step, best_step, state.best_validation, state.stopped_early, curve)

    def _restore(self, found: TrainState) -> None:
        _copy_into(self.parameters, found.weights)
        for name, values in found.optimizer.items():
            parameter = self.parameters[name]
            self.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in values.items()}
        best = {name: value.to(self.parameters[name].device) for name, value in found.best_weights.items()}
        self.state = replace(found, weights={}, optimizer={}, best_weights=best)


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


def _validated(module: torch.nn.Module, validate: Callable[[], float], step: int) -> float:
    """The validation value, computed in evaluation mode without gradients."""
    module.eval()
    with torch.no_grad():
        value = float(validate())
    _check_finite(value, "validation value", f"step {step}")
    return value


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _check_finite(value: float, what: str, where: str) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} is {value} at {where}",
            "Lower the learning rate or clip_norm; if it happens at step 1, look for wrong values in the data.",
        )


def _check_course(losses: Sequence[float]) -> None:
    """Stop a training whose loss has risen far above where it began: it is not coming back."""
    if len(losses) < 2 * DIVERGED_STEPS:
        return
    first, last = (sum(part) / DIVERGED_STEPS for part in (losses[:DIVERGED_STEPS], losses[-DIVERGED_STEPS:]))
    if last > first + DIVERGED_NATS:
        raise TrainingError(
            f"training has diverged: over the {DIVERGED_STEPS} steps up to step {len(losses)} the loss is {last:.2f} "
            f"nats a token, over the first {DIVERGED_STEPS} it was {first:.2f}",
            "Lower the learning rate, or warm up over more steps.",
        )


def _seed_of(seed: int, step: int) -> int:
    """A well-mixed 63-bit seed of (seed, step): neighbouring steps must not share random streams."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _cuda_devices(parameters: Mapping[str, Tensor]) -> list[int]:
    """Indices of the CUDA devices in use, whose generators the training must give back untouched."""
    devices = {parameter.device for parameter in parameters.values()}
    return sorted(device.index for device in devices if device.type == "cuda")


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
