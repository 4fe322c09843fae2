"""A second try with less memory: the weights as they were, and how to tell that memory ran out."""

from __future__ import annotations

import torch

__all__ = ["is_out_of_memory", "put_back", "spare_copy"]

SPARE_COPY_BYTES = 2**30
"""On the CPU, larger sets of weights are not copied for a second try: the copy itself could exhaust memory."""


def spare_copy(module: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """Return the trainable weights in main memory, for a second try; None where the copy itself could be too much."""
    trainable = {name: value for name, value in module.named_parameters() if value.requires_grad}
    on_cpu = all(value.device.type == "cpu" for value in trainable.values())
    if on_cpu and sum(value.nbytes for value in trainable.values()) > SPARE_COPY_BYTES:
        return None
    return {name: value.detach().to("cpu", copy=True) for name, value in trainable.items()}


def put_back(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Overwrite the trainable weights and drop their gradients."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in values:
                parameter.copy_(values[name])
            parameter.grad = None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch could not get memory; on the CPU it says so in words only."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in words)
