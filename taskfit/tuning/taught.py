"""What every tuning method can be told about the examples it learns from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from taskfit.errors import ConfigError
from taskfit.strategy.table import name_of
from taskfit.tuning.settings import Paced

if TYPE_CHECKING:
    from taskfit.errors import Faults
    from taskfit.tasks.task import Task

__all__ = ["Taught"]


@dataclass(frozen=True)
class Taught(Paced):
    """Parameters that say which rows are learned from, in which words, and what of them."""

    wordings: Literal["one", "all"] = "one"
    """``one``: the program's own; ``all``: for every row and pass one of the task's wordings is drawn. Validation and
    prediction ask in the program's own. Source: Wei et al. 2022 (FLAN), section 2.1."""
    train_on: Literal["task", "mixture", "others"] = "task"
    """``task``: its own training rows; ``mixture``: with those of the other tasks that its file lists; ``others``:
    those alone, so that the task is held out and met for the first time in the test. Wei et al. 2022, section 2.2."""
    turns: Literal["all", "last"] = "all"
    """Of conversations: whether all of the assistant's turns are learned or the last one. Other tasks have one."""
    rationale: float = 0.0
    """Weight of the rows' rationales as a second target, against the answers' 1; 0: they are not learned.
    Source: Hsieh et al. 2023, section 3.2."""

    def _check_pace(self, faults: Faults) -> None:
        super()._check_pace(faults)
        if not 0 <= self.rationale < math.inf:
            faults.add(f"rationale must be at least 0 and finite (got {self.rationale})")

    def check_task(self, task: Task) -> None:
        """Refuse a task that lacks what a parameter asks for.

        Raises:
            ConfigError: no mixture, one wording only, or no rationale.
        """
        name = name_of(type(self))
        if self.train_on != "task" and task.mixture is None:
            raise ConfigError(
                f"{name}(train_on={self.train_on}) needs other tasks, and the task file lists none",
                "Add `mixture: {tasks: [other.yaml]}` to the task file.",
            )
        if self.wordings == "all" and self.train_on == "task" and len(task.definition.wordings) == 1:
            raise ConfigError(
                f"{name}(wordings=all) needs a task with several wordings (this one has one)",
                "Add `templates` to the task file, or leave wordings out.",
            )
        has_reasons = any(row.teacher is not None and row.teacher.rationale for row in task.train)
        if self.rationale > 0 and task.definition.rationale is None and not has_reasons:
            raise ConfigError(
                f"{name}(rationale={self.rationale:g}) needs rationales, and the task file names none",
                "Name the field under `rationale` in the task file.",
            )

    def rows_of_pass(self, task: Task, rows: int) -> int:
        """Return how many rows one pass learns, ``rows`` being the task's own training rows."""
        if self.train_on == "task" or task.mixture is None:
            return rows
        from taskfit.tasks.mixture import load_mixture

        sizes = [len(other.train) for other in load_mixture(task)] + [rows] * (self.train_on == "mixture")
        return sum(min(size, task.mixture.cap or size) for size in sizes)

    def other_data(self, task: Task) -> str:
        """Return a hash of what is learned from besides the task's own rows; empty where there is nothing.

        It is part of a trial's id: other data make another trial.
        """
        if self.train_on == "task" or task.mixture is None:
            return ""
        from taskfit.tasks.identity import fingerprint
        from taskfit.tasks.mixture import load_mixture

        mixture = task.mixture
        weights = None
        if mixture.weights is not None:
            weights = [mixture.weights.get(path, 1.0) for path in (mixture.own, *mixture.tasks) if path is not None]
        digest = hashlib.sha256(f"{mixture.sampling}\n{mixture.cap}\n{mixture.temperature}\n{weights}\n".encode())
        for other in load_mixture(task):
            digest.update(fingerprint(other.definition, other.splits).encode())
        return digest.hexdigest()
