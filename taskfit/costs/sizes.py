"""Reads the sizes of a configuration, and counts what matrices hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskfit.costs.architecture import Linear
from taskfit.errors import Faults

__all__ = ["Sizes", "attention_linears", "biases_of", "matrices"]

_LARGEST = 10**9  # of a size; what is counted from larger ones is too large for a number of the machine


@dataclass
class Sizes:
    """Reads whole numbers and flags, and notes what is missing or impossible."""

    values: Mapping[str, Any]
    faults: Faults

    def number(self, key: str, default: int | None = None) -> int:
        """Return a size of at least 1 and at most a billion; a fault and 1 where it is missing or something else."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
            got = f"{value!r:.40}"
            self.faults.add(f"{key} must be a whole number of at least 1 and at most {_LARGEST:,} (got {got})")
            return 1
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a yes or no."""
        value = self.values.get(key)
        return default if value is None else bool(value)


def matrices(linears: Sequence[Linear]) -> int:
    """Entries of all matrices."""
    return sum(linear.weights for linear in linears)


def biases_of(linears: Sequence[Linear]) -> int:
    """Entries of the biases that the matrices would have."""
    return sum(linear.outputs * linear.copies for linear in linears)


def attention_linears(hidden: int, width: int, narrow: int, output: str = "o_proj") -> tuple[Linear, ...]:
    """Query, key, value and output as matrices of their own."""
    return (
        Linear("q_proj", hidden, width),
        Linear("k_proj", hidden, narrow),
        Linear("v_proj", hidden, narrow),
        Linear(output, width, hidden),
    )
