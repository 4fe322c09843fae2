"""The weights of an encoder of the BERT kind as plain tensors, under names of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["LAYER_KINDS", "EncoderShape", "expected_shapes", "is_readable", "product_names", "read_weights"]

LAYER_KINDS = frozenset({"BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer"})
"""Layers that are attention and an MLP, each added to the stream and normalised after it, and nothing else."""

Pool = Literal["mean", "cls"]

_PRODUCTS = ("qkv", "out", "up", "down")
"""The products of a layer: queries, keys and values at once; out of attention; into the MLP and out of it."""


@dataclass(frozen=True)
class EncoderShape:
    """What the weights do not say of themselves.

    Attributes:
        layers, heads, width, inner: of the encoder; ``inner`` is the width inside the MLP.
        vocabulary, positions: rows of the two tables of embeddings; a text has at most ``positions`` tokens.
        classes: of the linear layer on top.
        eps: of the layer norms.
        pool: how one vector is made of a text: the mean of its hidden states, or the first of them.
    """

    layers: int
    heads: int
    width: int
    inner: int
    vocabulary: int
    positions: int
    classes: int
    eps: float
    pool: Pool


def is_readable(body: nn.Module) -> bool:
    """Whether the module's parts are those that :func:`read_weights` knows, with nothing hooked in or wrapped."""
    try:
        return _is_readable(body)
    except AttributeError:  # some part is not there at all
        return False


def read_weights(body: nn.Module, head: nn.Linear, pool: Pool) -> tuple[EncoderShape, dict[str, Tensor]]:
    """Return the shape and the weights, in float32, of an encoder for which :func:`is_readable` holds.

    The embedding of the token type is part of each position's, and queries, keys and values are one weight.
    """
    encoder: Any = body
    embeddings, layers = encoder.embeddings, encoder.encoder.layer
    padding = embeddings.position_embeddings.padding_idx  # of RoBERTa's family: positions begin behind it
    first = 0 if padding is None else padding + 1
    positions = embeddings.position_embeddings.weight[first:] + embeddings.token_type_embeddings.weight[0]
    weights = {
        "words": embeddings.word_embeddings.weight,
        "positions": positions,
        **_pair("embedded", embeddings.LayerNorm),
        **_pair("head", head),
    }
    for number, layer in enumerate(layers):
        weights |= {f"layer.{number}.{name}": value for name, value in _layer(layer).items()}
    shape = EncoderShape(
        layers=len(layers),
        heads=layers[0].attention.self.num_attention_heads,
        width=positions.shape[1],
        inner=layers[0].intermediate.dense.out_features,
        vocabulary=embeddings.word_embeddings.weight.shape[0],
        positions=positions.shape[0],
        classes=head.out_features,
        eps=embeddings.LayerNorm.eps,
        pool=pool,
    )
    return shape, {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in weights.items()}


def product_names(shape: EncoderShape) -> list[str]:
    """Return the names of all products, such as ``layer.0.qkv``."""
    return [f"layer.{number}.{part}" for number in range(shape.layers) for part in _PRODUCTS]


def expected_shapes(shape: EncoderShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that :func:`read_weights` gives for an encoder of this shape."""
    width, inner = shape.width, shape.inner
    sizes = {"qkv": (3 * width, width), "out": (width, width), "up": (inner, width), "down": (width, inner)}
    found: dict[str, tuple[int, ...]] = {
        "words": (shape.vocabulary, width),
        "positions": (shape.positions, width),
        "head.weight": (shape.classes, width),
        "head.bias": (shape.classes,),
    }
    norms = ["embedded"]
    for number in range(shape.layers):
        norms += [f"layer.{number}.norm1", f"layer.{number}.norm2"]
        for name, size in sizes.items():
            found |= {f"layer.{number}.{name}.weight": size, f"layer.{number}.{name}.bias": size[:1]}
    return found | {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}


def _layer(layer: Any) -> Mapping[str, Tensor]:
    own = layer.attention.self
    parts = (own.query, own.key, own.value)
    return {
        "qkv.weight": torch.cat([part.weight for part in parts]),
        "qkv.bias": torch.cat([part.bias for part in parts]),
        **_pair("out", layer.attention.output.dense),
        **_pair("norm1", layer.attention.output.LayerNorm),
        **_pair("up", layer.intermediate.dense),
        **_pair("down", layer.output.dense),
        **_pair("norm2", layer.output.LayerNorm),
    }


def _pair(name: str, part: Any) -> dict[str, Tensor]:
    return {f"{name}.weight": part.weight, f"{name}.bias": part.bias}


def _is_readable(body: Any) -> bool:
    if any(part._forward_hooks or part._forward_pre_hooks for part in body.modules()):
        return False
    config, embeddings, layers = body.config, body.embeddings, body.encoder.layer
    if getattr(config, "is_decoder", False) or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return False
    if config.hidden_act != "gelu" or not all(type(layer).__name__ in LAYER_KINDS for layer in layers):
        return False
    tables = (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    return len(layers) > 0 and all(type(table) is nn.Embedding for table in tables) and all(map(_is_plain, layers))


def _is_plain(layer: Any) -> bool:
    """Every product is a plain linear layer with a bias: an adapter around one would be lost."""
    own = layer.attention.self
    linears = (
        own.query,
        own.key,
        own.value,
        layer.attention.output.dense,
        layer.intermediate.dense,
        layer.output.dense,
    )
    return all(type(linear) is nn.Linear and linear.bias is not None for linear in linears)
