"""Pre-training that goes on before an encoder gets a head: made, and kept beside what is tuned on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskfit.models.work import Work
from taskfit.strategy.stages import BASE_FOLDER, first_changed, kept_between
from taskfit.tuning.full import Full

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget, Strategy
    from taskfit.tasks.task import Task
    from taskfit.tuning.pretraining import ContinuedPretraining

__all__ = ["KeptBase", "first_change", "pretrained"]


def first_change(strategy: Strategy | None) -> ContinuedPretraining | None:
    """Return the pre-training that a strategy consists of; None where it is something else, or none is given."""
    from taskfit.strategy.composed import Composed, default_program
    from taskfit.tuning.pretraining import ContinuedPretraining

    if not isinstance(strategy, Composed) or strategy.program != default_program():
        return None
    change = strategy.weights
    return change if strategy.pretraining is None and isinstance(change, ContinuedPretraining) else None


@contextmanager
def pretrained(
    strategy: Strategy | None, model: LanguageModel, task: Task, *, seed: int, budget: Budget
) -> Iterator[tuple[Work, Budget]]:
    """Go on with the model's pre-training, if so asked; yield its work and the budget that it leaves."""
    first = first_change(strategy)
    if first is None:
        yield Work(), budget
        return
    with first_changed(first, model, task, cast("Any", None), seed=seed, budget=budget) as made:
        yield made


class KeptBase:
    """The encoder that was made, on disk, for the change that is put on it may hide it.

    Args:
        made: the encoder, which is written to a folder that goes with this object; or a folder that holds one.
    """

    def __init__(self, made: LanguageModel | Path) -> None:
        self.folder = made if isinstance(made, Path) else kept_between(self, cast("Any", Full()), made)

    def save(self, folder: Path) -> None:
        """Write it into ``base`` in a predictor's folder."""
        shutil.copytree(self.folder, folder / BASE_FOLDER)
