"""What ``taskfit annotate`` can be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from taskfit.distillation.choosing import SELECTIONS, Select
from taskfit.errors import ConfigError, Faults

__all__ = ["AnnotateConfig"]


@dataclass(frozen=True)
class AnnotateConfig:
    """How many rows, which, and for how much."""

    count: int
    """Rows to label, the audit rows among them."""
    select: Select = "random"
    """Which rows: ``random``, ``diverse`` (from clusters), ``uncertain`` (to a linear classifier), or ``mixed``."""
    audit: int | None = None
    """Random rows kept apart from training; None: a tenth of ``count``."""
    human: int = 500
    """Most rows with people's labels that the teacher labels, too, to see how good it is; 0: none."""
    seed: int = 0
    """Seed of every choice."""
    max_usd: float | None = None
    """Most money that all runs and processes of this folder may spend together."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """Of the data files."""
    has_rationales: bool = False
    """Whether what the teacher wrote goes into the data files, as reasons."""

    has_exchange: bool = False
    """Whether to draw the learning curves of people's and the teacher's labels, which takes minutes for long texts."""

    values: Mapping[str, float] | None = None
    """What each label counts, for a mean over all rows, such as -1, 0 and 1; None: there is no mean."""

    def __post_init__(self) -> None:
        faults = Faults("annotate")
        if self.values is not None and not (self.values and all(map(math.isfinite, self.values.values()))):
            faults.add(f"values must give a finite number for each label (got {dict(self.values)})")
        if self.count < 1:
            faults.add(f"count must be at least 1 (got {self.count})")
        elif not 0 <= self.audit_rows < self.count:
            faults.add(f"audit must be between 0 and count - 1 (got {self.audit})")
        if self.select not in SELECTIONS:
            faults.add(f"select must be one of {', '.join(SELECTIONS)} (got {self.select!r})")
        if self.human < 0:
            faults.add(f"human must be at least 0 (got {self.human})")
        if self.max_usd is not None and not 0 < self.max_usd < float("inf"):
            faults.add(f"max_usd must be above 0 (got {self.max_usd})")
        if self.format not in ("jsonl", "parquet"):
            faults.add(f"format must be jsonl or parquet (got {self.format!r})")
        faults.raise_as(ConfigError)

    @property
    def audit_rows(self) -> int:
        """Rows kept apart."""
        return self.count // 10 if self.audit is None else self.audit

    @property
    def identity(self) -> str:
        """What the choice of rows depends on."""
        return f"{self.count} rows, select={self.select}, audit={self.audit_rows}, human={self.human}, seed={self.seed}"
