"""Whether a strategy can solve a task with a model, said before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, Faults

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.task import Kind

__all__ = ["check_fit"]


def check_fit(
    strategy: Strategy, kind: Kind, architecture: Architecture | None, *, has_masked_head: bool = False
) -> None:
    """Check that a strategy can solve tasks of this kind with a model of this architecture.

    Args:
        strategy: what is to be fitted.
        kind: of the task.
        architecture: of the model; None where there is no model.
        has_masked_head: the model is an encoder that can fill masks; only strategies that put a head of their own on
            an encoder can do without.

    Raises:
        ConfigError: it cannot; all reasons together.
    """
    faults = Faults(f"strategy {strategy.name!r}")
    if kind not in strategy.kinds:
        faults.add(f"solves tasks of kind {', '.join(sorted(strategy.kinds))} (got {kind})")
    if strategy.architectures and architecture == "service" and architecture not in strategy.architectures:
        faults.add("needs a model's weights, and a service gives answers only; strategies that only prompt can use it")
    elif strategy.architectures and architecture not in strategy.architectures:
        needed = " or ".join(sorted(strategy.architectures))
        faults.add(f"needs a model of architecture {needed} (got {architecture or 'no model'})")
    elif architecture == "encoder" and strategy.architectures > {"encoder"}:
        if not has_masked_head:
            faults.add("needs a model that generates, or an encoder with a masked-token head (this one has none)")
        elif kind == "generation":
            faults.add("needs a model that generates (an encoder fills masks only)")
    faults.raise_as(ConfigError)
