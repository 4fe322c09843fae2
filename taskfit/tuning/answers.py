"""Train a generating model to give each row's answer after its prompt: the way of all tuning methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from taskfit.models.work import Work
from taskfit.tuning.batches import split_rows
from taskfit.tuning.counts import Shape, cut_work, fit_work
from taskfit.tuning.examples import Example, collate
from taskfit.tuning.loss import choose_loss, with_penalty
from taskfit.tuning.memory_plan import plan_memory
from taskfit.tuning.preview import preview
from taskfit.tuning.rationales import weighted
from taskfit.tuning.settings import Paced, plan_schedule, training_format
from taskfit.tuning.training import TOKEN_BUDGET, Job, run
from taskfit.tuning.training_set import TrainingSet, build_training_set

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Task
    from taskfit.tuning.method import Method, Trainable
    from taskfit.tuning.schedule import Decay
    from taskfit.tuning.trainer import LossSum, Progress

__all__ = ["Pace", "mean_loss", "train_answers", "train_examples"]

TRIED_ROWS = 32
"""The shortest of so many rows are those on which the ways to compute the loss are tried against each other."""

TRIED_ROWS = 32
"""The shortest of so many rows are those on which the ways to compute the loss are tried against each other."""


def train_answers(
    model: LanguageModel,
    task: Task,
    program: PreparedProgram,
    method: Method,
    trainable: Trainable,
    *,
    seed: int,
    budget: Budget,
) -> Work:
    """Train whatever weights of ``model.module`` require gradients, in place.

    Args:
        model: ``module`` is prepared: the right weights, in float32, require gradients.
        task: ``train`` is learned; the loss on ``validation`` decides when to stop.
        program: gives the prompt of each row, the same at training and at predicting.
        method: says how fast and how long; with its parameters it is part of what a checkpoint must agree with.
        trainable: what the method made ready.
        seed: of row order and dropout.
        budget: time, checkpoint folder, and where findings are said.

    Raises:
        TrainingError: nothing is supervised, rows cannot be learned, or training has diverged.
    """
    data = build_training_set(model, task, program, method, seed=seed)
    if not data.held_out:
        budget.say("no validation rows: training runs to its last step without early stopping")
    pace = Pace(method, method.rate(model), method.trains)
    return train_examples(model, data, pace, trainable, seed=seed, budget=budget)


@dataclass(frozen=True)
class Pace:
    """How fast and how long examples are learned.

    Attributes:
        of: the part of a strategy that says so; its parameters are part of what a checkpoint must agree with.
        rate: peak learning rate.
        trains: whether every weight has a gradient or most are frozen.
    """

    of: Paced
    rate: float
    trains: Literal["all", "adapter"]


def train_examples(
    model: LanguageModel,
    data: TrainingSet,
    pace: Pace,
    trainable: Trainable,
    *,
    seed: int,
    budget: Budget,
    decay: Decay = "linear",
    on_progress: Callable[[Progress], None] | None = None,
) -> Work:
    """Learn a training set: see :func:`train_answers`.

    Args:
        model: as there.
        data: what is learned, and what decides when to stop; the latter may be empty.
        pace: how fast and how long.
        trainable: as there.
        seed: as there.
        budget: as there.
        decay: how the learning rate falls.
        on_progress: called after each step.

    Raises:
        TrainingError: nothing is supervised, or training has diverged.
    """
    train_set, held_out = data.examples, data.held_out
    for line in preview(model, data, pace.of.batch, seed=seed).lines():
        budget.say(line)
    autocast = training_format(model)
    few = sorted(train_set[:TRIED_ROWS], key=lambda example: example.length)[:4]  # what is tried should take no time
    chosen = choose_loss(model.module, model.architecture, _batch(model, few), autocast=autocast)
    loss_sum = chosen.loss_sum
    if chosen.finding is not None:
        budget.say(chosen.finding)
    groups = split_rows([example.length for example in held_out], TOKEN_BUDGET, packs=chosen.packs)
    held_out_batches = [[held_out[index] for index in group] for group in groups]
    memory = plan_memory(model, max(example.length for example in train_set) + trainable.virtual_tokens)
    if memory.recomputes:
        budget.say("memory is short: activations are computed twice, and a step takes about a third longer")
    job = Job(
        module=model.module,
        lengths=tuple(example.length for example in train_set),
        collate=lambda rows: _batch(model, [train_set[row] for row in rows]),
        loss_sum=with_penalty(weighted(loss_sum), trainable.penalty),
        validate=(lambda: _mean_loss(model, held_out_batches, loss_sum, autocast)) if held_out else None,
        batch=pace.of.batch,
        learning_rate=pace.rate,
        weight_decay=0.0,
        schedule=plan_schedule(data.pass_size, data.labels, pace.of, is_validated=bool(held_out)),
        autocast=autocast,
        fingerprint=_fingerprint(model, repr(pace.of), data),
        seed=seed,
        after_step=trainable.after_step,
        order=data.order,
        decay=decay,
        on_progress=on_progress,
        packs=chosen.packs,
        token_budget=memory.token_budget,
        recomputes=memory.recomputes,
        row_ids=tuple(example.row_id for example in train_set),
    )
    result, plan = run(job, budget)
    front = trainable.virtual_tokens
    work = fit_work(
        plan,
        result,
        [_shape(example, front) for example in train_set],
        [[_shape(example, front) for example in group] for group in held_out_batches],
        model.architecture,
        trains=pace.trains,
        gathers=chosen.gathers,
        packs=chosen.packs,
    )
    return work + cut_work(train_set)


def mean_loss(model: LanguageModel, examples: Sequence[Example]) -> float:
    """Return the loss of examples in nats per supervised token, without training anything."""
    autocast = training_format(model)
    chosen = choose_loss(model.module, model.architecture, _batch(model, examples[:4]), autocast=autocast)
    groups = split_rows([example.length for example in examples], TOKEN_BUDGET, packs=chosen.packs)
    model.module.eval()
    with torch.no_grad():
        return _mean_loss(model, [[examples[index] for index in group] for group in groups], chosen.loss_sum, autocast)


def _shape(example: Example, front: int) -> Shape:
    """(tokens read, tokens learned), with the vectors that stand before the prompt."""
    return front + example.length - example.learned, example.learned


def _batch(model: LanguageModel, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    pad_id = model.tokenizer.pad_token_id
    batch = collate(examples, model.architecture, pad_id if pad_id is not None else model.end_token_ids[0])
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _mean_loss(
    model: LanguageModel, batches: Sequence[Sequence[Example]], loss_sum: LossSum, autocast: torch.dtype | None
) -> float:
    """Loss in nats per supervised token over all batches; the trainer has set evaluation mode."""
    total, tokens = 0.0, 0
    with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
        for examples in batches:
            loss, count = loss_sum(model.module, _batch(model, examples))
            total += loss.item()
            tokens += count
    return total / tokens


def _fingerprint(model: LanguageModel, pace: str, data: TrainingSet) -> dict[str, str]:
    """Everything that training depends on besides its settings, by parts, so that what differs can be named."""
    digest = hashlib.sha256(f"{data.order}\n".encode())
    for examples in (data.examples, data.held_out):
        digest.update(f"{len(examples)}\n".encode())
        for example in examples:
            digest.update(f"{example}\n".encode())
    parts = {"model": model.fingerprint, "number_format": str(model.dtype), "method": pace}
    return {**parts, "rows": digest.hexdigest()}
