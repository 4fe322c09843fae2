"""How well a prompt does on validation rows, where a program must compare prompts with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from taskfit.strategy.run_program import run_programs

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.strategy.contract import Answer, PreparedProgram
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task

__all__ = ["row_scores", "validation_rows"]


def validation_rows(task: Task, most: int, seed: int = 0) -> tuple[Row, ...]:
    """Return at most ``most`` validation rows, drawn by the seed; training rows where there are no others.

    Test rows are never looked at. For one seed a smaller draw lies inside every larger one.
    """
    rows = sorted(task.validation or task.train, key=lambda row: row.id)
    Random(f"validation {seed}").shuffle(rows)
    return tuple(rows[:most])


def row_scores(
    definition: TaskDefinition, prepared: PreparedProgram, rows: Sequence[Row], engine: Engine
) -> tuple[float, ...]:
    """Return one number a row, from 0 to 1: 1 for the right option; for generated text the share of words it has
    in common with the best reference (F1, case folded), so that prompts that are nearly right can be told apart.

    Answers that cannot be read score 0.
    """
    outcomes = run_programs(definition, prepared, rows, engine)
    return tuple(_score(definition, row, outcome.answer) for row, outcome in zip(rows, outcomes, strict=True))


def _score(definition: TaskDefinition, row: Row, answer: Answer) -> float:
    if not answer.is_parsed:
        return 0.0
    right = definition.gold(row)
    if definition.kind != "generation":
        return float(answer.answer in right)
    return max((_overlap(answer.answer, text) for text in right), default=0.0)


def _overlap(one: str, other: str) -> float:
    ours, theirs = Counter(one.casefold().split()), Counter(other.casefold().split())
    common = sum((ours & theirs).values())
    return 2 * common / max(1, ours.total() + theirs.total())
