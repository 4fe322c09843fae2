"""Rows of token ids out of a stream: pure functions of the step, so that a resumed run reads what it would have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from network import labelled
from numpy.typing import NDArray
from schedule import Plan, Step
from torch import Tensor

from taskfit.errors import DataError

__all__ = ["Streams", "batches_of", "open_stream", "rows_at"]

MICRO_TOKENS = 8192
"""Tokens that go through the model at once; more were no faster on two cores."""

Stream = NDArray[np.uint16]
Streams = tuple[Stream, Stream]
"""Text, and instructions."""


def open_stream(path: Path) -> Stream:
    """Return the ids of a file as they lie on the disk.

    Raises:
        DataError: it is not a whole number of ids, or empty.
    """
    size = path.stat().st_size
    if not size or size % 2:
        raise DataError(f"{path} has {size} bytes, which is no stream of two-byte ids", "Run tokenizer.py again.")
    return np.memmap(path, dtype=np.uint16, mode="r")


def rows_at(stream: Stream, first: int, count: int, length: int, seed: int) -> Tensor:
    """Return rows ``first`` to ``first + count`` of an endless series: every epoch all rows, shuffled anew.

    Rows begin at another offset in each epoch, so that what was a row's end is in another's middle next time.

    Returns:
        ids, shape (count, length).

    Raises:
        DataError: the stream is shorter than one row.
    """
    number = (len(stream) + 1) // length - 1  # one less than fits, which leaves room for the offset
    if number < 1:
        raise DataError(f"expected at least {2 * length} tokens of text for rows of {length}, got {len(stream)}")
    found = []
    for at in range(first, first + count):
        epoch, place = divmod(at, number)
        start = int(_order(seed, epoch, number)[place]) * length + _offset(seed, epoch, length)
        found.append(np.asarray(stream[start : start + length], dtype=np.int64))
    return torch.from_numpy(np.stack(found))


def batches_of(step: Step, streams: Streams, plan: Plan) -> Iterator[dict[str, Tensor]]:
    """Yield the micro-batches of a step; each stage has a series of its own."""
    text, instructions = streams
    parts = [rows_at(text, step.first_text, step.text_rows, step.length, 2 * plan.seed + step.is_decay)]
    if step.instruction_rows:
        parts.append(
            rows_at(instructions, step.first_instruction, step.instruction_rows, step.length, 2 * plan.seed + 1)
        )
    rows = torch.cat(parts)
    size = max(1, MICRO_TOKENS // step.length)
    yield from (labelled(rows[at : at + size]) for at in range(0, len(rows), size))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, 0)).permutation(count)


def _offset(seed: int, epoch: int, length: int) -> int:
    return int(np.random.default_rng((seed, epoch, 1)).integers(length))
