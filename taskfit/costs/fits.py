"""What fits in a given memory: methods for a model, models for a method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from taskfit.costs.accelerator import Accelerator
from taskfit.costs.architecture import Architecture
from taskfit.costs.catalogue import catalogue, find_architecture
from taskfit.costs.duration import training_step
from taskfit.costs.estimate import trained_tokens
from taskfit.costs.memory import memory
from taskfit.costs.need import Need
from taskfit.costs.strategies import STRATEGIES, plan_job, read_strategy
from taskfit.errors import ConfigError, ModelError

__all__ = ["FittingMethod", "fitting_methods", "fitting_models"]

_LEFT_OUT = ("zero-shot", "few-shot", "pretraining", "distillation")


@dataclass(frozen=True)
class FittingMethod:
    """One way to train a model on one device.

    Attributes:
        strategy: as given.
        micro_batch: most rows at once, up to those of an optimiser step.
        checkpointing: of activations, where all would not fit.
        memory_bytes: peak, as the system shows it.
        seconds: of the whole training at the modelled rate; what "cheapest" means on one device.
    """

    strategy: str
    micro_batch: int
    checkpointing: str
    memory_bytes: float
    seconds: float


def fitting_methods(
    architecture: Architecture, need: Need, device: Accelerator, room: float, strategies: Iterable[str] = ()
) -> list[FittingMethod]:
    """Return the ways to train that fit one device with ``room`` bytes, the cheapest first.

    Args:
        architecture: of the model.
        need: rows, lengths, epochs.
        device: whose rates count.
        room: bytes that may be used.
        strategies: names with settings; none: all that train on rows. What the architecture does not allow is left
            out.

    Raises:
        ConfigError: an unknown strategy or setting.
    """
    held, found = replace(device, memory_bytes=room), []
    for name in strategies or [one for one in STRATEGIES if one not in _LEFT_OUT]:
        read_strategy(name)
        try:
            job = plan_job(architecture, name, need, held)
        except ConfigError:
            continue  # the architecture does not allow it
        taken = memory(job).system
        if job.method == "prompting" or job.devices > 1 or taken > room:
            continue
        rate = training_step(job, device).tokens_per_s(max(1.0, need.batch / job.batch))
        found.append(FittingMethod(name, job.batch, job.checkpointing, taken, trained_tokens(job, need) / rate))
    return sorted(found, key=lambda one: one.seconds)


def fitting_models(strategy: str, need: Need, device: Accelerator, room: float) -> list[tuple[str, int]]:
    """Return the well-known models that fit one device of ``room`` bytes with a strategy, the largest first.

    Raises:
        ConfigError: an unknown strategy or setting.
    """
    read_strategy(strategy)
    held, found = replace(device, memory_bytes=room), []
    for name in catalogue():
        architecture = find_architecture(name)
        try:
            job = plan_job(architecture, strategy, need, held)
        except (ConfigError, ModelError):
            continue
        if job.devices == 1 and memory(job).system <= room:
            found.append((name, architecture.parameters.total))
    return sorted(found, key=lambda one: -one[1])
