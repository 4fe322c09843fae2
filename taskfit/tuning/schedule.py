"""Learning-rate schedules: warm-up, then one of four decays."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Decay", "rate_share", "warmup_steps"]

Decay = Literal["linear", "cosine", "constant", "stable"]
"""How the learning rate falls after the warm-up."""


def warmup_steps(steps: int, warmup_share: float) -> int:
    """Number of warm-up steps: the share rounded up, always less than ``steps``."""
    return min(math.ceil(steps * warmup_share), steps - 1)


def rate_share(step: int, steps: int, *, warmup_share: float, decay: Decay, decay_share: float) -> float:
    """Share of the peak learning rate that optimiser step ``step`` (from 0) uses: above 0, at most 1.

    Warm-up rises linearly and its last step has the full rate. "linear" and "cosine" fall from there and would
    reach 0 at step ``steps``, one after the last, so that no step is wasted at a rate of 0. "stable" keeps the full
    rate and falls linearly over the last ``decay_share`` of all steps (warm-up–stable–decay, Hu et al. 2024,
    section 4); a decay longer than what the warm-up leaves starts right after the warm-up.
    """
    warmup = warmup_steps(steps, warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant":
        return 1.0
    falling = steps - warmup
    if decay == "stable":
        falling = min(falling, max(1, round(steps * decay_share)))
    remaining = min(1.0, (steps - step) / falling)
    if decay == "cosine":
        return 0.5 * (1.0 - math.cos(math.pi * remaining))
    return remaining
