"""What a strategy draws on: chance, training rows, worked examples. A study runs nothing twice for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from taskfit.strategy.contract import Usage

if TYPE_CHECKING:
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Task

__all__ = ["check_task", "labels_used", "shots", "usage", "uses_seed", "uses_train"]

_WITHOUT_CHANCE = frozenset({"majority", "linear"})


def uses_seed(strategy: Strategy) -> bool:
    """True when two seeds may give different predictors from the same rows.

    A strategy may say so itself with an attribute ``uses_seed``; otherwise it does, but for a few known ones.
    """
    return bool(getattr(strategy, "uses_seed", _head(strategy) not in _WITHOUT_CHANCE))


def uses_train(strategy: Strategy) -> bool:
    """True when the training rows matter; a strategy to which they do not says so with ``uses_train``."""
    return bool(getattr(strategy, "uses_train", True))


def shots(strategy: Strategy) -> int:
    """Return how many training rows stand as worked examples in a prompt; 0 for most strategies."""
    k = getattr(getattr(strategy, "program", strategy), "k", 0)
    return k if isinstance(k, int) else 0


def labels_used(strategy: Strategy, task: Task, train_rows: int | None) -> int:
    """Return how many labelled rows a strategy learns and chooses from: 0 where training rows do not matter.

    A prompt with randomly drawn worked examples needs those alone; whatever else learns is given the validation rows
    too.
    """
    if not uses_train(strategy):
        return 0
    program = getattr(strategy, "program", strategy)
    if shots(strategy) and getattr(strategy, "weights", None) is None and getattr(program, "select", "") == "random":
        return shots(strategy)
    return (len(task.train) if train_rows is None else train_rows) + len(task.validation)


def check_task(strategy: Strategy, task: Task) -> None:
    """Let a strategy's program say whether the task has what it needs: wordings, rationales.

    Raises:
        ConfigError: it has not.
    """
    check: Callable[[Task], None] | None = getattr(getattr(strategy, "program", None), "check", None)
    if check is not None:
        check(task)


def usage(strategy: Strategy, definition: TaskDefinition, rows: int) -> Usage:
    """Return what a strategy's program asks for each row: one request where it does not say.

    Args:
        strategy: with or without a program.
        definition: of the task.
        rows: how many validation rows there are.
    """
    ask: Callable[[TaskDefinition, int], Usage] | None = getattr(getattr(strategy, "program", None), "usage", None)
    return Usage(is_generated=definition.kind == "generation") if ask is None else ask(definition, rows)


def _head(strategy: Strategy) -> str:
    return "" if "+" in strategy.name else strategy.name.partition("(")[0]
