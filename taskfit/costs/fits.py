"""What fits in a given memory: methods for a model, models for a method."""

from __future__ import annotations

from dataclasses import replace

from taskfit.costs.accelerator import Accelerator
from taskfit.costs.architecture import Architecture
from taskfit.costs.catalogue import catalogue, find_architecture
from taskfit.costs.duration import training_step
from taskfit.costs.estimate import trained_tokens
from taskfit.costs.memory import memory
from taskfit.costs.need import Need
from taskfit.costs.strategies import STRATEGIES, plan_job
from taskfit.errors import ConfigError, ModelError

__all__ = ["fitting_methods", "fitting_models"]


def fitting_methods(
    architecture: Architecture, need: Need, device: Accelerator, room: float
) -> list[tuple[str, int, float]]:
    """Return the trained strategies that fit one device with ``room`` bytes: name, micro-batch, FLOP-like cost.

    Sorted by the seconds that the training would take, the cheapest first.
    """
    held, found = replace(device, memory_bytes=room), []
    for name in STRATEGIES:
        if name in ("zero-shot", "few-shot", "pretraining", "distillation"):
            continue
        try:
            job = plan_job(architecture, name, need, held)
        except ConfigError:
            continue  # the architecture does not allow it
        if job.devices == 1 and memory(job).system <= room:
            seconds = trained_tokens(job, need) / training_step(job, device).tokens_per_s(
                max(1.0, need.batch / job.batch)
            )
            found.append((name, job.batch, seconds))
    return sorted(found, key=lambda one: one[2])


def fitting_models(strategy: str, need: Need, device: Accelerator, room: float) -> list[tuple[str, int]]:
    """Return the well-known models that fit one device of ``room`` bytes with a strategy, the largest first."""
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
