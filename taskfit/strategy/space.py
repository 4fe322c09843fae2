"""What may be searched of a part's parameters: a small space, declared in its class as ``space``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.task import Value

__all__ = ["OneOf", "Space", "Times", "draw", "part_of", "searchable", "varied"]


@dataclass(frozen=True)
class Times:
    """Multiples of the number that the part would take by itself, even on the logarithm's scale."""

    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """A few values, each as likely as the others."""

    values: tuple[Value, ...]


Space = Mapping[str, Times | OneOf]
"""Parameter names and their ranges."""


def part_of(strategy: Strategy) -> Any:  # a dataclass of the strategy table; they have no common type
    """Return the part of a strategy whose parameters are searched: its change of weights, else its program, else it."""
    return getattr(strategy, "weights", None) or getattr(strategy, "program", None) or strategy


def searchable(strategy: Strategy) -> Space:
    """Return what may be searched: the declared space without parameters that the user has set.

    A parameter that has its default cannot be told from one that was set to it.
    """
    part = part_of(strategy)
    space: Space = getattr(type(part), "space", {})
    defaults = {one.name: one.default for one in fields(part)} if is_dataclass(part) else {}
    return {name: choice for name, choice in space.items() if getattr(part, name) == defaults[name]}


def varied(strategy: Strategy, values: Mapping[str, Value]) -> Strategy:
    """Return the strategy with other values of its part's parameters.

    Raises:
        ConfigError: a value is out of range.
    """
    part = part_of(strategy)
    changed = replace(part, **values)
    for slot in ("weights", "program"):
        if part is getattr(strategy, slot, None):
            return cast("Strategy", replace(cast("Any", strategy), **{slot: changed}))
    return cast("Strategy", changed)


def draw(space: Space, own: Mapping[str, float], count: int, seed: str) -> list[dict[str, Value]]:
    """Draw ``count`` points of a space, spread evenly over each of its ranges; equal seeds give equal points.

    Each range is cut into as many parts as there are points and every part is used once, in an order of its own.

    Args:
        space: what may vary.
        own: the number that each parameter with :class:`Times` would have by itself.
        count: points.
        seed: of the draw.

    Source: McKay et al. 1979 (Latin hypercube sampling).
    """
    columns = {
        name: list(_spread(choice, own.get(name, math.nan), count, Random(f"{seed} {name}")))
        for name, choice in space.items()
    }
    return [{name: values[point] for name, values in columns.items()} for point in range(count)]


def _spread(choice: Times | OneOf, own: float, count: int, random: Random) -> Iterator[Value]:
    """Yield the values of one parameter, one a point."""
    places = random.sample(range(count), count)
    for place in places:
        if isinstance(choice, OneOf):
            yield choice.values[place * len(choice.values) // count]
        else:
            share = (place + random.random()) / count
            yield float(f"{own * choice.low * (choice.high / choice.low) ** share:.2g}")
