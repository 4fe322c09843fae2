"""One way to train for all tuning methods: plan the steps, keep within memory and time, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from taskfit.errors import ConfigError, ResourceError
from taskfit.tuning.batches import StepPlan
from taskfit.tuning.checkpoint import load_state
from taskfit.tuning.memory_plan import TOKEN_BUDGET, can_recompute
from taskfit.tuning.memory_retry import is_out_of_memory, put_back, spare_copy
from taskfit.tuning.plain_attention import with_plain_attention
from taskfit.tuning.ranks import Ranks, join_ranks
from taskfit.tuning.schedule import Decay
from taskfit.tuning.train_config import TrainConfig
from taskfit.tuning.train_report import TimeIsUp, reporter
from taskfit.tuning.train_run import CurvePoint, Progress, TrainResult
from taskfit.tuning.trainer import AfterStep, Batch, Idle, LossSum, train

if TYPE_CHECKING:
    from taskfit.strategy.contract import Budget
    from taskfit.tuning.settings import Schedule

__all__ = ["Job", "run"]

NAMED_ROWS = 8
"""Most rows that an error names."""


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        module: trained in place; the parameters that require gradients.
        lengths: tokens of each training row.
        collate: makes a micro-batch of the rows with these indices, on the module's device.
        loss_sum: see :mod:`taskfit.tuning.trainer`.
        validate: validation loss, lower is better; None where there are no validation rows.
        batch: rows of one optimiser step.
        learning_rate: peak.
        weight_decay: decoupled, on matrices.
        schedule: steps and validations.
        autocast: number format of the forward pass; None: that of the weights.
        fingerprint: identifies model, method and data, best by their names; a checkpoint of another job is refused.
        seed: of row order and dropout.
        after_step: called after every optimiser step; see :func:`taskfit.tuning.trainer.train`.
        order: the row at each place of the training; see :class:`taskfit.tuning.batches.StepPlan`.
        decay: how the learning rate falls after the warm-up.
        on_progress: called after each step, beside what the budget is told.
        packs: whether the loss leaves padding out, so that rows need not be of like length.
        row_ids: the rows' names, for errors; without them, their numbers.
        token_budget: most tokens of a micro-batch to begin with.
        recomputes: whether layers drop their activations and compute them again going backward.
    """

    module: torch.nn.Module
    lengths: tuple[int, ...]
    collate: Callable[[Sequence[int]], Batch]
    loss_sum: LossSum
    validate: Callable[[], float] | None
    batch: int
    learning_rate: float
    weight_decay: float
    schedule: Schedule
    autocast: torch.dtype | None
    fingerprint: str | Mapping[str, str]
    seed: int
    after_step: AfterStep | None = None
    order: tuple[int, ...] | None = None
    decay: Decay = "linear"
    on_progress: Callable[[Progress], None] | None = None
    packs: bool = False
    row_ids: tuple[str, ...] = ()
    token_budget: int = TOKEN_BUDGET
    recomputes: bool = False


def run(job: Job, budget: Budget) -> tuple[TrainResult, StepPlan]:
    """Train, and return what was reached and the plan that was followed.

    The module ends in evaluation mode with the weights of the best validation, or with the last ones where nothing
    validates. When memory runs out, micro-batches are halved: the steps keep their rows, so the gradients are the
    same. When ``budget.wall_s`` has passed, training stops with the best weights so far; the clock starts anew with
    each call, so that a resumed fit is not stopped at once.

    Raises:
        ResourceError: not even one row fits into memory.
        TrainingError: the loss or a gradient is not finite.
        StudyError: the checkpoint in the budget's folder belongs to another job.
        ConfigError: several processes train together, and the budget limits their time.
    """
    ranks = join_ranks(next(job.module.parameters()).device)
    if ranks.count > 1 and budget.wall_s is not None:
        raise ConfigError("processes that train together cannot keep a time limit", "Leave the limit out.")
    if ranks.shards and job.after_step is not None:
        raise ConfigError(
            "this method changes whole weights between steps, so they cannot be sharded", "Launch without --use_fsdp."
        )
    plan = StepPlan(job.lengths, job.batch, job.token_budget, job.seed, job.order, job.packs)
    start = spare_copy(job.module)
    deadline = None if budget.wall_s is None else time.monotonic() + budget.wall_s
    while True:
        try:
            with _recomputing(job.module, job.recomputes):
                result = _train(job, plan, budget, deadline, ranks)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        is_smallest = plan.token_budget <= min(job.lengths)
        is_last = is_smallest and (job.recomputes or not can_recompute(job.module))
        if ranks.count > 1 or start is None or is_last:
            raise ResourceError(
                f"training ran out of memory with {plan.token_budget} tokens at a time",
                "Choose a smaller model, shorter texts, or a method that trains fewer weights, such as lora.",
            )
        if is_smallest:
            job = replace(job, recomputes=True)
            budget.say("memory ran out with one row at a time; activations are computed twice from now on")
        else:
            plan = replace(plan, token_budget=plan.token_budget // 2)
            budget.say(
                f"memory ran out; micro-batches halved to {plan.token_budget} tokens, {job.batch} rows a step kept"
            )
        put_back(job.module, start)
    job.module.eval()
    for parameter in job.module.parameters():
        parameter.grad = None
    return result, plan


def _train(job: Job, plan: StepPlan, budget: Budget, deadline: float | None, ranks: Ranks) -> TrainResult:
    config = TrainConfig(
        steps=job.schedule.steps,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        decay=job.decay,
        validate_every=job.schedule.validate_every,
        patience=job.schedule.patience,
        seed=job.seed,
    )

    def part(step: int) -> list[list[int]]:
        return plan.micro_batches_at(step, rank=ranks.rank, ranks=ranks.count)

    def batches(step: int) -> list[Batch]:
        own = [job.collate(rows) for rows in part(step)]
        if not ranks.shards:
            return own
        first = plan.micro_batches_at(step, rank=0, ranks=ranks.count)  # no process has more
        return own + [Idle(job.collate(first[0]))] * (len(first) - len(own))

    loss_sum = job.loss_sum
    if not job.packs:  # packed rows have an attention of their own
        loss_sum = with_plain_attention(loss_sum, job.module, max(job.lengths), job.autocast)
    with ExitStack() as stack:
        folder = None if budget.folder is None else budget.folder / "training"
        if folder is None and deadline is not None:  # stopping half-way needs the state that the trainer saves
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="taskfit-")))
        try:
            return train(
                job.module,
                batches,
                loss_sum,
                config,
                validate=job.validate,
                folder=folder,
                fingerprint=job.fingerprint,
                on_progress=reporter(budget.say, deadline, plan, job.on_progress),
                autocast=job.autocast,
                after_step=job.after_step,
                name_batch=lambda step, index: _names(job, [*part(step), *[[]] * (index + 1)][index]),
            )
        except TimeIsUp:
            assert folder is not None  # made above wherever there is a deadline
            return _stopped(job.module, folder, budget)


@contextmanager
def _recomputing(module: torch.nn.Module, recomputes: bool) -> Iterator[None]:
    """Let layers drop their activations in training and compute them again going backward."""
    if not recomputes:
        yield
        return
    model: Any = module
    model.activation_checkpointing_enable()
    try:
        yield
    finally:
        model.activation_checkpointing_disable()


def _names(job: Job, rows: Sequence[int]) -> str:
    """The rows of a micro-batch, in words: the first few and how many more."""
    names = [job.row_ids[row] if job.row_ids else str(row) for row in rows]
    more = "" if len(names) <= NAMED_ROWS else f" and {len(names) - NAMED_ROWS} more"
    return f"rows {', '.join(names[:NAMED_ROWS])}{more}"


def _stopped(module: torch.nn.Module, folder: Path, budget: Budget) -> TrainResult:
    """Give the module its best weights from the state that was saved when time ran out."""
    state = load_state(folder)
    assert state is not None  # the trainer saves before it passes the exception on
    put_back(module, dict(state.best_weights or state.weights))
    best_step = state.best_step if state.best_weights else state.step
    budget.say(f"stopped after {state.step} steps: {budget.wall_s:g} s were allowed; weights of step {best_step} kept")
    curve = tuple(CurvePoint(step, *point) for step, point in enumerate(state.curve, start=1))
    return TrainResult(state.step, best_step, state.best_validation, True, curve)
