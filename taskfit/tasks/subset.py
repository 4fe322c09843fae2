"""Smaller sets of rows: training sets for learning curves, samples to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError
from taskfit.tasks.identity import fingerprint
from taskfit.tasks.splitting import nested_order
from taskfit.tasks.task import Row, Task

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition

__all__ = ["take_rows", "take_train"]


def take_train(task: Task, size: int | None, seed: int) -> Task:
    """Return the task with ``size`` of its training rows; validation and test stay.

    The sample is stratified by label, holds every label once before any label twice, keeps the rows' order, and for one
    seed lies inside every larger one.

    Args:
        task: the whole task.
        size: number of training rows; None: all of them.
        seed: another seed draws other rows.

    Raises:
        ConfigError: ``size`` is not between 1 and the number of training rows.
    """
    if size is None:
        return task
    chosen = take_rows(task.definition, task.train, size, seed, of="training")
    splits = {**task.splits, "train": chosen}
    note = f"train is a sample of {size} of {len(task.train)} rows (seed {seed})"
    report = replace(task.report, notes=(*task.report.notes, note))
    return replace(task, splits=splits, fingerprint=fingerprint(task.definition, splits), report=report)


def take_rows(definition: TaskDefinition, rows: Sequence[Row], size: int, seed: int, *, of: str) -> tuple[Row, ...]:
    """Return a sample of ``size`` rows, drawn as :func:`take_train` draws.

    Args:
        definition: of the task; a classification's labels are balanced as they are in ``rows``.
        rows: with answers.
        size: number of rows.
        seed: another seed draws other rows.
        of: what the rows are, for the message.

    Raises:
        ConfigError: ``size`` is not between 1 and the number of rows.
    """
    if not 1 <= size <= len(rows):
        raise ConfigError(f"{of} size must be between 1 and {len(rows)} (got {size})")
    is_classification = definition.kind == "classification"
    strata = [definition.gold(row)[0] if is_classification else "" for row in rows]
    chosen = sorted(nested_order([row.id for row in rows], strata, seed)[:size])
    return tuple(rows[position] for position in chosen)
