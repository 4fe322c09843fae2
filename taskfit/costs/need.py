"""How much is to be done: rows, lengths, passes."""

from __future__ import annotations

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
        wrong = [f"{one.name} must be above 0 (got {getattr(self, one.name)})" for one in fields(self)[:5]]
        wrong = [sentence for sentence, one in zip(wrong, fields(self), strict=False) if getattr(self, one.name) <= 0]
        if self.answer > self.length:
            wrong.append(f"answer must be at most length (got {self.answer} and {self.length})")
        if wrong:
            raise ConfigError("estimate: " + "; ".join(wrong))
