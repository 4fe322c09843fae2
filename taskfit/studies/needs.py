"""What a strategy draws on: chance, training rows, worked examples. A study runs nothing twice for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from taskfit.strategy.contract import Usage

if TYPE_CHECKING:
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Task

__all__ = [
    "check_task",
    "labels_used",
    "learned_rows",
    "other_data",
    "searched",
    "shots",
    "usage",
    "uses_seed",
    "uses_train",
]

_WITHOUT_CHANCE = frozenset({"majority", "linear"})


def searched(strategy: Strategy) -> Strategy:
    """Return the strategy that a search tries, or the strategy itself."""
    inner = getattr(strategy, "strategy", None)
    return strategy if inner is None else cast("Strategy", inner)


def uses_seed(strategy: Strategy) -> bool:
    """True when two seeds may give different predictors from the same rows.

    A strategy may say so itself with an attribute ``uses_seed``; otherwise it does, but for a few known ones.
    """
    return bool(getattr(strategy, "uses_seed", _head(strategy) not in _WITHOUT_CHANCE))


def uses_train(strategy: Strategy) -> bool:
    """True when the training rows matter; a strategy to which they do not says so with ``uses_train``."""
    return bool(getattr(searched(strategy), "uses_train", True))


def learned_rows(strategy: Strategy, task: Task, rows: int, row_characters: float) -> int:
    """Return how many rows a pass learns: with other tasks' rows, and with plain text counted as so many rows.

    Args:
        strategy: with or without a change of weights.
        task: with its mixture.
        rows: its own training rows.
        row_characters: of a row's question and answer.
    """
    weights, pretraining = getattr(strategy, "weights", None), getattr(strategy, "pretraining", None)
    count: Callable[[Task, int], int] | None = getattr(weights, "rows_of_pass", None)
    learned = rows if count is None else count(task, rows)
    for given in (pretraining, weights):
        part = getattr(given, "weights", given)  # an encoder's is a strategy of its own
        measure: Callable[[Task], int] | None = getattr(part, "text_length", None)
        if measure is not None:
            own = 0 if part is weights else learned
            passes = getattr(part, "epochs", 1) / max(1, getattr(weights or strategy, "epochs", 1))
            learned = own + round(passes * measure(task) / max(1.0, row_characters))
    return learned


def shots(strategy: Strategy) -> int:
    """Return how many training rows stand as worked examples in a prompt; 0 for most strategies."""
    k = getattr(getattr(strategy, "program", strategy), "k", 0)
    return k if isinstance(k, int) else 0


def labels_used(strategy: Strategy, task: Task, train_rows: int | None) -> int:
    """Return how many labelled rows a strategy learns and chooses from: 0 where training rows do not matter.

    A prompt with randomly drawn worked examples needs those alone; whatever else learns is given the validation rows
    too, and so is a search, which chooses on them. A strategy that knows better says so in a method
    ``labels_used(task, train_rows)``.
    """
    own: Callable[[Task, int | None], int] | None = getattr(strategy, "labels_used", None)
    if own is not None:
        return own(task, train_rows)
    every = (len(task.train) if train_rows is None else train_rows) + len(task.validation)
    if searched(strategy) is not strategy:
        return every
    if not uses_train(strategy):
        return 0
    program = getattr(strategy, "program", strategy)
    if shots(strategy) and getattr(strategy, "weights", None) is None and getattr(program, "select", "") == "random":
        return shots(strategy)
    return every


def check_task(strategy: Strategy, task: Task) -> None:
    """Let a strategy's parts say whether the task has what they need: wordings, rationales, a mixture, text.

    Raises:
        ConfigError: it has not.
    """
    strategy = searched(strategy)
    check: Callable[[Task], None] | None = getattr(strategy, "check_task", None)
    if check is None:
        check = getattr(getattr(strategy, "program", None), "check", None)
    if check is not None:
        check(task)


def other_data(strategy: Strategy, task: Task) -> str:
    """Return a hash of what a strategy learns from besides the task's own rows; empty for most."""
    find: Callable[[Task], str] | None = getattr(searched(strategy), "other_data", None)
    return "" if find is None else find(task)


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
