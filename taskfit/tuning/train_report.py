"""How a training goes, in lines for the user; and its end when its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable

from taskfit.tuning.batches import StepPlan
from taskfit.tuning.train_run import Progress

__all__ = ["TimeIsUp", "reporter"]

SAY_EVERY_S = 10.0
"""Wall seconds between lines of progress; validations are always said."""


class TimeIsUp(Exception):  # noqa: N818 - not an error
    """Ends the training loop from inside its progress report."""


class _Counter:
    """Counts real tokens (prompts and answers, no padding) of the steps done in this call."""

    def __init__(self, plan: StepPlan) -> None:
        self.plan = plan
        self.tokens = 0
        self.started = time.monotonic()

    def rate(self, step: int) -> float:
        """Add a step (from 0), and return the tokens a wall second so far."""
        self.tokens += sum(self.plan.lengths[row] for row in self.plan.rows_at(step))
        return self.tokens / max(time.monotonic() - self.started, 1e-9)


def reporter(
    say: Callable[[str], None],
    deadline: float | None,
    plan: StepPlan,
    also: Callable[[Progress], None] | None,
) -> Callable[[Progress], None]:
    """Return a function that says how training goes, and ends it when its time is up.

    Args:
        say: takes a line.
        deadline: of ``time.monotonic``; None: there is none.
        plan: tells the tokens of each step.
        also: is told of every step, too.
    """
    said_at, counter = time.monotonic(), _Counter(plan)

    def report(progress: Progress) -> None:
        nonlocal said_at
        if also is not None:
            also(progress)
        now = time.monotonic()
        rate = counter.rate(progress.step - 1)
        if progress.validation is not None or progress.step == progress.steps or now - said_at >= SAY_EVERY_S:
            said_at = now
            say(_line(progress, rate))
        if deadline is not None and now >= deadline and progress.step < progress.steps:
            raise TimeIsUp

    return report


def _line(progress: Progress, tokens_per_s: float) -> str:
    validation = "" if progress.validation is None else f", validation {progress.validation:.4f}"
    return (
        f"step {progress.step} of {progress.steps}: loss {progress.loss:.4f}{validation}, "
        f"gradient norm {progress.gradient_norm:.2f}, {tokens_per_s:.0f} tokens/s, about {progress.left_s:.0f} s left"
    )
