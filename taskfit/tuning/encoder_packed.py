"""Whether a fitted encoder may predict through :class:`taskfit.inference.packed_encoder.PackedEncoder`: tried first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from taskfit.inference.encoder_weights import LAYER_KINDS, is_readable, read_weights
from taskfit.inference.packed_encoder import PackedEncoder, float_products
from taskfit.tuning.classifier import collate_texts

if TYPE_CHECKING:
    from taskfit.tuning.classifier import EncoderClassifier

__all__ = ["TRIED_TEXTS", "try_packed"]

TRIED_TEXTS = 16

_MOST_APART = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Most that two probabilities may differ: rounding, which bfloat16 has much of."""


def try_packed(
    classifier: EncoderClassifier,
    texts: Sequence[Sequence[int]],
    pad_id: int,
    folded: Callable[[], torch.nn.Module] | None = None,
) -> PackedEncoder | None:
    """Return the classifier as a packed encoder; None where it is not of the kind, or does not give the same.

    Args:
        classifier: the fitted encoder, in evaluation mode.
        texts: token ids of some texts; the first :data:`TRIED_TEXTS` are predicted both ways.
        pad_id: the padding token.
        folded: gives a copy of the body with what was put beside its weights folded into them, where that is possible;
            asked where the body cannot be read as it is.
    """
    table = classifier.encoder.get_input_embeddings().weight  # type: ignore[operator]
    dtype = table.dtype
    if table.device.type != "cpu" or dtype not in _MOST_APART:
        return None
    body = _readable(classifier.encoder, folded)
    if body is None:
        return None
    shape, weights = read_weights(body, classifier.head, classifier.pool)
    products = float_products(weights, shape, dtype)
    packed = PackedEncoder(shape, weights, products, torch.get_num_threads(), dtype)
    return packed if _is_same(packed, classifier, texts[:TRIED_TEXTS], pad_id, _MOST_APART[dtype]) else None


def _readable(body: torch.nn.Module, folded: Callable[[], torch.nn.Module] | None) -> torch.nn.Module | None:
    if is_readable(body):
        return body
    if folded is None or not any(type(part).__name__ in LAYER_KINDS for part in body.modules()):
        return None
    copy = folded()
    return copy if is_readable(copy) else None


def _is_same(
    packed: PackedEncoder,
    classifier: EncoderClassifier,
    texts: Sequence[Sequence[int]],
    pad_id: int,
    most_apart: float,
) -> bool:
    with torch.inference_mode():
        batch = collate_texts(texts, pad_id, torch.device("cpu"))
        expected = classifier(batch["input_ids"], batch["attention_mask"]).float().softmax(-1)
        return bool((packed.logits(texts).softmax(-1) - expected).abs().max() <= most_apart)
