"""Cross-entropy from hidden states and an output layer, a few tokens at a time, forward and backward in one go.

The gradient of a chunk's logits is known as soon as its softmax is. So it is multiplied into the gradients at once and
the logits are dropped: they are never computed twice, and only one chunk of them is ever in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from taskfit.tuning.projection import Layout, linear, linear_back

__all__ = ["linear_cross_entropy_sum"]

CHUNK_LOGITS = 2**24
"""Logits in memory at a time: 32 MB in bfloat16. A chunk has at least ``LEAST_TOKENS`` all the same."""

SOFTMAX_LOGITS = 2**20
"""Logits whose softmax is computed at a time, in float32: few enough to stay in the processor's cache."""

LEAST_TOKENS = 64
"""Fewer rows than this make slow matrix products."""


def linear_cross_entropy_sum(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, layout: Layout | None = None
) -> Tensor:
    """Sum of -log softmax(hidden weight' + bias)[target] in nats, float32 scalar; the softmax in float32.

    Args:
        hidden: shape (tokens, width).
        weight: shape (vocabulary, width), the number format of ``hidden``.
        bias: shape (vocabulary,), or None.
        targets: ids, shape (tokens,).
        layout: of the weight, where it is frozen and laid out.

    Gradients are computed with the loss, and only of what requires them; second derivatives are not available.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, layout)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, layout: Layout | None
    ) -> Tensor:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden) if needs_hidden else None
        # Sums over chunks are kept in float32: many small terms would be lost in bfloat16.
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        to_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs_bias else None
        step = max(LEAST_TOKENS, CHUNK_LOGITS // len(weight))
        for start in range(0, len(targets), step):
            rows = slice(start, start + step)
            logits = linear(hidden[rows], weight, bias, layout)
            total -= _log_shares(logits, targets[rows], becomes_gradient=needs_hidden or needs_weight or needs_bias)
            if to_hidden is not None:
                to_hidden[rows] = linear_back(logits, weight, layout)
            if to_weight is not None:
                to_weight += logits.t() @ hidden[rows]
            if to_bias is not None:
                to_bias += logits.sum(0, dtype=torch.float32)
        ctx.save_for_backward(to_hidden, to_weight, to_bias)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_hidden, to_weight, to_bias = ctx.saved_tensors
        factor = gradients[0]
        return (
            None if to_hidden is None else to_hidden * factor.to(to_hidden.dtype),
            None if to_weight is None else (to_weight * factor).to(ctx.dtype),
            None if to_bias is None else (to_bias * factor).to(ctx.dtype),
            None,
            None,
        )


def _log_shares(logits: Tensor, targets: Tensor, *, becomes_gradient: bool) -> Tensor:
    """Sum of log softmax(logits)[target]; ``logits`` are overwritten by the loss's gradient where that is wanted."""
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    step = max(1, SOFTMAX_LOGITS // logits.shape[1])
    for start in range(0, len(logits), step):
        part, chosen = logits[start : start + step], targets[start : start + step, None]
        wide = part.to(_wide(part.dtype), copy=True)
        wide -= wide.amax(-1, keepdim=True)
        own = wide.gather(1, chosen)
        sums = wide.exp_().sum(-1, keepdim=True)
        total += (own - sums.log()).sum().float()
        if becomes_gradient:
            part.copy_(wide.div_(sums).scatter_add_(1, chosen, torch.full_like(own, -1.0)))
    return total


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The format of the softmax: float32, or float64 where the model is."""
    return torch.float64 if dtype == torch.float64 else torch.float32
