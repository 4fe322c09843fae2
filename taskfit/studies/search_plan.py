"""How a search spends its tries: which points are tried, for how many steps, and who goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.strategy.grammar import full_name
from taskfit.strategy.space import draw, part_of, searchable, varied

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.task import Task, Value

__all__ = [
    "LEAST_STEPS",
    "MOST_TRIES",
    "Round",
    "effort",
    "full_steps",
    "points",
    "rounds",
    "survivors",
    "tries_within",
]

LEAST_STEPS = 10
"""Shorter trainings show little but the warm-up."""

MOST_TRIES = 64
"""Most tries that a search by time plans."""


@dataclass(frozen=True)
class Round:
    """So many points are tried with trainings of so many steps; None: the strategy has no steps."""

    tries: int
    steps: int | None


def rounds(tries: int, steps: int | None) -> tuple[Round, ...]:
    """Return the rounds of a search: half of the points go on, with twice the steps, until two are trained whole.

    The last round has the default and its best rival. A strategy without steps has one round, in which every point
    is tried whole.

    Source: Jamieson and Talwalkar 2016, section 2 (successive halving).
    """
    if steps is None or tries <= 2:
        return (Round(tries, steps),)
    sizes = [tries]
    while sizes[-1] > 2:
        sizes.append(math.ceil(sizes[-1] / 2))
    last = len(sizes) - 1
    return tuple(
        Round(size, min(steps, max(LEAST_STEPS, math.ceil(steps / 2 ** (last - place)))))
        for place, size in enumerate(sizes)
    )


def effort(tries: int, *, has_steps: bool) -> float:
    """Return what a search costs at most, in trainings of the default."""
    many = 2**20
    plan = rounds(tries, many if has_steps else None)
    return sum(one.tries * (1.0 if one.steps is None else one.steps / many) for one in plan)


def tries_within(seconds: float, one_s: float, *, has_steps: bool) -> int:
    """Return how many tries fit into a time, when one whole training takes ``one_s``; at least 1."""
    fitting = [tries for tries in range(2, MOST_TRIES + 1) if effort(tries, has_steps=has_steps) * one_s <= seconds]
    return max(fitting, default=1)


def full_steps(strategy: Strategy, task: Task) -> int | None:
    """Return the steps of a whole training on the task's rows; None where the strategy has none."""
    part = part_of(strategy)
    count = getattr(part, "steps", None)
    rows, labels = len(task.train), len(task.definition.labels)
    return int(count(rows, labels)) if callable(count) and hasattr(part, "max_steps") else None


def points(strategy: Strategy, model: LanguageModel | None, tries: int, seed: int) -> list[dict[str, Value]]:
    """Return what is tried: the strategy as it is, then points drawn from its space; none is tried twice.

    Fewer than ``tries`` where the space has no more.
    """
    part = part_of(strategy)
    own = {"learning_rate": part.rate(model)} if hasattr(part, "rate") else {}
    drawn = draw(searchable(strategy), own, tries - 1, f"search {full_name(strategy)} {seed}")
    found: list[dict[str, Value]] = [{}]
    strategies = [strategy]
    for values in drawn:
        made = varied(strategy, values)
        if made not in strategies:
            strategies.append(made)
            found.append(values)
    return found


def survivors(scores: Mapping[int, Sequence[float]], keep: int) -> list[int]:
    """Return the points that go on, by number: the best ones, and always the default, which is number 0.

    Args:
        scores: of each point, first what decides, then what breaks ties; higher is better. Of equals the first stays.
        keep: how many go on.
    """
    ranked = sorted(scores, key=lambda number: (*(-value for value in scores[number]), number))
    kept = ranked[:keep]
    return kept if 0 in kept or 0 not in scores else [0, *kept[: keep - 1]]
