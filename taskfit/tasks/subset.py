"""Smaller training sets for learning curves."""

from __future__ import annotations

from dataclasses import replace

from taskfit.errors import ConfigError
from taskfit.tasks.identity import fingerprint
from taskfit.tasks.splitting import nested_order
from taskfit.tasks.task import Task

__all__ = ["take_train"]


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
    if not 1 <= size <= len(task.train):
        raise ConfigError(f"training size must be between 1 and {len(task.train)} (got {size})")
    is_classification = task.definition.kind == "classification"
    strata = [task.definition.gold(row)[0] if is_classification else "" for row in task.train]
    chosen = sorted(nested_order([row.id for row in task.train], strata, seed)[:size])
    splits = {**task.splits, "train": tuple(task.train[position] for position in chosen)}
    note = f"train is a sample of {size} of {len(task.train)} rows (seed {seed})"
    report = replace(task.report, notes=(*task.report.notes, note))
    return replace(task, splits=splits, fingerprint=fingerprint(task.definition, splits), report=report)
