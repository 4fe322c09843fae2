"""A linear map of tokens with or without a low-rank update, forward and backward, on frozen weights laid out once.

On a processor a product spends part of its time on laying the weight out, above all the product that goes backward.
A frozen weight is laid out once for each direction and kept (:class:`Layouts`); a backward pass through a layer of
576 x 1536 then takes 13 % less time (bfloat16, AVX-512; see LOG.md).

Source of the update: Hu et al. 2021 (LoRA), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Layout", "Layouts", "Projection", "linear", "linear_back", "project", "project_back"]

MOST_BYTES = 2 << 30
"""Of laid out copies: they lie beside the weights, two of each."""

_FORMATS = (torch.float32, torch.bfloat16)


class Projection(NamedTuple):
    """A linear map of tokens: ``x W' + b + scale x A' B'``.

    Attributes:
        weight: W, shape (outputs, inputs).
        bias: b, shape (outputs,), or None.
        lora_a: A, shape (rank, inputs), or None.
        lora_b: B, shape (outputs, rank), or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    lora_a: Tensor | None = None
    lora_b: Tensor | None = None


class Layout(NamedTuple):
    """A frozen weight as oneDNN lays it out.

    Attributes:
        forward: of W, for ``x W'``.
        backward: of W', for ``y W``.
    """

    forward: Tensor
    backward: Tensor


class Layouts:
    """Keeps the layouts of the frozen weights of a model on a processor, as long as they are not changed.

    A weight is laid out when it is first asked for, and again when it was changed or replaced since.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self.most_bytes = most_bytes if has_onednn else 0
        self.clear()

    def clear(self) -> None:
        """Forget all layouts."""
        self.left = self.most_bytes
        self.kept: dict[int, tuple[Tensor, Tensor, int, Layout]] = {}

    def of(self, weight: Tensor) -> Layout | None:
        """Return the layout of a weight, shape (outputs, inputs); None: compute with the weight itself."""
        if weight.requires_grad or weight.device.type != "cpu" or weight.dtype not in _FORMATS:
            return None
        values = weight.detach()
        if id(weight) in self.kept:
            _, known, version, layout = self.kept[id(weight)]
            if known.data_ptr() == values.data_ptr() and version == weight._version:
                return layout
            self.left += 2 * known.nbytes
            del self.kept[id(weight)]
        if 2 * values.nbytes > self.left:
            return None
        self.left -= 2 * values.nbytes
        reorder = torch.ops.mkldnn._reorder_linear_weight
        layout = Layout(reorder(values.contiguous(), None), reorder(values.t().contiguous(), None))
        self.kept[id(weight)] = (weight, values, weight._version, layout)  # held, so that neither is another one later
        return layout


def linear(seen: Tensor, weight: Tensor, bias: Tensor | None, layout: Layout | None) -> Tensor:
    """``x W' + b``; with a layout, the weight is not read."""
    if layout is None or not len(seen):
        return functional.linear(seen, weight, bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(seen, layout.forward, bias, "none", [], "")
    return found


def linear_back(gradient: Tensor, weight: Tensor, layout: Layout | None, onto: Tensor | None = None) -> Tensor:
    """``y W``, the gradient of what :func:`linear` was given, added to ``onto`` (which may be overwritten)."""
    if layout is None or not len(gradient):
        return gradient @ weight if onto is None else onto.addmm_(gradient, weight)
    if onto is None:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(gradient, layout.backward, None, "none", [], "")
    else:
        found = torch.ops.mkldnn._linear_pointwise(gradient, onto, layout.backward, None, "add")
    return found


def project(seen: Tensor, one: Projection, scale: float, layout: Layout | None) -> tuple[Tensor, Tensor | None]:
    """(outputs, the update's low-rank values times ``scale``, shape (rank, tokens))."""
    outputs = linear(seen, one.weight, one.bias, layout)
    if one.lora_a is None or one.lora_b is None:
        return outputs, None
    low = (one.lora_a @ seen.t()).mul_(scale)  # for few ranks this way round takes half the time
    return outputs.addmm_(low.t(), one.lora_b.t()), low


def project_back(
    gradient: Tensor,
    seen: Tensor,
    low: Tensor | None,
    one: Projection,
    scale: float,
    needs: Sequence[bool],
    *,
    layout: Layout | None = None,
    onto: Tensor | None = None,
    needs_seen: bool = True,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """(gradient of ``seen``, added to ``onto``; gradients of the projection's four tensors)."""
    to_seen = linear_back(gradient, one.weight, layout, onto) if needs_seen else None
    to_weight = gradient.t() @ seen if needs[0] else None
    to_bias = gradient.sum(0) if needs[1] else None
    if one.lora_a is None or one.lora_b is None or low is None:
        return to_seen, [to_weight, to_bias, None, None]
    to_low = (one.lora_b.t() @ gradient.t()).mul_(scale)
    if to_seen is not None:
        to_seen.addmm_(to_low.t(), one.lora_a)
    to_a = to_low @ seen if needs[2] else None
    to_b = (low @ gradient).t() if needs[3] else None
    return to_seen, [to_weight, to_bias, to_a, to_b]
