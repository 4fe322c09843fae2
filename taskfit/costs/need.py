"""How much is to be done: rows, lengths, passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from taskfit.errors import ConfigError

__all__ = ["Need"]


@dataclass(frozen=True)
class Need:
    """How much is to be done.

    Attributes:
        rows: training rows; with ``epochs`` they give the tokens trained.
        length: tokens of a row, answer included.
        answer: tokens of an answer: what the loss reads, and what is generated.
        epochs: passes over the rows.
        batch: rows of an optimiser step.
        tokens: of (continued) pre-training; 0: 20 for each parameter of a pre-training (Hoffmann et al. 2022), a
            billion for a continued one.
    """

    rows: int = 1000
    length: int = 512
    answer: int = 16
    epochs: float = 3.0
    batch: int = 16
    tokens: float = 0.0

    def __post_init__(self) -> None:
        wrong = []
        for one in fields(self):
            value, may_be_zero = getattr(self, one.name), one.name == "tokens"
            if not (0 <= value < math.inf) or (value == 0 and not may_be_zero):
                wrong.append(f"{one.name} must be {'at least' if may_be_zero else 'above'} 0 (got {value})")
        if self.answer > self.length:
            wrong.append(f"answer must be at most length (got {self.answer} and {self.length})")
        if wrong:
            raise ConfigError("estimate: " + "; ".join(wrong))
