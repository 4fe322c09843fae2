"""Whether a launcher (``accelerate launch``, ``torchrun``) has started this process beside others."""

from __future__ import annotations

import os

__all__ = ["is_first_process", "is_launched"]

_SET = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
"""What launchers set in every process."""


def is_launched() -> bool:
    """Return whether this process is one of several that train together."""
    return all(name in os.environ for name in _SET) and int(os.environ["WORLD_SIZE"]) > 1


def is_first_process() -> bool:
    """Return whether this process is the one that says what happens and writes results."""
    return not is_launched() or int(os.environ["RANK"]) == 0
