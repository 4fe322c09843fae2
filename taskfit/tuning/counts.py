"""What a training computed, from its plan alone: right even when it was killed and resumed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture
    from taskfit.tuning.batches import StepPlan
    from taskfit.tuning.examples import Example
    from taskfit.tuning.train_run import TrainResult

__all__ = ["Shape", "batches_work", "cut_work", "fit_work"]

Shape = tuple[int, int]
"""Tokens that are read and tokens that are learned, of one row."""


def fit_work(
    plan: StepPlan,
    result: TrainResult,
    shapes: Sequence[Shape],
    validation_batches: Sequence[Sequence[Shape]],
    architecture: Architecture,
    *,
    trains: Literal["all", "adapter"],
    gathers: bool,
    packs: bool = False,
) -> Work:
    """Count the forward and backward passes of all steps, and the forward passes of all validations.

    Args:
        plan: which rows each step saw.
        result: how many steps and validations were done.
        shapes: (prompt tokens, answer tokens) of each training row.
        validation_batches: the same of the validation rows, in their batches.
        architecture: decides what attends to what.
        trains: ``all`` where every weight had a gradient, ``adapter`` where the base was frozen.
        gathers: whether only supervised positions reached the output layer.
        packs: whether padding was left out.
    """
    steps = (group for step in range(result.steps_done) for group in plan.micro_batches_at(step))
    batches = ([shapes[row] for row in group] for group in steps)
    work = batches_work(batches, architecture, gathers=gathers, packs=packs)
    is_all = trains == "all"
    work += Work(
        trained_tokens=work.computed_tokens if is_all else 0,
        trained_frozen_tokens=0 if is_all else work.computed_tokens,
    )
    validations = sum(point.validation is not None for point in result.curve)
    once = batches_work(validation_batches, architecture, gathers=gathers, packs=packs)
    for _ in range(validations):
        work += once
    return work


def batches_work(
    batches: Iterable[Sequence[Shape]], architecture: Architecture, *, gathers: bool, packs: bool = False
) -> Work:
    """Count one forward pass over each batch, padded to its longest row unless padding is left out."""
    work = Work()
    for batch in batches:
        for padded in [[row] for row in batch] if packs else [batch]:
            work += _one(padded, architecture, gathers=gathers)
    return work


def cut_work(examples: Sequence[Example]) -> Work:
    """Count what the rows lost because the context is too short."""
    return Work(
        cut_tokens=sum(example.cut_tokens for example in examples),
        cut_rows=sum(example.cut_tokens > 0 for example in examples),
        dropped_shots=sum(example.dropped_shots for example in examples),
    )


def _one(batch: Sequence[Shape], architecture: Architecture, *, gathers: bool) -> Work:
    rows = len(batch)
    read, learned = sum(shape[0] for shape in batch), sum(shape[1] for shape in batch)
    if architecture == "encoder-decoder":
        source, target = max(shape[0] for shape in batch), max(shape[1] for shape in batch)
        pairs = source * source + target * (target + 1) // 2 + target * source
        return Work(
            prompt_tokens=read,
            answer_tokens=learned,
            computed_tokens=rows * source,
            decoder_tokens=rows * target,
            attended_pairs=rows * pairs,
            head_tokens=rows * target,
        )
    length = max(sum(shape) for shape in batch)
    pairs = length * length if architecture == "encoder" else length * (length + 1) // 2
    return Work(
        prompt_tokens=read,
        answer_tokens=learned,
        computed_tokens=rows * length,
        attended_pairs=rows * pairs,
        head_tokens=learned if gathers else rows * length,
    )
