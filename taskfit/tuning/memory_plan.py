"""How many tokens go through the model at a time, and whether layers are computed twice to save memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["TOKEN_BUDGET", "MemoryPlan", "can_recompute", "plan_memory"]

TOKEN_BUDGET = 4096
"""Most tokens of a micro-batch to begin with; halved when memory does not suffice."""

SHARE = {"cpu": 0.4, "cuda": 0.8}
"""Share of the memory that weights, states and activations may take: other programs use a processor's as well."""

STATE_BYTES = 12
"""Of a trained weight beside itself: gradient and AdamW's two averages, in float32."""


@dataclass(frozen=True)
class MemoryPlan:
    """What is decided before training; the estimate may be wrong, so running out of memory still halves.

    Attributes:
        token_budget: most tokens of a micro-batch.
        recomputes: whether activations are dropped and computed again going backward.
    """

    token_budget: int = TOKEN_BUDGET
    recomputes: bool = False


def plan_memory(model: LanguageModel, longest: int) -> MemoryPlan:
    """Return the largest micro-batch, up to ``TOKEN_BUDGET``, whose estimate fits; recomputing only where it must.

    The estimate is that of :mod:`taskfit.costs.memory`. It is held against the machine's whole memory, not what is
    free at the moment: a resumed fit must compute in the same micro-batches to give the same bits. A model of a kind
    that the estimate does not know gets the usual plan.

    Args:
        model: prepared for training: what trains requires gradients.
        longest: tokens of the longest row.
    """
    from taskfit.costs.architecture import Architecture
    from taskfit.costs.job import Job
    from taskfit.costs.memory import kept_bytes_per_token
    from taskfit.errors import TaskfitError
    from taskfit.tuning.packed import is_packable, unwrapped
    from taskfit.tuning.projection import MOST_BYTES

    try:
        architecture = Architecture.from_config(unwrapped(model.module).config)
    except (TaskfitError, AttributeError):
        return MemoryPlan()
    trained = sum(value.numel() for value in model.module.parameters() if value.requires_grad)
    stored = sum(value.nbytes for value in model.module.parameters())
    room = SHARE.get(model.device.type, 0.4) * _memory_bytes(model.device) - stored - STATE_BYTES * trained
    frozen = sum(value.nbytes for value in model.module.parameters() if not value.requires_grad)
    laid_out = min(MOST_BYTES, 2 * frozen) if is_packable(model.module) else 0  # left out where it recomputes
    job: dict[str, Any] = {
        "method": "full" if trained > 0.5 * architecture.parameters.total else "lora",
        "length": longest,
        "weights": "float32" if model.dtype == torch.float32 else "bfloat16",
        "trained_weights": "float32",
        "profile": "taskfit",
        "attention": "eager",  # the shares of attention are kept
    }
    for recomputes in (False, True):
        kept = kept_bytes_per_token(Job(architecture, checkpointing="full" if recomputes else "none", **job))
        tokens = int((room if recomputes else room - laid_out) / kept)
        if tokens >= longest or recomputes or not can_recompute(model.module):
            return MemoryPlan(max(1, longest, min(TOKEN_BUDGET, tokens)), recomputes)
    raise AssertionError  # the second turn always returns


def can_recompute(module: torch.nn.Module) -> bool:
    """Whether the module's layers can drop their activations and compute them again going backward."""
    can_switch = hasattr(module, "activation_checkpointing_enable")
    return can_switch and bool(getattr(module, "supports_gradient_checkpointing", False))


def _memory_bytes(device: torch.device) -> int:
    """All the memory that the device has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)
