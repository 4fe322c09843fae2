"""The training loop. It does not know which method it trains: that is the module's and the loss function's affair.

One step: micro-batches → summed losses → gradient of the mean over the step's supervised tokens → clip → AdamW.
Every step draws its randomness from (seed, step) alone and its batches from ``batches_at(step)``, so a run that was
killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taskfit.errors import ConfigError, TrainingError
from taskfit.tuning.guards import check_course, check_finite
from taskfit.tuning.sharding import whole
from taskfit.tuning.train_config import TrainConfig
from taskfit.tuning.train_run import Progress, TrainResult, TrainRun

__all__ = ["AfterStep", "Batch", "BatchesAt", "Idle", "LossSum", "train"]

Batch = Any
"""One micro-batch; only ``batches_at`` and ``loss_sum`` know what it is (mostly a dict of tensors)."""


@dataclass(frozen=True)
class Idle:
    """A micro-batch that another process learns.

    Processes that hold parts of the weights gather them for each other, so all must go through the model equally
    often; one that has no batch of its own left goes through this one, and counts nothing of it.
    """

    batch: Batch


BatchesAt = Callable[[int], Sequence[Batch]]
"""The micro-batches of optimiser step i (from 0). A pure function of the step, so that resuming needs no state."""

LossSum = Callable[[torch.nn.Module, Batch], tuple[Tensor, int]]
"""(loss summed over the supervised tokens, in nats; number of supervised tokens) of one micro-batch."""

NameBatch = Callable[[int, int], str]
"""What a step's micro-batch holds, in words, for errors; takes the step and the micro-batch, both from 0."""

AfterStep = Callable[[torch.optim.Optimizer, int, int], None]
"""Takes the optimiser, the optimiser steps done and those planned. A method whose weights follow a schedule of their
own (AdaLoRA) changes them here, after the update and before the gradients are dropped."""


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
    run = TrainRun(module, config, fingerprint, folder)
    was_training, first_step, tokens_done = module.training, run.state.step, 0
    started = time.monotonic()
    with torch.random.fork_rng(devices=_cuda_devices(run.parameters)):
        while not run.is_done:
            loss, norm, tokens = _optimise(run, batches_at(run.state.step), loss_sum, autocast, name_batch)
            if after_step is not None:
                after_step(run.optimizer, run.state.step + 1, config.steps)
            is_validated = validate is not None and run.is_validated_next
            run.note(loss, _validated(run, validate) if validate and is_validated else None)
            check_course([point[0] for point in run.state.curve])
            run.save_when_due()
            tokens_done += tokens
            if on_progress is not None:
                progress = run.progress(norm, tokens_done, first_step, time.monotonic() - started)
                try:
                    on_progress(progress)
                except BaseException:  # the caller stops here, perhaps to go on another day
                    run.stop()
                    raise
    if run.state.step > first_step:
        run.save()
    module.train(was_training)
    return run.finish()


def _optimise(
    run: TrainRun,
    batches: Sequence[Batch],
    loss_sum: LossSum,
    autocast: torch.dtype | None,
    name_batch: NameBatch | None,
) -> tuple[float, float, int]:
    """One optimiser step: (loss per token, gradient norm before clipping, supervised tokens)."""
    step, parameters = run.state.step, list(run.parameters.values())
    torch.manual_seed(_seed_of(run.config.seed, step, run.ranks.rank))
    run.module.train()
    run.optimizer.zero_grad(set_to_none=True)
    loss_total, tokens_total = 0.0, 0.0
    for index, batch in enumerate(batches):
        with _autocast(parameters[0].device, autocast):
            loss, tokens = _loss_of(run, batch, loss_sum)
        named = "" if name_batch is None else f" ({name_batch(step, index)})"
        where = f"step {step + 1}, micro-batch {index + 1} of {len(batches)}{named}"
        check_finite(loss.item(), "loss", where)
        if tokens == 0 and run.shards is None:
            continue  # a sum over no tokens: adds nothing, and may not even depend on the weights
        if not loss.requires_grad:
            raise TrainingError(f"the loss does not depend on any trainable parameter at {where}")
        loss.backward()  # type: ignore[no-untyped-call]
        check_finite(_number(torch.nn.utils.get_total_norm(_gradients(parameters))), "gradient norm", where)
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
    norm = _number(torch.nn.utils.clip_grad_norm_(parameters, run.config.clip_norm))
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate(step)
    run.optimizer.step()
    return loss_total / tokens_total, norm, int(tokens_total)


def _validated(run: TrainRun, validate: Callable[[], float]) -> float:
    """The validation value, computed in evaluation mode without gradients."""
    run.module.eval()
    with torch.no_grad():
        value = float(run.compute(validate))
    check_finite(value, "validation value", f"step {run.state.step + 1}")
    return value


def _loss_of(run: TrainRun, batch: Batch, loss_sum: LossSum) -> tuple[Tensor, int]:
    """(summed loss, supervised tokens); of a batch that is another process's, nothing but its way through."""
    if isinstance(batch, Idle):
        loss, _ = run.compute(lambda: loss_sum(run.module, batch.batch))
        return 0.0 * loss, 0
    return run.compute(lambda: loss_sum(run.module, batch))


def _number(norm: Tensor) -> float:
    return whole(norm).item()


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _seed_of(seed: int, step: int, rank: int) -> int:
    """A well-mixed 63-bit seed: neither neighbouring steps nor processes must share random streams."""
    digest = hashlib.sha256(f"{seed}/{step}{f'/{rank}' if rank else ''}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _cuda_devices(parameters: Mapping[str, Tensor]) -> list[int]:
    """Indices of the CUDA devices in use, whose generators the training must give back untouched."""
    devices = {parameter.device for parameter in parameters.values()}
    return sorted(device.index for device in devices if device.type == "cuda")


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
