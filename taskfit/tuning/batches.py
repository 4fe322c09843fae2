"""Which rows go through the model together. A pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil

__all__ = ["StepPlan", "split_by_length", "split_packed", "split_rows"]

CALL_OVERHEAD_TOKENS = 256
"""What one more call of the model costs, in tokens that could have been computed instead (a rough constant)."""


def split_by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Split rows into groups of like length, each padded to at most ``token_budget`` tokens in all.

    Of all splits of the rows sorted by length, the one with the least work: padded tokens plus
    ``CALL_OVERHEAD_TOKENS`` for every group. A row longer than the budget is alone in its group.

    Args:
        lengths: tokens of each row, at least 1.
        token_budget: most tokens of a group, padding included.

    Returns:
        Indices of the rows, longest group first; every row once. Equal lengths keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    best = [0] + [0] * len(order)  # least work of the first n rows
    start_of = [0] + [0] * len(order)  # where the last group of that split begins
    for stop in range(1, len(order) + 1):
        start = stop - 1
        best[stop] = best[start] + lengths[order[start]] + CALL_OVERHEAD_TOKENS
        start_of[stop] = start
        while start > 0 and (stop - start + 1) * lengths[order[start - 1]] <= token_budget:
            start -= 1
            work = best[start] + (stop - start) * lengths[order[start]] + CALL_OVERHEAD_TOKENS
            if work < best[stop]:
                best[stop], start_of[stop] = work, start
    groups: list[list[int]] = []
    stop = len(order)
    while stop:
        groups.append(order[start_of[stop] : stop])
        stop = start_of[stop]
    return groups[::-1]


def split_packed(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Split rows into groups of at most ``token_budget`` tokens, nothing padded, as evenly as their order allows.

    Args:
        lengths: tokens of each row, at least 1. A row longer than the budget is alone in its group.
        token_budget: most tokens of a group.

    Returns:
        Indices of the rows in their order; every row once.
    """
    count = ceil(sum(lengths) / token_budget)
    share = sum(lengths) / max(1, count)  # even groups: a last one of few tokens would be slow
    groups: list[list[int]] = []
    tokens = done = 0
    for index, length in enumerate(lengths):
        if not groups or tokens + length > token_budget or done + length / 2 > share * len(groups):
            groups.append([])
            tokens = 0
        groups[-1].append(index)
        tokens, done = tokens + length, done + length
    return groups


def split_rows(lengths: Sequence[int], token_budget: int, *, packs: bool) -> list[list[int]]:
    """Split rows into micro-batches: :func:`split_packed` where padding is left out, else :func:`split_by_length`."""
    return split_packed(lengths, token_budget) if packs else split_by_length(lengths, token_budget)


@dataclass(frozen=True)
class StepPlan:
    """Which rows each optimiser step sees, and in which micro-batches.

    A step's rows are drawn without regard to length, so that steps stay fair samples of the data; they are then
    split into micro-batches of like length. The rows of a step do not depend on ``token_budget``.

    Attributes:
        lengths: tokens of each row.
        batch: rows of one optimiser step; the last step of an epoch may have fewer.
        token_budget: most tokens of a micro-batch, padding included.
        seed: of the order of the rows; every epoch has its own.
        order: the row at each place of the training, one step behind the other; None: drawn from the seed.
        packs: whether padding is left out of micro-batches, so that rows of any length go together.
    """

    lengths: tuple[int, ...]
    batch: int
    token_budget: int
    seed: int
    order: tuple[int, ...] | None = None
    packs: bool = False

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps that see every row once."""
        return ceil(len(self.lengths) / self.batch)

    def rows_at(self, step: int) -> list[int]:
        """Return the indices of the rows of optimiser step ``step`` (from 0)."""
        if self.order is not None:
            return list(self.order[step * self.batch : (step + 1) * self.batch])
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _epoch_order(len(self.lengths), self.seed, epoch)
        return list(order[position * self.batch : (position + 1) * self.batch])

    def micro_batches_at(self, step: int, *, rank: int = 0, ranks: int = 1) -> list[list[int]]:
        """Return the same rows in groups that go through the model together.

        Args:
            step: optimiser step, from 0.
            rank: which of ``ranks`` processes wants its part.
            ranks: processes that share a step; every row goes to one of them.
        """
        rows = self.rows_at(step)
        lengths = [self.lengths[row] for row in rows]
        budget = min(self.token_budget, ceil(sum(lengths) / ranks))
        groups = split_rows(lengths, budget, packs=self.packs)
        return [[rows[index] for index in group] for group in groups[rank::ranks]]


@lru_cache(maxsize=8)
def _epoch_order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    import numpy as np

    return tuple(np.random.default_rng([seed, epoch]).permutation(rows).tolist())
