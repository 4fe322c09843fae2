"""Which training rows become worked examples for all rows alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["Select", "choose_demonstrations", "draw_balanced", "draw_random"]

Select = Literal["balanced", "diverse", "random", "similar"]


def choose_demonstrations(
    definition: TaskDefinition, rows: Sequence[Row], k: int, select: Select, seed: int, by: str = "bm25"
) -> tuple[Row, ...]:
    """Return k training rows in the order in which they will be shown.

    Args:
        definition: of the task.
        rows: the training rows, at least k; their order does not matter.
        k: how many to choose.
        select: ``random``, or ``balanced``: over labels (classification) or over the place of the right option
            (choice), as evenly as k allows; free answers have nothing to balance and are drawn at random.
            ``diverse``: far apart from each other (greedy k-centre, Sener and Savarese 2018, section 4.1), so that
            they cover the inputs; the first one is drawn. ``similar`` rows depend on the question and are not chosen
            here: all rows are returned.
        seed: decides the draw and the order.
        by: how ``diverse`` tells inputs apart: ``bm25`` (words, weighted by TF-IDF) or the name of an encoder.
    """
    if select == "similar":
        return tuple(sorted(rows, key=lambda row: row.id))
    if select == "diverse":
        return _draw_diverse(definition, rows, k, seed, by)
    if select == "balanced" and definition.kind == "classification":
        return draw_balanced(rows, k, seed, lambda row: definition.gold(row)[0])
    if select == "balanced" and definition.kind == "choice":
        return draw_balanced(rows, k, seed, lambda row: _right_place(definition, row))
    return draw_random(rows, k, seed)


def draw_random(rows: Sequence[Row], k: int, seed: int) -> tuple[Row, ...]:
    """Return k rows drawn without replacement, in random order."""
    return tuple(_shuffled(rows, Random(f"demonstrations {seed}"))[:k])


def draw_balanced(rows: Sequence[Row], k: int, seed: int, group: Callable[[Row], Hashable]) -> tuple[Row, ...]:
    """Return k rows drawn without replacement, groups in turn, in random order.

    The groups take turns in an order that the seed decides, whatever their sizes: with fewer examples than groups,
    every group is as likely as any other to be shown.
    """
    random = Random(f"demonstrations {seed}")
    groups: dict[Hashable, list[Row]] = {}
    for row in _shuffled(rows, random):
        groups.setdefault(group(row), []).append(row)
    turns = sorted(groups.values(), key=lambda members: min(row.id for row in members))
    random.shuffle(turns)
    rounds = max(len(members) for members in groups.values())
    chosen = [members[turn] for turn in range(rounds) for members in turns if turn < len(members)][:k]
    random.shuffle(chosen)
    return tuple(chosen)


def _draw_diverse(definition: TaskDefinition, rows: Sequence[Row], k: int, seed: int, by: str) -> tuple[Row, ...]:
    from taskfit.prompting.similarity import far_apart

    random = Random(f"demonstrations {seed}")
    pool = _shuffled(rows, random)
    chosen = [pool[place] for place in far_apart([definition.input_text(row) for row in pool], k, by)]
    random.shuffle(chosen)
    return tuple(chosen)


def _shuffled(rows: Sequence[Row], random: Random) -> list[Row]:
    """Return the rows in an order that depends on their ids and the generator, not on the order they came in."""
    pool = sorted(rows, key=lambda row: row.id)
    random.shuffle(pool)
    return pool


def _right_place(definition: TaskDefinition, row: Row) -> int:
    right = definition.gold(row)
    return next((i for i, option in enumerate(definition.options(row)) if option.value in right), -1)
