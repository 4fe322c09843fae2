"""Encoders over many texts on a processor: no padding, weights laid out once, in float32 or bfloat16.

Texts of a batch lie one behind the other, sorted by length; attention goes over each run of texts of one length at
once, so nothing is ever padded or masked. A batch is computed by one thread, several batches at once: what a text is
given does not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from taskfit.inference.encoder_weights import EncoderShape, product_names

__all__ = ["BATCH_TOKENS", "PackedEncoder", "Product", "float_products", "packed_batches"]

BATCH_TOKENS = 2048
"""Tokens of a batch: what a layer holds of them fits a processor's second-level cache; a longer text is alone."""


class Product(Protocol):
    """One product of a layer with its weight."""

    def __call__(self, inputs: Tensor, *, other: Tensor | None = None, is_gelu: bool = False) -> Tensor:
        """Return ``inputs @ weight.T + bias``, then gelu of it, or ``other`` added; shape (tokens, outputs)."""
        ...


class PackedEncoder:
    """An encoder of the BERT kind with a linear layer on top.

    Args:
        shape: see :class:`EncoderShape`.
        weights: tables, norms and head as :func:`taskfit.inference.encoder_weights.read_weights` names them.
        products: the layers' products by name, such as ``layer.0.qkv``.
        threads: batches computed at once.
        dtype: of the stream between the products.
    """

    def __init__(
        self,
        shape: EncoderShape,
        weights: Mapping[str, Tensor],
        products: Mapping[str, Product],
        threads: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.shape = shape
        self.products = products
        own = product_names(shape)
        rest = {name: value for name, value in weights.items() if name.rpartition(".")[0] not in own}
        self._rest = {name: value.to(dtype) for name, value in rest.items()}
        self._head = (weights["head.weight"].float(), weights["head.bias"].float())
        self._pool = ThreadPoolExecutor(threads, "encoder", initializer=torch.set_num_threads, initargs=(1,))

    def logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of the classes, float32, shape (texts, classes), in the order of the texts.

        Args:
            texts: token ids with the special tokens around them, each at least 1 and at most ``shape.positions``.
        """
        found = torch.empty(len(texts), self.shape.classes)
        batches = packed_batches([len(ids) for ids in texts], BATCH_TOKENS)
        chosen = ([texts[index] for index in batch] for batch in batches)
        for batch, values in zip(batches, self._pool.map(self.batch_logits, chosen), strict=True):
            found[batch] = values
        return found

    @torch.inference_mode()
    def batch_logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of one batch; its texts are computed together, those of one length side by side."""
        runs = [(len(list(run)), length) for length, run in groupby(len(ids) for ids in texts)]
        hidden = self._embedded(texts, runs)
        for number in range(self.shape.layers):
            hidden = self._layer(f"layer.{number}", hidden, runs)
        return functional.linear(self._pooled(hidden, runs).float(), *self._head)

    def _embedded(self, texts: Sequence[Sequence[int]], runs: Sequence[tuple[int, int]]) -> Tensor:
        ids = torch.tensor([token for text in texts for token in text])
        places = torch.cat([torch.arange(length).repeat(count) for count, length in runs])
        return self._normed("embedded", self._rest["words"][ids] + self._rest["positions"][places])

    def _layer(self, name: str, hidden: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        seen = self._attended(self.products[f"{name}.qkv"](hidden), runs)
        hidden = self._normed(f"{name}.norm1", self.products[f"{name}.out"](seen, other=hidden))
        inner = self.products[f"{name}.up"](hidden, is_gelu=True)
        return self._normed(f"{name}.norm2", self.products[f"{name}.down"](inner, other=hidden))

    def _attended(self, qkv: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """Attention of every token to all of its text, shape (tokens, width)."""
        width, heads = self.shape.width, self.shape.heads
        seen = qkv.new_empty(len(qkv), width)
        first = 0
        for count, length in runs:
            own = slice(first, first + count * length)
            by_head = qkv[own].view(count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            found = functional.scaled_dot_product_attention(*by_head)
            seen[own].view(count, length, heads, width // heads).copy_(found.transpose(1, 2))
            first = own.stop
        return seen

    def _pooled(self, hidden: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """One vector a text, shape (texts, width)."""
        parts = torch.split(hidden, [count * length for count, length in runs])
        texts = [part.view(count, length, -1) for part, (count, length) in zip(parts, runs, strict=True)]
        if self.shape.pool == "cls":
            return torch.cat([text[:, 0] for text in texts])
        return torch.cat([text.float().mean(1) for text in texts])

    def _normed(self, name: str, values: Tensor) -> Tensor:
        weight, bias = self._rest[f"{name}.weight"], self._rest[f"{name}.bias"]
        return functional.layer_norm(values, (self.shape.width,), weight, bias, self.shape.eps)


def float_products(
    weights: Mapping[str, Tensor], shape: EncoderShape, dtype: torch.dtype = torch.float32
) -> dict[str, Product]:
    """Return the layers' products in float32 or bfloat16, their weights laid out for the processor."""
    pairs = {name: (weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in product_names(shape)}
    return {name: _FloatProduct(weight.to(dtype), bias.to(dtype)) for name, (weight, bias) in pairs.items()}


def packed_batches(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Split texts, sorted by length, into batches of at most ``most_tokens`` tokens; a longer text is alone.

    Returns:
        Indices of the texts, longest first; every text once. Equal lengths keep their order.
    """
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or tokens + lengths[index] > most_tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(index)
        tokens += lengths[index]
    return batches


class _FloatProduct:
    """A product in float32 or bfloat16: by oneDNN where it is there, with the weight laid out once."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias, self.packed = weight, bias, None
        if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def __call__(self, inputs: Tensor, *, other: Tensor | None = None, is_gelu: bool = False) -> Tensor:
        found: Tensor
        if self.packed is None:
            found = functional.linear(inputs, self.weight, self.bias)
            found = functional.gelu(found) if is_gelu else found
            return found if other is None else found + other
        if other is not None:
            found = torch.ops.mkldnn._linear_pointwise.binary(inputs, other, self.packed, self.bias, "add")
        else:
            attribute: tuple[str, list[float], str] = ("gelu", [], "none") if is_gelu else ("none", [], "")
            found = torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, *attribute)
        return found
