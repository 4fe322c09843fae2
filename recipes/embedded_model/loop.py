"""The recipe's training loop: steps in order, a checkpoint now and then, the same bits after a kill.

The library's own trainer has one optimiser and one batch size; this one has two and growing batches, and is otherwise
the same: summed losses, the mean over the step's tokens, clipping, the step. It keeps its state in the same file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optimizer import Kind, optimizers, restore, set_rate, states
from torch import Tensor, nn

from taskfit.errors import TrainingError
from taskfit.tuning.checkpoint import TrainState, check_same_run, load_state, save_state

__all__ = ["Course", "run_steps"]

CLIP_NORM = 1.0

Batch = dict[str, Tensor]
LossSum = Callable[[nn.Module, Batch], tuple[Tensor, int]]


@dataclass(frozen=True)
class Course:
    """What a training consists of.

    Attributes:
        rates: the learning rate of each step; as many as there are steps.
        batches_at: the micro-batches of a step; a pure function of its number.
        loss_sum: summed loss in nats, and learnt tokens, of a micro-batch.
        optimizer: see ``optimizer.py``.
        identity: what tells this training from others; a checkpoint of another one is refused.
    """

    rates: tuple[float, ...]
    batches_at: Callable[[int], Iterable[Batch]]
    loss_sum: LossSum
    optimizer: Kind
    identity: Mapping[str, object]


@dataclass(frozen=True)
class Told:
    """What is told after each step: steps done, loss in nats a token, gradient norm, tokens learnt, wall seconds."""

    step: int
    loss: float
    norm: float
    tokens: int
    seconds: float


def run_steps(
    model: nn.Module,
    course: Course,
    folder: Path,
    *,
    on_step: Callable[[Told], None] = lambda told: None,
    until: int | None = None,
    checkpoint_every_s: float = 60.0,
) -> list[float]:
    """Take the steps that are left, and return the loss of every step so far, in nats a token.

    Args:
        model: trained in place; float32.
        course: what to do.
        folder: where the state is kept, and found again.
        on_step: told after each step.
        until: the step to stop before; None: the end. The state is saved either way.
        checkpoint_every_s: wall seconds between checkpoints.

    Raises:
        TrainingError: a loss or gradient is not finite; the last checkpoint stands.
        StudyError: the folder holds another training, or its checkpoint is damaged.
    """
    found = optimizers(model, course.optimizer, course.rates[0])
    identity = {**course.identity, "steps": len(course.rates), "torch": str(torch.__version__), **_computing(model)}
    losses = _resume(model, found, folder, identity)
    saved = time.monotonic()
    last = len(course.rates) if until is None else min(until, len(course.rates))
    is_new = False
    while len(losses) < last:
        told = _one_step(model, course, found, len(losses))
        losses.append(told.loss)
        is_new = True
        if time.monotonic() - saved >= checkpoint_every_s:
            _save(model, found, folder, identity, losses)
            saved, is_new = time.monotonic(), False
        on_step(told)
    if is_new:
        _save(model, found, folder, identity, losses)
    return losses


def _one_step(model: nn.Module, course: Course, found: list[torch.optim.Optimizer], step: int) -> Told:
    started = time.monotonic()
    model.train()
    device = next(model.parameters()).device
    for one in found:
        one.zero_grad(set_to_none=True)
    nats, tokens = 0.0, 0
    for batch in course.batches_at(step):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss, count = course.loss_sum(model, {name: value.to(device) for name, value in batch.items()})
        if count:
            loss.backward()  # type: ignore[no-untyped-call]
        nats, tokens = nats + loss.item(), tokens + count
    if not tokens or not math.isfinite(nats):
        raise TrainingError(f"the loss of step {step + 1} is {nats} over {tokens} tokens", "Lower --rate.")
    parameters = [value for value in model.parameters() if value.grad is not None]
    for value in parameters:
        value.grad.div_(tokens)  # type: ignore[union-attr]
    norm = float(nn.utils.clip_grad_norm_(parameters, CLIP_NORM))
    if not math.isfinite(norm):
        raise TrainingError(f"the gradient of step {step + 1} has the norm {norm}", "Lower --rate.")
    set_rate(found, course.rates[step])
    for one in found:
        one.step()
    return Told(step + 1, nats / tokens, norm, tokens, time.monotonic() - started)


def _computing(model: nn.Module) -> dict[str, object]:
    """What changes the order of sums, and so the bits."""
    device = next(model.parameters()).device.type
    return {"device": device, "threads": torch.get_num_threads() if device == "cpu" else 0}


def _resume(
    model: nn.Module, found: list[torch.optim.Optimizer], folder: Path, identity: dict[str, object]
) -> list[float]:
    kept = load_state(folder)
    if kept is None:
        return []
    check_same_run(folder, kept.run, identity)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(kept.weights[name])
    restore(found, model, kept.optimizer)
    return [loss for loss, _ in kept.curve]


def _save(
    model: nn.Module,
    found: list[torch.optim.Optimizer],
    folder: Path,
    identity: dict[str, object],
    losses: list[float],
) -> None:
    weights: dict[str, Any] = {name: value.detach() for name, value in model.named_parameters()}
    curve = tuple((loss, None) for loss in losses)
    state = TrainState(len(losses), identity, weights, states(found, model), {}, 0, None, 0, False, curve)
    save_state(folder, state)
