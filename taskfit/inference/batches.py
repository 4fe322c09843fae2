"""Which rows go through the model together, and what happens when they were too many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from taskfit.errors import ResourceError

__all__ = ["Size", "batches", "default_batch_tokens", "default_pack_tokens", "in_halves", "in_order"]

Result = TypeVar("Result")

_MOST_MASK_ENTRIES = 1 << 26
_MOST_LOGITS = 1 << 26


@dataclass(frozen=True)
class Size:
    """What a row asks for.

    Attributes:
        positions: that go through the layers.
        seen: cached positions that each of them sees besides.
        logits: numbers that come out of the output layer.
    """

    positions: int
    seen: int = 0
    logits: int = 0


def default_batch_tokens(device: torch.device) -> int:
    """Return how many positions, padding included, go through a model at once on this device."""
    return 32_768 if device.type == "cuda" else 4_096


def default_pack_tokens(device: torch.device) -> int:
    """Return how many positions are packed into one sequence: on a processor few enough to stay in its cache."""
    return 32_768 if device.type == "cuda" else 1_024


def batches(sizes: Sequence[Size], batch_tokens: int) -> list[list[int]]:
    """Return rows by number, grouped by length so that little is padded, the longest first.

    A batch holds at most ``batch_tokens`` padded positions, and no more mask entries and logits than fit into some
    hundred megabytes; a row that is larger than that alone is a batch of its own.
    """
    order = sorted(range(len(sizes)), key=lambda row: (-sizes[row].positions, -sizes[row].logits, row))
    found: list[list[int]] = []
    logits = 0
    for row in order:
        size = sizes[row]
        if found and _fits(sizes[found[-1][0]], len(found[-1]) + 1, logits + size.logits, batch_tokens):
            found[-1].append(row)
            logits += size.logits
        else:
            found.append([row])
            logits = size.logits
    return found


def in_order(sizes: Sequence[Size], batch_tokens: int) -> list[list[int]]:
    """Return rows by number in the order given, for batches that are not padded.

    A batch holds at most ``batch_tokens`` positions and no more logits than fit into some hundred megabytes; a row
    that is larger than that alone is a batch of its own.
    """
    found: list[list[int]] = []
    positions = logits = 0
    for row, size in enumerate(sizes):
        positions, logits = positions + size.positions, logits + size.logits
        if found and positions <= batch_tokens and logits <= _MOST_LOGITS:
            found[-1].append(row)
        else:
            found.append([row])
            positions, logits = size.positions, size.logits
    return found


def _fits(longest: Size, number: int, logits: int, batch_tokens: int) -> bool:
    padded = number * longest.positions
    mask = padded * (longest.positions + longest.seen)
    return padded <= batch_tokens and mask <= _MOST_MASK_ENTRIES and logits <= _MOST_LOGITS


def in_halves(rows: Sequence[int], compute: Callable[[Sequence[int]], Sequence[Result]]) -> list[Result]:
    """Compute the rows together; where memory runs out, each half by itself, and so on.

    Raises:
        ResourceError: memory runs out on a single row.
    """
    try:
        return list(compute(rows))
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(rows) == 1:
            raise ResourceError(
                f"memory ran out on a single row: {str(error).splitlines()[0]}",
                "Shorten the prompts, or take a smaller model or a narrower number format.",
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(rows) // 2
    return in_halves(rows[:middle], compute) + in_halves(rows[middle:], compute)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error)
