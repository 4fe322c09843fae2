"""What attention functions of our own share: how transformers calls them, and attention with its log-sums.

An attention that is computed in parts needs the logarithm of each part's sum of exponentials, by which the parts are
merged without an error (Dao et al. 2022 (FlashAttention), section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taskfit.models.quiet import quiet_transformers

__all__ = ["How", "Inner", "attend", "attending_by", "bias_of"]

_MOST_SCORES = 1 << 24  # scores that are kept at once where no fused kernel gives the logarithm of their sum


@dataclass(frozen=True)
class How:
    """How a layer attends.

    Attributes:
        scale: what scores are multiplied by.
        window: how many positions back it sees, itself included; 0: all.
        cap: scores are bent to stay below this; None: they are not.
    """

    scale: float
    window: int
    cap: float | None


Inner = Callable[[torch.nn.Module, Tensor, Tensor, Tensor, How], Tensor]
"""Takes a layer, and queries, keys and values of shape (heads, tokens, head_dim); returns (tokens, heads, head_dim)."""


@contextmanager
def attending_by(module: Any, name: str, inner: Inner) -> Iterator[None]:
    """Let a model attend by ``inner``, which transformers knows as ``name``, and give it its own attention back."""
    from transformers import AttentionInterface

    AttentionInterface.register(name, _as_transformers_calls(inner))
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    before = base.config._attn_implementation
    with quiet_transformers():
        base.set_attn_implementation(name)
    try:
        yield
    finally:
        with quiet_transformers():
            base.set_attn_implementation(before)


def _as_transformers_calls(inner: Inner) -> Callable[..., tuple[Tensor, None]]:
    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """Attend; the signature is transformers'. Query of shape (1, heads, tokens, head_dim)."""
        if attention_mask is not None or others.get("s_aux") is not None or others.get("position_bias") is not None:
            raise ValueError("attention with a mask, sinks or a bias of its own cannot be computed in parts")
        how = How(scaling if scaling is not None else query.shape[-1] ** -0.5, sliding_window or 0, softcap)
        return inner(module, query[0], key[0], value[0], how)[None], None

    return attention


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    how: How,
    *,
    is_causal: bool = False,
    is_fused: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return attention like ``queries``, and the logarithms of its sums of exponentials in float32.

    Args:
        queries: shape (batch, heads, rows, head_dim).
        keys: shape (batch, heads, columns, head_dim).
        values: like ``keys``.
        bias: added to scores; broadcasts to (batch, heads, rows, columns).
        how: scale and cap (the window is already in ``bias``).
        is_causal: without a bias, see what is before; else everything.
        is_fused: use a fused kernel where there is one (it gives NaN to a row that sees nothing).
    """
    is_causal = is_causal and bias is None
    if is_fused and how.cap is None and queries.device.type == "cpu":
        found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, is_causal, attn_mask=bias, scale=how.scale
        )
        return found, sums
    if is_causal:
        length = queries.shape[2]
        bias = bias_of(torch.ones(length, length, dtype=torch.bool, device=queries.device).tril(), queries.dtype)
    rows = max(1, _MOST_SCORES // (queries.shape[0] * queries.shape[1] * keys.shape[2]))
    parts = [
        _attend_plainly(part, keys, values, None if bias is None else bias[..., number * rows :, :], how)
        for number, part in enumerate(torch.split(queries, rows, dim=2))
    ]
    return torch.cat([found for found, _ in parts], dim=2), torch.cat([sums for _, sums in parts], dim=2)


def _attend_plainly(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, how: How
) -> tuple[Tensor, Tensor]:
    scores = torch.matmul(queries, keys.transpose(-1, -2)).float() * how.scale
    if how.cap is not None:
        scores = torch.tanh(scores / how.cap) * how.cap
    if bias is not None:
        scores = scores + bias[..., : scores.shape[-2], :]
    sums = scores.logsumexp(-1)
    weights = (scores - sums.clamp_min(torch.finfo(torch.float32).min)[..., None]).exp()  # 0 where nothing is seen
    return torch.matmul(weights.to(values.dtype), values), sums


def bias_of(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where ``sees`` is true, else minus infinity."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, float("-inf"))
