"""What ends a training that cannot end well: numbers that are not finite, and losses that only rise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from taskfit.errors import TrainingError

__all__ = ["check_course", "check_finite"]

DIVERGED_NATS = 3.0
"""Rise of the loss, mean of ``DIVERGED_STEPS`` steps against that of the first ones, at which training has diverged."""

DIVERGED_STEPS = 10
"""Steps whose mean loss is taken for either."""


def check_finite(value: float, what: str, where: str) -> None:
    """Refuse a number that is not finite.

    Raises:
        TrainingError: naming ``what`` it is and ``where`` it came up.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} is {value} at {where}",
            "Lower the learning rate or clip_norm; if it happens at step 1, look for wrong values in the data.",
        )


def check_course(losses: Sequence[float]) -> None:
    """Stop a training whose loss has risen far above where it began: it is not coming back.

    Args:
        losses: of every step done, in nats a token.

    Raises:
        TrainingError: with both means.
    """
    if len(losses) < 2 * DIVERGED_STEPS:
        return
    first, last = (sum(part) / DIVERGED_STEPS for part in (losses[:DIVERGED_STEPS], losses[-DIVERGED_STEPS:]))
    if last > first + DIVERGED_NATS:
        raise TrainingError(
            f"training has diverged: over the {DIVERGED_STEPS} steps up to step {len(losses)} the loss is {last:.2f} "
            f"nats a token, over the first {DIVERGED_STEPS} it was {first:.2f}",
            "Lower the learning rate, or warm up over more steps.",
        )
