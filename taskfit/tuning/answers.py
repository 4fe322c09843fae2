"""Train a generating model to give each row's answer after its prompt: the way of all tuning methods."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from taskfit.models.work import Work
from taskfit.tuning.batches import split_by_length
from taskfit.tuning.counts import cut_work, fit_work
from taskfit.tuning.examples import Example, build_examples, collate
from taskfit.tuning.loss import choose_loss, full_logits_loss, with_penalty
from taskfit.tuning.preview import preview
from taskfit.tuning.settings import plan_schedule, training_format
from taskfit.tuning.training import TOKEN_BUDGET, Job, run

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Row, Task
    from taskfit.tuning.method import Method, Trainable
    from taskfit.tuning.trainer import LossSum

__all__ = ["train_answers", "validation_sample"]

VALIDATION_ROWS = 512
"""Most validation rows whose loss decides when to stop; more would cost more than they tell."""


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
    train_set = build_examples(model, task.definition, program, task.train)
    held_out_rows = validation_sample(task.validation)
    held_out = build_examples(model, task.definition, program, held_out_rows) if held_out_rows else []
    for line in preview(model, train_set).lines():
        budget.say(line)
    if not held_out:
        budget.say("no validation rows: training runs to its last step without early stopping")
    autocast = training_format(model)
    loss_sum, finding = choose_loss(model.module, model.architecture, _batch(model, train_set[:4]), autocast=autocast)
    if finding is not None:
        budget.say(finding)
    groups = split_by_length([example.length for example in held_out], TOKEN_BUDGET)
    held_out_batches = [[held_out[index] for index in group] for group in groups]
    job = Job(
        module=model.module,
        lengths=tuple(example.length for example in train_set),
        collate=lambda rows: _batch(model, [train_set[row] for row in rows]),
        loss_sum=with_penalty(loss_sum, trainable.penalty),
        validate=(lambda: _mean_loss(model, held_out_batches, loss_sum, autocast)) if held_out else None,
        batch=method.batch,
        learning_rate=method.rate(model),
        weight_decay=0.0,
        schedule=plan_schedule(len(train_set), len(task.definition.labels), method, is_validated=bool(held_out)),
        autocast=autocast,
        fingerprint=_fingerprint(model, repr(method), train_set, held_out),
        seed=seed,
        after_step=trainable.after_step,
    )
    result, plan = run(job, budget)
    front = trainable.virtual_tokens
    shapes = [[(front + len(example.prompt), len(example.answer)) for example in group] for group in held_out_batches]
    work = fit_work(
        plan,
        result,
        [(front + len(example.prompt), len(example.answer)) for example in train_set],
        shapes,
        model.architecture,
        trains=method.trains,
        gathers=loss_sum is not full_logits_loss,
    )
    return work + cut_work(train_set)


def validation_sample(rows: Sequence[Row]) -> list[Row]:
    """Return at most ``VALIDATION_ROWS`` rows, spread evenly over the split."""
    if len(rows) <= VALIDATION_ROWS:
        return list(rows)
    return [rows[index * len(rows) // VALIDATION_ROWS] for index in range(VALIDATION_ROWS)]


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


def _fingerprint(model: LanguageModel, method: str, *sets: Sequence[Example]) -> str:
    """Hash of everything that training depends on besides its settings."""
    digest = hashlib.sha256(f"{model.fingerprint}\n{model.dtype}\n{method}\n".encode())
    for examples in sets:
        digest.update(f"{len(examples)}\n".encode())
        for example in examples:
            digest.update(f"{example.row_id}\n{example.prompt}\n{example.answer}\n".encode())
    return digest.hexdigest()
