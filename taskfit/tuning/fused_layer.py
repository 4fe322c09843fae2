"""One decoder layer as a single function with a gradient of its own: norm, attention, norm, gated MLP.

It computes what transformers' layers of this kind compute, on rows that lie one behind the other without padding.
Written out by hand, the layer keeps only what cannot be computed again cheaply, adds low-rank updates in the format of
the products they stand beside, computes no gradient of a frozen weight, and passes over memory less often.

Sources: the layer is that of Touvron et al. 2023 (LLaMA), section 2.2; norm: Zhang and Sennrich 2019; rotary
positions: Su et al. 2021, section 3.4.2; gated MLP: Shazeer 2020; low-rank updates: Hu et al. 2021, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from taskfit.tuning.row_attention import Rows, attend, attend_back

__all__ = ["PROJECTIONS", "FusedLayer", "LayerShape", "Projection", "layer_inputs", "rms_norm"]

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
"""The layer's linear maps, in the order in which :func:`layer_inputs` gives them."""


class Projection(NamedTuple):
    """A linear map of tokens, with or without a low-rank update: ``x W' + b + scale x A' B'``.

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


@dataclass(frozen=True)
class LayerShape:
    """What a layer is besides its weights.

    Attributes:
        head_dim: width of a head.
        attention_scale: of the scores.
        norm_eps: added to the mean square in each of the two norms.
        lora_scales: of each projection's update, in the order of ``PROJECTIONS``.
    """

    head_dim: int
    attention_scale: float
    norm_eps: tuple[float, float]
    lora_scales: tuple[float, ...]


def layer_inputs(norms: tuple[Tensor, Tensor], projections: Sequence[Projection]) -> list[Tensor | None]:
    """Return a layer's weights in the order in which :class:`FusedLayer` takes them."""
    return [*norms, *(value for projection in projections for value in projection)]


class FusedLayer(torch.autograd.Function):
    """``FusedLayer.apply(shape, rows, hidden, cos, sin, *layer_inputs(...))`` gives the hidden states after the layer.

    ``hidden`` has shape (tokens, width), ``cos`` and ``sin`` (tokens, head_dim), all weights its number format.
    """

    @staticmethod
    def forward(
        ctx: Any, shape: LayerShape, rows: Rows, hidden: Tensor, cos: Tensor, sin: Tensor, *weights: Tensor | None
    ) -> Tensor:
        """Compute the layer; see the class."""
        q, k, v, o, gate, up, down = _projections(weights)
        scales = shape.lora_scales
        seen, _ = rms_norm(hidden, _present(weights[0]), shape.norm_eps[0])
        queries, queries_low = _project(seen, q, scales[0])
        keys, keys_low = _project(seen, k, scales[1])
        values, values_low = _project(seen, v, scales[2])
        queries, keys, values = (_heads(one, shape.head_dim) for one in (queries, keys, values))
        queries, keys = _rotated(queries, cos, sin), _rotated(keys, cos, sin)
        attended, shares = attend(queries, keys, values, rows, scale=shape.attention_scale)
        attended = attended.flatten(1)
        middle, attended_low = _project(attended, o, scales[3])
        middle += hidden
        seen, _ = rms_norm(middle, _present(weights[1]), shape.norm_eps[1])
        gates, gates_low = _project(seen, gate, scales[4])
        ups, ups_low = _project(seen, up, scales[5])
        product = functional.silu(gates).mul_(ups)
        output, product_low = _project(product, down, scales[6])
        output += middle
        low = (queries_low, keys_low, values_low, attended_low, gates_low, ups_low, product_low)
        ctx.shape, ctx.rows, ctx.shares_count = shape, rows, len(shares)
        ctx.save_for_backward(
            hidden, cos, sin, queries, keys, values, attended, middle, gates, ups, *low, *shares, *weights
        )
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the hidden states and of the weights that require one."""
        hidden, cos, sin, queries, keys, values, attended, middle, gates, ups, *rest = ctx.saved_tensors
        low, shares, weights = rest[:7], rest[7 : 7 + ctx.shares_count], rest[7 + ctx.shares_count :]
        q, k, v, o, gate, up, down = _projections(weights)
        shape, scales, needs = ctx.shape, ctx.shape.lora_scales, ctx.needs_input_grad[5:]
        found: list[Tensor | None] = [None] * len(weights)

        def back(number: int, gradient: Tensor, seen: Tensor, one: Projection, onto: Tensor | None = None) -> Tensor:
            places = slice(2 + 4 * number, 6 + 4 * number)
            to_seen, found[places] = _project_back(
                gradient, seen, low[number], one, scales[number], needs[places], onto
            )
            return to_seen

        gradient = gradients[0]
        gated = functional.silu(gates)
        to_product = back(6, gradient, gated * ups, down)
        to_ups = gated.mul_(to_product)
        to_gates = torch.ops.aten.silu_backward(to_product.mul_(ups), gates)
        seen, scaled = rms_norm(middle, weights[1], shape.norm_eps[1])
        to_seen = back(4, to_gates, seen, gate)
        to_seen = back(5, to_ups, seen, up, to_seen)
        to_middle, found[1] = _rms_norm_back(to_seen, middle, scaled, weights[1], needs[1])
        to_middle += gradient

        to_attended = back(3, to_middle, attended, o)
        to_queries, to_keys, to_values = attend_back(
            _heads(to_attended, shape.head_dim), queries, keys, values, shares, ctx.rows, scale=shape.attention_scale
        )
        to_queries, to_keys = _rotated(to_queries, cos, -sin).flatten(1), _rotated(to_keys, cos, -sin).flatten(1)
        seen, scaled = rms_norm(hidden, weights[0], shape.norm_eps[0])
        to_seen = back(0, to_queries, seen, q)
        to_seen = back(1, to_keys, seen, k, to_seen)
        to_seen = back(2, to_values.flatten(1), seen, v, to_seen)
        to_hidden, found[0] = _rms_norm_back(to_seen, hidden, scaled, weights[0], needs[0])
        return None, None, to_hidden.add_(to_middle), None, None, *found


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return tokens divided by their root mean square, times ``weight``; and one over that root, shape (tokens, 1).

    The division is in float32 and is rounded before the product, as transformers does it.
    """
    wide = hidden.float() if hidden.dtype == torch.bfloat16 else hidden
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).to(hidden.dtype).mul_(weight), inverse


def _rms_norm_back(
    gradient: Tensor, hidden: Tensor, inverse: Tensor, weight: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of ``hidden`` and of ``weight``, from that of :func:`rms_norm`'s first result."""
    normed = hidden.to(inverse.dtype) * inverse
    wide = gradient.to(inverse.dtype, copy=True)
    to_weight = (wide * normed).sum(0).to(weight.dtype) if needs_weight else None
    wide.mul_(weight)
    along = (wide * normed).mean(-1, keepdim=True)
    return wide.sub_(normed.mul_(along)).mul_(inverse).to(hidden.dtype), to_weight


def _project(seen: Tensor, one: Projection, scale: float) -> tuple[Tensor, Tensor | None]:
    """(outputs, the update's low-rank values)."""
    outputs = functional.linear(seen, one.weight, one.bias)
    if one.lora_a is None or one.lora_b is None:
        return outputs, None
    low = functional.linear(seen, one.lora_a)
    return outputs.addmm_(low, one.lora_b.t(), alpha=scale), low


def _project_back(
    gradient: Tensor,
    seen: Tensor,
    low: Tensor | None,
    one: Projection,
    scale: float,
    needs: Sequence[bool],
    onto: Tensor | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """(gradient of ``seen``, added to ``onto``; gradients of the projection's four tensors)."""
    to_seen = gradient @ one.weight if onto is None else onto.addmm_(gradient, one.weight)
    to_weight = gradient.t() @ seen if needs[0] else None
    to_bias = gradient.sum(0) if needs[1] else None
    if one.lora_a is None or one.lora_b is None or low is None:
        return to_seen, [to_weight, to_bias, None, None]
    to_low = (gradient @ one.lora_b).mul_(scale)
    to_seen.addmm_(to_low, one.lora_a)
    to_a = to_low.t() @ seen if needs[2] else None
    to_b = (low.t() @ gradient).mul_(scale).t() if needs[3] else None
    return to_seen, [to_weight, to_bias, to_a, to_b]


def _rotated(tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of values i and i + head_dim / 2 by its angle; with ``-sin``: back."""
    first, second = tokens.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1).mul_(sin[:, None])
    return turned.addcmul_(tokens, cos[:, None])


def _heads(tokens: Tensor, head_dim: int) -> Tensor:
    return tokens.view(len(tokens), -1, head_dim)


def _projections(weights: Sequence[Tensor | None]) -> list[Projection]:
    return [Projection(_present(weights[at]), *weights[at + 1 : at + 4]) for at in range(2, len(weights), 4)]


def _present(weight: Tensor | None) -> Tensor:
    assert weight is not None  # norms and weights are never left out
    return weight
