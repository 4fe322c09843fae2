"""From rows to a trained model, the same for all that learns: micro-batches, memory, schedule, training, work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import torch

from taskfit.models.work import Work
from taskfit.tuning.batches import split_rows
from taskfit.tuning.counts import Shape, fit_work
from taskfit.tuning.loss import with_penalty
from taskfit.tuning.memory_plan import TOKEN_BUDGET, plan_memory
from taskfit.tuning.rationales import weighted
from taskfit.tuning.settings import Paced, plan_schedule, training_format
from taskfit.tuning.training import Job, run

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget
    from taskfit.tuning.loss import Chosen
    from taskfit.tuning.method import Trainable
    from taskfit.tuning.schedule import Decay
    from taskfit.tuning.train_run import Progress
    from taskfit.tuning.trainer import Batch

__all__ = ["Lesson", "Pace", "RowSet", "learn", "mean_loss_of", "run_parts"]


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


@dataclass(frozen=True)
class RowSet:
    """Rows that go through a model in micro-batches.

    Attributes:
        shapes: of each row the tokens that are read and those that are learned.
        collate: makes a micro-batch of the rows with these indices, on the model's device.
        row_ids: the rows' names.
    """

    shapes: tuple[Shape, ...]
    collate: Callable[[Sequence[int]], Batch]
    row_ids: tuple[str, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each row."""
        return tuple(read + learned for read, learned in self.shapes)

    def groups(self, *, packs: bool) -> list[list[int]]:
        """Return the indices of all rows in micro-batches; ``packs``: without padding."""
        return split_rows(self.lengths, TOKEN_BUDGET, packs=packs)


@dataclass(frozen=True)
class Lesson:
    """What is learned, and how its loss is computed.

    Attributes:
        module: what the loss computes with: the model's, or one around it.
        rows: of training.
        held_out: rows whose loss decides when to stop; may be none.
        loss: of a micro-batch.
        fingerprint: what the run depends on besides its settings, by parts; see :func:`run_parts`.
        pass_size: rows of one pass over the data.
        labels: that the task has; 0 where it has none.
        order: the row at each place of the training; None: drawn from the seed.
        weight_decay: decoupled, on matrices.
        decay: how the learning rate falls after the warm-up.
    """

    module: torch.nn.Module
    rows: RowSet
    held_out: RowSet
    loss: Chosen
    fingerprint: dict[str, str]
    pass_size: int
    labels: int = 0
    order: tuple[int, ...] | None = None
    weight_decay: float = 0.0
    decay: Decay = "linear"


def learn(
    model: LanguageModel,
    lesson: Lesson,
    pace: Pace,
    trainable: Trainable,
    *,
    seed: int,
    budget: Budget,
    on_progress: Callable[[Progress], None] | None = None,
) -> Work:
    """Train what requires gradients in ``lesson.module``, in place, and return the work that it took.

    Args:
        model: whose memory, format and architecture count.
        lesson: what is learned.
        pace: how fast and how long.
        trainable: what a method made ready.
        seed: of row order and dropout.
        budget: time, checkpoint folder, and where findings are said.
        on_progress: called after each step.

    Raises:
        TrainingError: nothing is supervised, or training has diverged.
        ResourceError: not even one row fits into memory.
        StudyError: the checkpoint in the budget's folder belongs to another run.
    """
    rows, held_out, front = lesson.rows, lesson.held_out, trainable.virtual_tokens
    autocast, is_validated = training_format(model), bool(held_out.shapes)
    groups = held_out.groups(packs=lesson.loss.packs)
    memory = plan_memory(model, max(rows.lengths) + front)
    if memory.recomputes:
        budget.say("memory is short: activations are computed twice, and a step takes about a third longer")
    job = Job(
        module=lesson.module,
        lengths=rows.lengths,
        collate=rows.collate,
        loss_sum=with_penalty(weighted(lesson.loss.loss_sum), trainable.penalty),
        validate=(lambda: mean_loss_of(lesson.module, held_out, lesson.loss, autocast)) if is_validated else None,
        batch=pace.of.batch,
        learning_rate=pace.rate,
        weight_decay=lesson.weight_decay,
        schedule=plan_schedule(lesson.pass_size, lesson.labels, pace.of, is_validated=is_validated),
        autocast=autocast,
        fingerprint=lesson.fingerprint,
        seed=seed,
        after_step=trainable.after_step,
        order=lesson.order,
        decay=lesson.decay,
        on_progress=on_progress,
        packs=lesson.loss.packs,
        token_budget=memory.token_budget,
        recomputes=memory.recomputes,
        row_ids=rows.row_ids,
    )
    result, plan = run(job, budget)
    return fit_work(
        plan,
        result,
        _behind(front, rows.shapes),
        [_behind(front, [held_out.shapes[index] for index in group]) for group in groups],
        model.architecture,
        trains=pace.trains,
        gathers=lesson.loss.gathers,
        packs=lesson.loss.packs,
    )


def mean_loss_of(module: torch.nn.Module, rows: RowSet, loss: Chosen, autocast: torch.dtype | None) -> float:
    """Return the loss of all rows in nats per supervised token; the caller has set evaluation mode."""
    total, tokens = 0.0, 0
    device = next(module.parameters()).device
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for group in rows.groups(packs=loss.packs):
            summed, count = loss.loss_sum(module, rows.collate(group))
            total += summed.item()
            tokens += count
    return total / tokens


def run_parts(model: LanguageModel, pace: Pace, rows_digest: str) -> dict[str, str]:
    """Return what a run depends on besides its settings, by parts, so that what differs can be named.

    Libraries whose layers compute count: another version may round otherwise.
    """
    parts = {"model": model.fingerprint, "number_format": str(model.dtype), "method": repr(pace.of)}
    return {**parts, "rows": rows_digest, "transformers": version("transformers"), "peft": version("peft")}


def _behind(front: int, shapes: Sequence[Shape]) -> list[Shape]:
    """The rows with the vectors that stand before them."""
    return [(front + read, learned) for read, learned in shapes]
