"""Train a generating model to give each row's answer after its prompt: the way of all tuning methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from taskfit.tuning.counts import cut_work
from taskfit.tuning.examples import Example, collate
from taskfit.tuning.input_use import input_finding
from taskfit.tuning.lesson import Lesson, Pace, RowSet, learn, mean_loss_of, run_parts
from taskfit.tuning.loss import Chosen, choose_loss, gathered_loss
from taskfit.tuning.masked_loss import choose_masked_loss
from taskfit.tuning.preview import preview
from taskfit.tuning.ranks import join_ranks
from taskfit.tuning.settings import training_format
from taskfit.tuning.training_set import TrainingSet, build_training_set

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Task
    from taskfit.tuning.method import Method, Trainable
    from taskfit.tuning.schedule import Decay
    from taskfit.tuning.train_run import Progress

__all__ = ["Pace", "choose", "mean_loss", "train_answers", "train_examples"]

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
    chosen: Chosen | None = None,
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
        chosen: how the loss is computed; None: what :func:`choose` says.

    Raises:
        TrainingError: nothing is supervised, or training has diverged.
    """
    for line in preview(model, data, pace.of.batch, seed=seed).lines():
        budget.say(line)
    chosen = choose(model, data.examples) if chosen is None else chosen
    if chosen.finding is not None:
        budget.say(chosen.finding)
    lesson = Lesson(
        module=model.module,
        rows=_row_set(model, data.examples),
        held_out=_row_set(model, data.held_out),
        loss=chosen,
        fingerprint=run_parts(model, pace, _digest(data)),
        pass_size=data.pass_size,
        labels=data.labels,
        order=data.order,
        decay=decay,
    )
    work = learn(model, lesson, pace, trainable, seed=seed, budget=budget, on_progress=on_progress)
    if data.labels:
        finding, looked = input_finding(model, data.held_out, chosen)
        work += looked
        if finding is not None:
            budget.say(finding)
    return work + cut_work(data.examples)


def choose(model: LanguageModel, examples: Sequence[Example]) -> Chosen:
    """Return the cheapest way to compute the loss that is right for the model, tried on a few short examples.

    Raises:
        TrainingError: the model gives values that are not finite before it was trained.
    """
    few = sorted(examples[:TRIED_ROWS], key=lambda example: example.length)[:4]  # a trial should take no time
    batch, autocast = _batch(model, few), training_format(model)
    if model.architecture == "encoder":
        return choose_masked_loss(model.module, batch, autocast=autocast)
    chosen = choose_loss(model.module, model.architecture, batch, autocast=autocast)
    if chosen.packs and join_ranks(model.device).shards:
        return Chosen(gathered_loss, gathers=True)  # sharded weights are gathered by the layers' own forward passes
    return chosen


def mean_loss(model: LanguageModel, examples: Sequence[Example], chosen: Chosen | None = None) -> float:
    """Return the loss of examples in nats per supervised token, without training anything.

    Args:
        model: whose loss it is; it is left in evaluation mode.
        examples: at least one.
        chosen: how the loss is computed; None: what :func:`choose` says.
    """
    chosen = choose(model, examples) if chosen is None else chosen
    model.module.eval()
    with torch.no_grad():
        return mean_loss_of(model.module, _row_set(model, examples), chosen, training_format(model))


def _row_set(model: LanguageModel, examples: Sequence[Example]) -> RowSet:
    return RowSet(
        tuple((example.length - example.learned, example.learned) for example in examples),
        lambda rows: _batch(model, [examples[row] for row in rows]),
        tuple(example.row_id for example in examples),
    )


def _batch(model: LanguageModel, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    pad_id = model.tokenizer.pad_token_id
    batch = collate(examples, model.architecture, pad_id if pad_id is not None else model.end_token_ids[0])
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _digest(data: TrainingSet) -> str:
    """Hash of every example, and of their order."""
    digest = hashlib.sha256(f"{data.order}\n".encode())
    for examples in (data.examples, data.held_out):
        digest.update(f"{len(examples)}\n".encode())
        for example in examples:
            digest.update(f"{example}\n".encode())
    return digest.hexdigest()
