"""What of a study cannot be meant: amounts out of range, limits against each other, rows that are not there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from taskfit.errors import Faults
from taskfit.studies.needs import shots
from taskfit.studies.spec import StudyConfig
from taskfit.studies.words import seconds

if TYPE_CHECKING:
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.task import Task

__all__ = ["check_config"]


def check_config(task: Task, config: StudyConfig, strategies: Iterable[Strategy], faults: Faults) -> None:
    """Note all faults of a study's options."""
    _check_numbers(config, faults)
    _check_budget(config, strategies, faults)
    _check_rows(task, config, strategies, faults)


def _check_numbers(config: StudyConfig, faults: Faults) -> None:
    for name in ("seeds", "volume", "jobs"):
        amount = getattr(config, name)
        if amount is not None and amount < 1:
            faults.add(f"{name} must be at least 1 (got {amount})")
    if config.max_seeds is not None and config.max_seeds < config.seeds:
        faults.add(f"max_seeds must be at least seeds, which is {config.seeds} (got {config.max_seeds})")
    limits = config.limits
    amounts = {
        "timeout_s": config.timeout_s,
        "limits.usd": limits.usd,
        "limits.latency_ms": limits.latency_ms,
        "limits.memory_gb": limits.memory_gb,
        "limits.labels": limits.labels,
    }
    for name, amount in amounts.items():
        if amount is not None and not 0 < amount < math.inf:
            faults.add(f"{name} must be above 0 and finite, or left out for no limit (got {amount:g})")
    if limits.forgetting is not None and not 0 <= limits.forgetting < math.inf:
        faults.add(f"limits.forgetting must be at least 0, or left out for no limit (got {limits.forgetting:g})")
    if limits.forgetting is not None and config.retain == ("none",):
        faults.add("limits.forgetting and retain=none contradict each other: nothing would be measured")
    if not 0 <= config.usd_per_label < math.inf:
        faults.add(f"usd_per_label must be at least 0 (got {config.usd_per_label:g})")
    smallest = min((size for size in config.train_sizes if size is not None), default=0)
    if limits.labels is not None and smallest > limits.labels and None not in config.train_sizes:
        faults.add(f"limits.labels of {limits.labels} and train_sizes of at least {smallest} contradict each other")
    if not config.train_sizes:
        faults.add("train_sizes must name at least one size; all rows are written as None (got none)")


def _check_budget(config: StudyConfig, strategies: Iterable[Strategy], faults: Faults) -> None:
    budget = config.budget
    if budget is None:
        return
    amounts = [amount for amount in (budget.seconds, budget.usd) if amount is not None]
    if len(amounts) != 1 or not 0 < amounts[0] < math.inf:
        faults.add(f"budget must be an amount of seconds or of usd above 0 (got {budget})")
    elif budget.seconds is not None:
        for strategy in strategies:
            wanted = getattr(strategy, "seconds", None)
            if isinstance(wanted, int | float) and wanted > budget.seconds:
                faults.add(
                    f"budget of {seconds(budget.seconds)} and {strategy.name} contradict each other: "
                    f"its search alone is given {seconds(wanted)}"
                )


def _check_rows(task: Task, config: StudyConfig, strategies: Iterable[Strategy], faults: Faults) -> None:
    rows = len(task.train)
    if not task.test:
        faults.add("the test set must hold at least one row (got none)")
    for size in config.train_sizes:
        if size is not None and not 1 <= size <= rows:
            faults.add(f"train_sizes must be between 1 and {rows}, the number of training rows (got {size})")
    smallest = min((size for size in config.train_sizes if size is not None), default=rows)
    for strategy in strategies:
        if shots(strategy) > min(smallest, rows):
            faults.add(
                f"{strategy.name} needs {shots(strategy)} training rows to show "
                f"and the smallest training set has {min(smallest, rows)}"
            )
