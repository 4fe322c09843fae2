"""One decoder layer as a single function with a gradient of its own: norm, attention, norm, gated MLP.

It computes what transformers' layers of this kind compute, on rows that lie one behind the other without padding.
Written out by hand, the layer keeps only what cannot be computed again cheaply, adds low-rank updates in the format of
the products they stand beside, computes no gradient of what is frozen, and passes over memory less often. The last
layer needs keys and values of every token, and all else only where its result is read.

Sources: the layer is that of Touvron et al. 2023 (LLaMA), section 2.2; norm: Zhang and Sennrich 2019; rotary
positions: Su et al. 2021, section 3.4.2; gated MLP: Shazeer 2020; normed heads: Dehghani et al. 2023, section 2; norms
after attention and MLP too: Gemma Team 2024 (Gemma 2), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from taskfit.tuning.projection import Layout, Projection, project, project_back
from taskfit.tuning.row_attention import Block, attend, attend_back, fold, unfold

__all__ = ["PROJECTIONS", "FusedLayer", "LayerShape", "Reading", "layer_inputs"]

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
"""The layer's linear maps, in the order in which :func:`layer_inputs` gives them."""

_NORMS = 6  # weights that stand before those of the projections


@dataclass(frozen=True)
class LayerShape:
    """What a layer is besides its weights.

    Attributes:
        head_dim: width of a head.
        attention_scale: of the scores.
        norm_eps: added to the mean square in each norm, in the order of :func:`layer_inputs`.
        has_gelu: whether gates go through GELU, by its approximation with tanh, instead of SiLU.
        lora_scales: of each projection's update, in the order of ``PROJECTIONS``.
    """

    head_dim: int
    attention_scale: float
    norm_eps: tuple[float, ...]
    has_gelu: bool
    lora_scales: tuple[float, ...]


def layer_inputs(norms: Sequence[Tensor | None], projections: Sequence[Projection]) -> list[Tensor | None]:
    """Return a layer's weights in the order in which :class:`FusedLayer` takes them.

    Args:
        norms: of the tokens before attention and before the MLP, shape (width,); of each head of the queries and of
            the keys, shape (head_dim,); of what attention and the MLP add, shape (width,). The last four are None
            where nothing is normed.
        projections: in the order of ``PROJECTIONS``.
    """
    return [*norms, *(value for projection in projections for value in projection)]


@dataclass(frozen=True)
class Reading:
    """What of a sequence a layer computes.

    Attributes:
        blocks: of queries, see :func:`taskfit.tuning.row_attention.blocks_of`.
        places: of the tokens whose hidden states after the layer are wanted, ascending; None: all.
    """

    blocks: Sequence[Block]
    places: Tensor | None = None

    def of(self, tokens: Tensor) -> Tensor:
        """Return the wanted ones of values of all tokens."""
        return tokens if self.places is None else tokens.index_select(0, self.places)

    def onto(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Add values of the wanted tokens to those of all, in place."""
        return tokens.add_(wanted) if self.places is None else tokens.index_add_(0, self.places, wanted)


class FusedLayer(torch.autograd.Function):
    """``FusedLayer.apply(shape, reading, layouts, hidden, cos, sin, *layer_inputs(...))``: hidden states afterwards.

    ``layouts`` has an entry for each of ``PROJECTIONS``. ``hidden`` has shape (tokens, width), ``cos`` and ``sin``
    (tokens, head_dim), all weights its number format.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shape: LayerShape,
        reading: Reading,
        layouts: Sequence[Layout | None],
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        *weights: Tensor | None,
    ) -> Tensor:
        """Compute the layer; see the class."""
        ones, low = _projections(weights), list[Tensor | None]()

        def ahead(number: int, seen: Tensor) -> Tensor:
            found, its_low = project(seen, ones[number], shape.lora_scales[number], layouts[number])
            low.append(its_low)
            return found

        seen = _rms_norm(hidden, _present(weights[0]), shape.norm_eps[0])[0]
        asked, keyed, values = ahead(0, reading.of(seen)), ahead(1, seen), ahead(2, seen)
        key_heads = keyed.shape[1] // shape.head_dim
        queries = _head_norm(asked, weights[2], shape.norm_eps[2])
        queries = fold(_rotated(queries, reading.of(cos), reading.of(sin)), key_heads)
        keys = fold(_rotated(_head_norm(keyed, weights[3], shape.norm_eps[3]), cos, sin), key_heads)
        values = fold(_heads(values, shape.head_dim), key_heads)
        attended, shares = attend(queries, keys, values, reading.blocks, scale=shape.attention_scale)
        attended = unfold(attended, len(ones[0].weight) // len(ones[1].weight)).flatten(1)
        added = ahead(3, attended)
        middle = _after_norm(added, weights[4], shape.norm_eps[4]).add_(reading.of(hidden))
        seen = _rms_norm(middle, _present(weights[1]), shape.norm_eps[1])[0]
        gates, ups = ahead(4, seen), ahead(5, seen)
        added_last = ahead(6, _activated(gates, shape.has_gelu).mul_(ups))
        output = _after_norm(added_last, weights[5], shape.norm_eps[5]).add_(middle)
        ctx.shape, ctx.reading, ctx.layouts, ctx.shares_count = shape, reading, layouts, len(shares)
        unnormed = [
            None if weights[at] is None else value
            for at, value in zip(range(2, _NORMS), (asked, keyed, added, added_last), strict=True)
        ]
        ctx.save_for_backward(
            hidden, cos, sin, queries, keys, values, attended, middle, gates, ups, *unnormed, *low, *shares, *weights
        )
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the hidden states and of the weights that require one."""
        hidden, cos, sin, queries, keys, values, attended, middle, gates, ups, *rest = ctx.saved_tensors
        asked, keyed, added, added_last, *rest = rest
        low, shares, weights = rest[:7], rest[7 : 7 + ctx.shares_count], rest[7 + ctx.shares_count :]
        shape, reading, ones, needs = ctx.shape, ctx.reading, _projections(weights), ctx.needs_input_grad[6:]
        found: list[Tensor | None] = [None] * len(weights)

        def back(number: int, gradient: Tensor, seen: Tensor, onto: Tensor | None = None, wanted: bool = True) -> Any:
            places = slice(_NORMS + 4 * number, _NORMS + 4 + 4 * number)
            to_seen, found[places] = project_back(
                gradient,
                seen,
                low[number],
                ones[number],
                shape.lora_scales[number],
                needs[places],
                layout=ctx.layouts[number],
                onto=onto,
                needs_seen=wanted,
            )
            return to_seen

        gradient = gradients[0]
        to_added, found[5] = _normed_back(gradient, added_last, weights[5], shape.norm_eps[5], needs[5])
        gated = _activated(gates, shape.has_gelu)
        to_product = back(6, to_added, gated * ups)
        to_ups = gated.mul_(to_product)
        to_gates = _activated_back(to_product.mul_(ups), gates, shape.has_gelu)
        seen, normed, inverse = _rms_norm(middle, weights[1], shape.norm_eps[1])
        to_seen = back(5, to_ups, seen, back(4, to_gates, seen))
        to_middle, found[1] = _rms_norm_back(to_seen, normed, inverse, weights[1], needs[1])
        to_middle += gradient

        groups = len(ones[0].weight) // len(ones[1].weight)
        to_added, found[4] = _normed_back(to_middle, added, weights[4], shape.norm_eps[4], needs[4])
        to_attended = fold(_heads(back(3, to_added, attended), shape.head_dim), len(keys))
        to_queries, to_keys, to_values = attend_back(
            to_attended, queries, keys, values, shares, reading.blocks, scale=shape.attention_scale
        )
        to_queries = _rotated(unfold(to_queries, groups).flatten(1), reading.of(cos), -reading.of(sin)).flatten(1)
        to_queries, found[2] = _normed_back(to_queries, asked, weights[2], shape.norm_eps[2], needs[2])
        to_keys = _rotated(unfold(to_keys, 1).flatten(1), cos, -sin).flatten(1)
        to_keys, found[3] = _normed_back(to_keys, keyed, weights[3], shape.norm_eps[3], needs[3])
        seen, normed, inverse = _rms_norm(hidden, weights[0], shape.norm_eps[0])
        wanted = ctx.needs_input_grad[3] or needs[0]  # nothing below the first layer may be trained
        to_asking = back(0, to_queries, reading.of(seen), wanted=wanted)
        to_seen = back(1, to_keys, seen, to_asking if reading.places is None else None, wanted)
        to_seen = back(2, unfold(to_values, 1).flatten(1), seen, to_seen, wanted)
        if not wanted:
            return None, None, None, None, None, None, *found
        if reading.places is not None:
            reading.onto(to_seen, to_asking)
        to_hidden, found[0] = _rms_norm_back(to_seen, normed, inverse, weights[0], needs[0])
        return None, None, None, reading.onto(to_hidden, to_middle), None, None, *found


def _rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens divided by their root mean square, times ``weight``; without it; and one over that root, (tokens, 1).

    The division is in float32 and is rounded before the product, as transformers does it, but for wide weights
    (Gemma's), where it is rounded after it; the other two stay wide.
    """
    wide = hidden.float() if hidden.dtype == torch.bfloat16 else hidden
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1]).add_(eps).rsqrt_()
    normed = wide * inverse if wide is hidden else wide.mul_(inverse)
    if weight.dtype != hidden.dtype:
        return (normed * weight).to(hidden.dtype), normed, inverse
    return normed.to(hidden.dtype, copy=True).mul_(weight), normed, inverse


def _rms_norm_back(
    gradient: Tensor, normed: Tensor, inverse: Tensor, weight: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the tokens and of ``weight``, from that of :func:`_rms_norm`'s first result; spoils ``normed``."""
    wide = gradient.to(inverse.dtype, copy=True)
    to_weight = (wide * normed).sum(0).to(weight.dtype) if needs_weight else None
    wide.mul_(weight)
    along = (wide * normed).mean(-1, keepdim=True)
    return wide.sub_(normed.mul_(along)).mul_(inverse).to(gradient.dtype), to_weight


def _head_norm(tokens: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Each head by itself normed, where the model does so; shape (tokens, heads x head_dim)."""
    return tokens if weight is None else _rms_norm(tokens.view(-1, len(weight)), weight, eps)[0].view_as(tokens)


def _after_norm(added: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """What attention or the MLP adds to the stream, normed where the model does so."""
    return added if weight is None else _rms_norm(added, weight, eps)[0]


def _activated(gates: Tensor, has_gelu: bool) -> Tensor:
    return functional.gelu(gates, approximate="tanh") if has_gelu else functional.silu(gates)


def _activated_back(gradient: Tensor, gates: Tensor, has_gelu: bool) -> Tensor:
    found: Tensor
    if has_gelu:
        found = torch.ops.aten.gelu_backward(gradient, gates, approximate="tanh")
    else:
        found = torch.ops.aten.silu_backward(gradient, gates)
    return found


def _normed_back(
    gradient: Tensor, tokens: Tensor | None, weight: Tensor | None, eps: float, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients before a norm of tokens, or of heads, that may not be there, and of its weight."""
    if weight is None or tokens is None:
        return gradient, None
    _, normed, inverse = _rms_norm(tokens.view(-1, len(weight)), weight, eps)
    to_tokens, to_weight = _rms_norm_back(gradient.view(-1, len(weight)), normed, inverse, weight, needs_weight)
    return to_tokens.view_as(tokens), to_weight


def _rotated(tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads whose pairs of values i and i + head_dim / 2 are turned by their angles; with ``-sin``: back."""
    heads = _heads(tokens, cos.shape[1])
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1).mul_(sin[:, None])
    return turned.addcmul_(heads, cos[:, None])


def _heads(tokens: Tensor, head_dim: int) -> Tensor:
    return tokens.view(len(tokens), tokens.shape[1] // head_dim, head_dim)


def _projections(weights: Sequence[Tensor | None]) -> list[Projection]:
    return [Projection(_present(weights[at]), *weights[at + 1 : at + 4]) for at in range(_NORMS, len(weights), 4)]


def _present(weight: Tensor | None) -> Tensor:
    assert weight is not None  # weights of projections and norms of tokens are never left out
    return weight
