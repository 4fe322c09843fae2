"""Plain attention in training, where torch's fused one is slow going backward."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskfit.tuning.memory_plan import TOKEN_BUDGET
from taskfit.tuning.trainer import Batch, LossSum

__all__ = ["with_plain_attention"]

PLAIN_ATTENTION_VALUES = 2**24
"""Most attention scores of a layer that plain attention may hold: 32 MB in bfloat16."""

_UNKNOWN_HEADS = 12
"""Heads of a model whose configuration does not tell them."""


def with_plain_attention(
    loss_sum: LossSum, module: torch.nn.Module, longest: int, autocast: torch.dtype | None
) -> LossSum:
    """Return the loss, with plain attention where torch's fused one is slow going backward.

    On the CPU in bfloat16 the fused kernel's backward takes four to six times as long as matrix products for short
    rows. The plain one holds (rows, heads, length, length) values a layer, so long rows keep the fused kernel.

    Args:
        loss_sum: see :mod:`taskfit.tuning.trainer`.
        module: what it computes with.
        longest: tokens of the longest row.
        autocast: number format of the forward pass; None: that of the weights.
    """
    is_affected = autocast == torch.bfloat16 and next(module.parameters()).device.type == "cpu"
    heads = max(_known_heads(module), default=_UNKNOWN_HEADS)
    if not is_affected or TOKEN_BUDGET * heads * longest > PLAIN_ATTENTION_VALUES:
        return loss_sum

    def plain(module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
        with sdpa_kernel(SDPBackend.MATH):
            return loss_sum(module, batch)

    return plain


def _known_heads(module: torch.nn.Module) -> list[int]:
    """Attention heads as the configurations of the module's parts name them; empty where none does."""
    named = (getattr(getattr(part, "config", None), "num_attention_heads", None) for part in module.modules())
    return [heads for heads in named if isinstance(heads, int)]
