"""Two changes of weights, one after the other: pre-training goes on, then the result is tuned."""

from __future__ import annotations

import hashlib
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from taskfit.strategy.grammar import part_name

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, PreparedProgram, WeightsChange
    from taskfit.tasks.task import Task

__all__ = ["BASE_FOLDER", "Stages", "first_changed", "kept_between"]

BASE_FOLDER = "base"
"""Where a predictor's folder holds the model that the second change was put on."""


class Stages:
    """A :class:`taskfit.strategy.contract.WeightsChange` made of two.

    The model between them is kept on disk, for the second may hide it (adapters around its layers) or pack it.

    Args:
        first: trains the base model; what it saves is a whole model.
        second: tunes the result.
    """

    def __init__(self, first: WeightsChange, second: WeightsChange) -> None:
        self.first = first
        self.second = second
        self._between: Path | None = None

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Those that both can change."""
        return self.first.architectures & self.second.architectures

    def change(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget) -> Work:
        """Make both changes; a fit that is killed goes on in the stage where it was.

        Of a limited time, the first may take half.

        Raises:
            TrainingError, ConfigError: as the two say.
        """
        with first_changed(self.first, model, task, program, seed=seed, budget=budget) as (work, left):
            self._between = kept_between(self, self.first, model)
            return work + self.second.change(model, task, program, seed=seed, budget=left)

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write the second change into the folder, and the model it was put on into ``base`` in it."""
        assert self._between is not None  # there is nothing to save before a change or a load
        self.second.save(model, folder)
        shutil.copytree(self._between, folder / BASE_FOLDER)

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Load the model of the folder, and put the second change on it.

        Raises:
            PredictorError: either is missing or damaged.
        """
        base = self.first.load(model, folder / BASE_FOLDER)
        self._between = folder / BASE_FOLDER
        return self.second.load(base, folder)


@contextmanager
def first_changed(
    first: WeightsChange, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget
) -> Iterator[tuple[Work, Budget]]:
    """Make the first of two changes; yield its work and the budget that it leaves to the second.

    Of a limited time it may take half. Meanwhile the model has the fingerprint of what was made: a checkpoint of the
    second change belongs to this base, not to the one that it was made of.
    """
    started, fingerprint = time.monotonic(), model.fingerprint
    folder = None if budget.folder is None else budget.folder / "pretraining"
    half = None if budget.wall_s is None else budget.wall_s / 2
    work = first.change(model, task, program, seed=seed, budget=replace(budget, folder=folder, wall_s=half))
    left = None if budget.wall_s is None else max(0.0, budget.wall_s - (time.monotonic() - started))
    made_of = [fingerprint, part_name(first), _other_data(first, task), str(seed)]
    model.fingerprint = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
    try:
        yield work, replace(budget, wall_s=left)
    finally:
        model.fingerprint = fingerprint


def kept_between(owner: object, first: WeightsChange, model: LanguageModel) -> Path:
    """Write what the first change made into a folder that goes when ``owner`` does."""
    folder = Path(mkdtemp(prefix="taskfit-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    first.save(model, folder)
    return folder


def _other_data(part: WeightsChange, task: Task) -> str:
    find = getattr(part, "other_data", None)
    return "" if find is None else str(find(task))
