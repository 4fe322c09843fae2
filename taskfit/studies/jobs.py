"""How many trials run at a time, and with how many threads each.

How a sum is shared among threads can change its last digits. So a trial's threads hang on the machine and on the plan
alone, never on how many trials run beside it: ``--jobs`` changes no figure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.studies.spec import TrialSpec

__all__ = ["has_room", "threads_and_jobs", "usable_cores"]

FEWEST_THREADS = 4
"""A trial is not given fewer while there are as many cores: its own steps would wait for one another."""

MEMORY_SHARE = 0.7
"""Of the machine's memory that the trials together may be expected to take; the rest is for what forecasts miss."""


def usable_cores() -> int:
    """Return the number of processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # this system does not say
        return os.cpu_count() or 1


def threads_and_jobs(
    specs: Iterable[TrialSpec], *, cores: int, memory_bytes: float, has_gpu: bool = False
) -> tuple[int, int]:
    """Return the threads of each trial, and how many trials this machine can run at a time.

    Args:
        specs: the trials of the plan.
        cores: of the machine.
        memory_bytes: of the machine.
        has_gpu: trials that share a GPU's memory are not run at a time.
    """
    most = 1 if has_gpu else max(1, cores // FEWEST_THREADS)
    needs = sorted((_need(spec, memory_bytes) for spec in specs), reverse=True)
    jobs = max((n for n in range(1, most + 1) if n == 1 or sum(needs[:n]) <= MEMORY_SHARE * memory_bytes), default=1)
    return max(1, cores // jobs), jobs


def has_room(spec: TrialSpec, running: Sequence[TrialSpec], memory_bytes: float) -> bool:
    """Say whether a trial may start beside those that run; the first always may."""
    needs = sum(_need(one, memory_bytes) for one in (*running, spec))
    return not running or needs <= MEMORY_SHARE * memory_bytes


def _need(spec: TrialSpec, memory_bytes: float) -> float:
    """Bytes that a trial is expected to take; where nobody knows, all there is, so that it runs alone."""
    if spec.forecast_memory_bytes is None:
        return memory_bytes
    return float(spec.forecast_memory_bytes)
