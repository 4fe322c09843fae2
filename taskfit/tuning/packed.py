"""The loss of decoders of the Llama and Gemma kinds, on rows without padding, every layer one fused function.

Whether a model is of that kind is read from its modules; whether the result is the model's own is tried by
:func:`taskfit.tuning.loss.choose_loss` on real rows. Everything else takes the plain way, through the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from taskfit.tuning.examples import IGNORED
from taskfit.tuning.fused_layer import FusedLayer, LayerShape, Reading, layer_inputs
from taskfit.tuning.linear_loss import linear_cross_entropy_sum
from taskfit.tuning.projection import Layout, Layouts, Projection
from taskfit.tuning.row_attention import Rows, blocks_of

__all__ = ["Packed", "is_packable", "pack", "packed_hidden", "packed_loss", "unwrapped"]

_USUAL_NORMS = ("input_layernorm", "post_attention_layernorm", "", "")
_GEMMA3_NORMS = (
    "input_layernorm",
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
)
LAYER_KINDS = {
    "LlamaDecoderLayer": _USUAL_NORMS,
    "MistralDecoderLayer": _USUAL_NORMS,
    "Qwen2DecoderLayer": _USUAL_NORMS,
    "Qwen3DecoderLayer": _USUAL_NORMS,
    "GemmaDecoderLayer": _USUAL_NORMS,
    "Gemma3DecoderLayer": _GEMMA3_NORMS,
}
"""Layers that are a norm, rotary attention, a norm and a gated MLP, each added to the stream, and nothing else; heads
of queries and keys may be normed, as may what is added, and attention may end at a window. Beside each kind what it
calls its norms before attention, before the MLP, after attention and after the MLP."""

_EMBEDDINGS = frozenset({"Embedding", "GemmaTextScaledWordEmbedding", "Gemma3TextScaledWordEmbedding"})
_ACTIVATIONS = {"SiLU": False, "SiLUActivation": False, "GELUTanh": True}
"""What gates go through, and whether it is GELU."""

ROTARY_KINDS = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary positions whose angles depend on the position alone, not on the longest row."""

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Packed:
    """A micro-batch whose rows lie one behind the other.

    Attributes:
        ids, positions: shape (tokens,).
        rows: where each row begins and ends.
        places: tokens before a supervised one, shape (supervised,).
        targets: the supervised tokens, shape (supervised,).
    """

    ids: Tensor
    positions: Tensor
    rows: Rows
    places: Tensor
    targets: Tensor


def pack(batch: dict[str, Tensor]) -> Packed:
    """Leave out the padding of a micro-batch as :func:`taskfit.tuning.examples.collate` makes it.

    Where rows are packed of several texts, each text is a row here; padding stays, as a text of its own.
    """
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    is_real = torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()
    places = (is_real.cumsum(1) - 1)[is_real] if positions is None else positions.flatten()
    starts = (places == 0).nonzero()[:, 0].tolist()
    rows = list(zip(starts, [*starts[1:], len(places)], strict=True))
    is_before = torch.zeros_like(is_real)
    is_before[:, :-1] = batch["labels"][:, 1:] != IGNORED
    targets = batch["labels"][:, 1:][is_before[:, :-1]]
    return Packed(batch["input_ids"][is_real], places, rows, is_before[is_real].nonzero()[:, 0], targets)


def packed_loss(module: nn.Module, batch: dict[str, Tensor], *, layouts: Layouts | None = None) -> tuple[Tensor, int]:
    """(summed loss in nats, supervised tokens) of a model for which :func:`is_packable` holds.

    With ``layouts``, frozen weights are laid out once; whoever changes one behind torch's back (through ``.data``)
    must begin with new layouts.
    """
    packed = pack(batch)
    model = unwrapped(module)
    if layouts is not None and _recomputes(module):  # memory is short
        layouts.clear()
        layouts = None
    hidden = packed_hidden(module, packed, layouts=layouts)
    head = model.get_output_embeddings()
    with torch.autocast(hidden.device.type, enabled=False):
        weight, bias = head.weight.to(hidden.dtype), None if head.bias is None else head.bias.to(hidden.dtype)
        layout = _layout(head.weight, hidden.dtype, layouts)
        loss = linear_cross_entropy_sum(hidden, weight, bias, packed.targets, layout=layout)
    return loss, len(packed.targets)


def packed_hidden(module: nn.Module, packed: Packed, *, layouts: Layouts | None = None) -> Tensor:
    """Last hidden states before each supervised token, shape (supervised, width).

    They are in autocast's format where that is on, else in that of the embedding.
    """
    body = unwrapped(module).base_model
    kind = packed.ids.device.type
    embedded = body.embed_tokens(packed.ids)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embedded.dtype
    with torch.autocast(kind, enabled=False):
        hidden = embedded.to(dtype)
        with torch.no_grad():
            angles = {one: _angles(body, hidden, packed, one) for one in {_kind(layer) for layer in body.layers}}
        recomputes = _recomputes(module)
        readings: dict[tuple[int | None, bool], Reading] = {}
        for layer in body.layers:
            kind_of_layer = (_window(layer), layer is body.layers[-1])
            if kind_of_layer not in readings:
                readings[kind_of_layer] = _reading(packed, layer, hidden, is_last=kind_of_layer[1])
            reading = readings[kind_of_layer]
            bases = [(one if type(one) is nn.Linear else one.base_layer).weight for one in _linears(layer)]
            laid_out = [_layout(base, dtype, layouts) for base in bases]
            inputs = (_shape(layer), reading, laid_out, hidden, *angles[_kind(layer)], *_inputs(layer, dtype))
            if recomputes:
                hidden = checkpoint(FusedLayer.apply, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = FusedLayer.apply(*inputs)  # type: ignore[no-untyped-call]
        normed: Tensor = body.norm(hidden)
        return normed.to(dtype)


def _kind(layer: Any) -> str | None:
    """What the model calls this layer's attention, where kinds of attention differ in their rotary angles (Gemma 3)."""
    return layer.self_attn.layer_type if type(layer).__name__ == "Gemma3DecoderLayer" else None


def _angles(body: Any, hidden: Tensor, packed: Packed, kind: str | None) -> tuple[Tensor, Tensor]:
    cos, sin = body.rotary_emb(hidden[None], packed.positions[None], *([] if kind is None else [kind]))
    return cos[0], sin[0]


def _reading(packed: Packed, layer: Any, hidden: Tensor, *, is_last: bool) -> Reading:
    """What a layer computes: all but the last one every token, the last one those that are supervised next."""
    places, groups = packed.places if is_last else None, layer.self_attn.num_key_value_groups
    return Reading(blocks_of(packed.rows, places, groups, hidden, window=_window(layer)), places)


def _recomputes(module: nn.Module) -> bool:
    """Whether activations are dropped and computed again going backward."""
    layers = unwrapped(module).base_model.layers
    return module.training and any(getattr(layer, "gradient_checkpointing", False) for layer in layers)


def _window(layer: Any) -> int | None:
    """Tokens that a query sees, at most: said by the attention, or for all layers by the configuration (Mistral)."""
    attention = layer.self_attn
    everywhere = getattr(attention.config, "sliding_window", None)
    window: int | None = getattr(attention, "sliding_window", everywhere)
    return window


def is_packable(module: nn.Module) -> bool:
    """Whether the module's parts are those that the fused layer knows, with nothing hooked in or dropped out."""
    try:
        return _is_packable(module)
    except AttributeError:  # some part is not there at all
        return False


def _is_packable(module: nn.Module) -> bool:
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return False
    model = unwrapped(module)
    if model.device.type != "cpu":  # nothing was measured elsewhere, and accelerators have kernels for packed rows
        return False
    body, head = model.base_model, model.get_output_embeddings()
    if type(body.embed_tokens).__name__ not in _EMBEDDINGS or type(head) is not nn.Linear:
        return False
    if getattr(model.config, "final_logit_softcapping", None) is not None or not _is_norm(body.norm):
        return False
    rotary = body.rotary_emb.rope_type
    if not set(rotary.values() if isinstance(rotary, dict) else [rotary]) <= ROTARY_KINDS:
        return False
    return len(body.layers) == model.config.num_hidden_layers and all(_is_known(layer) for layer in body.layers)


def _is_known(layer: Any) -> bool:
    """Whether the layer is one that :class:`FusedLayer` computes."""
    attention, mlp = layer.self_attn, layer.mlp
    if type(layer).__name__ not in LAYER_KINDS or attention.attention_dropout or not attention.is_causal:
        return False
    if getattr(attention, "attn_logit_softcapping", None) is not None:
        return False
    if type(mlp.act_fn).__name__ not in _ACTIVATIONS:
        return False
    return all(_is_linear(one) for one in _linears(layer)) and all(_is_norm(norm) for norm in _norms(layer) if norm)


def _is_norm(norm: Any) -> bool:
    return type(norm).__name__.endswith("RMSNorm") and norm.weight.ndim == 1 and _epsilon(norm) > 0


def _is_linear(layer: nn.Module) -> bool:
    """A plain linear layer, or one with a single active low-rank update of the usual form."""
    if type(layer) is nn.Linear:
        return True
    lora: Any = layer
    if f"{type(lora).__module__}.{type(lora).__name__}" != "peft.tuners.lora.layer.Linear":
        return False
    name = lora.active_adapters[0]
    is_plain = len(lora.active_adapters) == 1 and not (lora.disable_adapters or lora.merged or lora.lora_variant)
    drops = not isinstance(lora.lora_dropout[name], nn.Identity)
    has_bias = lora.lora_A[name].bias is not None or lora.lora_B[name].bias is not None
    return is_plain and not drops and not has_bias and type(lora.base_layer) is nn.Linear


def _linears(layer: Any) -> list[Any]:
    return [getattr(layer.self_attn, name) for name in _ATTENTION] + [getattr(layer.mlp, name) for name in _MLP]


def _norms(layer: Any) -> list[Any]:
    """The layer's norms in the order of :func:`taskfit.tuning.fused_layer.layer_inputs`, None where there is none."""
    heads = [getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm")]
    first, second, *after = (getattr(layer, name) if name else None for name in LAYER_KINDS[type(layer).__name__])
    return [first, second, *heads, *after]


def _epsilon(norm: Any) -> float:
    """What a norm adds to the mean square; Gemma's call it otherwise."""
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def _norm_weight(norm: Any, dtype: torch.dtype) -> Tensor:
    """What a norm multiplies by. Gemma's hold how far that is from 1, and multiply before they round."""
    weight: Tensor = norm.weight
    if not type(norm).__name__.startswith("Gemma"):
        return weight.to(dtype)
    return 1.0 + (weight.float() if dtype == torch.bfloat16 else weight.to(dtype))


def _shape(layer: Any) -> LayerShape:
    return LayerShape(
        head_dim=layer.self_attn.head_dim,
        attention_scale=layer.self_attn.scaling,
        norm_eps=tuple(0.0 if norm is None else _epsilon(norm) for norm in _norms(layer)),
        has_gelu=_ACTIVATIONS[type(layer.mlp.act_fn).__name__],
        lora_scales=tuple(_scale(one) for one in _linears(layer)),
    )


def _scale(linear: Any) -> float:
    return 0.0 if type(linear) is nn.Linear else float(linear.scaling[linear.active_adapters[0]])


def _inputs(layer: Any, dtype: torch.dtype) -> Sequence[Tensor | None]:
    """The layer's weights in one number format; gradients go back to the weights in their own."""
    norms = [None if norm is None else _norm_weight(norm, dtype) for norm in _norms(layer)]
    return layer_inputs(norms, [_projection(one, dtype) for one in _linears(layer)])


def _layout(weight: Tensor, dtype: torch.dtype, layouts: Layouts | None) -> Layout | None:
    return layouts.of(weight) if layouts is not None and weight.dtype == dtype else None


def _projection(linear: Any, dtype: torch.dtype) -> Projection:
    if type(linear) is nn.Linear:
        return Projection(linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype))
    name, base = linear.active_adapters[0], linear.base_layer
    lora_a, lora_b = linear.lora_A[name].weight.to(dtype), linear.lora_B[name].weight.to(dtype)
    return Projection(base.weight.to(dtype), None if base.bias is None else base.bias.to(dtype), lora_a, lora_b)


def unwrapped(module: nn.Module) -> Any:
    """Return the transformers model inside a PEFT wrapper; its layers carry the adapters."""
    unwrap: Any = getattr(module, "get_base_model", None)
    return module if unwrap is None else unwrap()
