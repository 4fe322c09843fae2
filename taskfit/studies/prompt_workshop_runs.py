"""Runs a prompting strategy once for each wording of a task and each draw of worked examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from taskfit.costs.meter import Measured, Meter
from taskfit.errors import ConfigError
from taskfit.strategy.composed import Composed
from taskfit.strategy.contract import Budget, Program
from taskfit.strategy.parameters import parameters_of
from taskfit.strategy.table import load_class, strategy_entry, strategy_names

if TYPE_CHECKING:
    from taskfit.costs.prices import ServicePrice
    from taskfit.models.language_model import LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Prediction, Strategy
    from taskfit.strategy.predictor import ProgramPredictor
    from taskfit.tasks.task import Row, Task

__all__ = ["OnStep", "WordingRun", "asking_strategy", "count_draws", "ignore_step", "run_wordings", "with_wording"]

OnStep = Callable[[str, int, int, float | None], None]
"""Is told what runs next (or "" at the end), runs done, runs in all, and the seconds left where they are known."""


def ignore_step(label: str, done: int, total: int, left_s: float | None) -> None:
    """Drop a step."""


@dataclass(frozen=True)
class WordingRun:
    """One wording with one draw of worked examples, over all rows.

    Attributes:
        wording: number of the wording.
        draw: seed of the draw.
        predictor: what answered; it can be saved.
        predictions: one a row, in order.
        measured: what predicting took.
        dropped_shots: worked examples left out because the context is too short, over all rows.
        usd_tokens: what a service's tokens of these rows cost, those of answers from the cache included; else 0.
    """

    wording: int
    draw: int
    predictor: ProgramPredictor
    predictions: tuple[Prediction, ...]
    measured: Measured
    dropped_shots: int
    usd_tokens: float = 0.0


def asking_strategy(strategy: Strategy) -> Composed:
    """Return the strategy if it only asks, in a wording that can be chosen.

    Raises:
        ConfigError: it changes weights, or has no parameter ``wording``; names those that have.
    """
    if isinstance(strategy, Composed) and strategy.weights is None and _has_wording(type(strategy.program)):
        return strategy
    known = [name for name in strategy_names() if _is_asking(name)]
    if isinstance(strategy, Composed) and strategy.weights is not None:
        raise ConfigError(
            f"prompts tries wordings on a model as it is; {strategy.name!r} changes its weights",
            f"choose the wording first, with one of {', '.join(known)}; then compare the two with taskfit compare",
        )
    raise ConfigError(f"strategy {strategy.name!r} has no parameter `wording` to try", f"take {', '.join(known)}")


def with_wording(strategy: Composed, wording: int) -> Composed:
    """Return the strategy asking in another wording."""
    program = cast("Any", strategy.program)  # a frozen dataclass with a field `wording`, see asking_strategy
    return replace(strategy, program=cast("Program", replace(program, wording=wording)))


def count_draws(strategy: Composed, task: Task, draws: int) -> int:
    """Return how many draws are worth running: 1 where two seeds prepare the same program.

    Raises:
        ConfigError: ``draws`` is below 1, or the program cannot be prepared on this task.
    """
    if draws < 1:
        raise ConfigError(f"draws must be at least 1 (got {draws})")
    first, second = (strategy.program.prepare(task, seed=seed).to_json() for seed in (0, 1))
    return 1 if first == second else draws


def run_wordings(
    task: Task,
    strategy: Composed,
    model: LanguageModel,
    rows: Sequence[Row],
    draws: int,
    on_step: OnStep = ignore_step,
    service: ServicePrice | None = None,
) -> list[WordingRun]:
    """Run every wording with every draw; draw d shows the same training rows in every wording.

    One row is predicted before anything is measured, so that the first run does not pay for starting up.
    """
    wordings = task.definition.wordings
    plan = [(wording, draw) for wording in range(len(wordings)) for draw in range(draws)]
    runs: list[WordingRun] = []
    started = time.monotonic()
    for done, (wording, draw) in enumerate(plan):
        label = wordings[wording].name + (f", draw {draw}" if draws > 1 else "")
        left_s = (time.monotonic() - started) / done * (len(plan) - done) if done else None
        on_step(label, done, len(plan), left_s)
        predictor = with_wording(strategy, wording).fit(model, task, seed=draw, budget=Budget())
        if not runs:
            list(predictor.predict(rows[:1]))
        before = predictor.predict_work
        with Meter("predict") as meter:
            predictions = tuple(predictor.predict(rows))
        after = predictor.predict_work
        dropped = after.dropped_shots - before.dropped_shots
        usd = 0.0 if service is None else _usd_tokens(service, before, after)
        runs.append(WordingRun(wording, draw, predictor, predictions, meter.measured, dropped, usd))
    on_step("", len(plan), len(plan), 0.0)
    return runs


def _usd_tokens(service: ServicePrice, before: Work, after: Work) -> float:
    return service.usd(
        after.service_prompt_tokens - before.service_prompt_tokens,
        after.service_answer_tokens - before.service_answer_tokens,
    )


def _is_asking(name: str) -> bool:
    return strategy_entry(name).part == "program" and _has_wording(load_class(name))


def _has_wording(part: type) -> bool:
    parameters = parameters_of(part)
    return "wording" in parameters and parameters["wording"].hint is int
