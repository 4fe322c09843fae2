"""The loss of tuning: cross-entropy of the supervised tokens, computed at their positions only.

The output layer is by far the widest of a small model. It is applied to the hidden states of supervised positions
alone, in chunks whose logits are recomputed going backward, so that neither prompts nor padding reach it and no
(batch, length, vocabulary) tensor ever exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from taskfit.errors import TrainingError
from taskfit.models.language_model import Architecture
from taskfit.tuning.examples import IGNORED

__all__ = [
    "choose_loss",
    "cross_entropy_sum",
    "full_logits_loss",
    "gathered_loss",
    "sequence_to_sequence_loss",
    "with_penalty",
]

LossSum = Callable[[torch.nn.Module, dict[str, Tensor]], tuple[Tensor, int]]
"""(summed loss in nats, supervised tokens) of one micro-batch."""

Head = Callable[[Tensor], Tensor]
"""Maps hidden states (tokens, width) to logits (tokens, vocabulary)."""

CHUNK_TOKENS = 1024
"""Supervised positions whose logits are in memory at a time."""

TOLERANCE = 1e-4
"""Largest relative difference between gathered logits and the model's own that counts as rounding, in float32."""

TOLERANCE_BFLOAT16 = 2e-2
"""The same for weights in bfloat16, which keeps three digits."""


def cross_entropy_sum(hidden: Tensor, head: Head, targets: Tensor, *, chunk_tokens: int = CHUNK_TOKENS) -> Tensor:
    """Sum of -log p(target) in nats, the softmax in float32.

    Args:
        hidden: shape (tokens, width).
        head: maps (tokens, width) to logits (tokens, vocabulary).
        targets: ids, shape (tokens,).
        chunk_tokens: tokens whose logits are in memory at a time; with more than one chunk, logits are recomputed
            going backward.
    """

    def chunk_loss(chunk: Tensor, chunk_targets: Tensor) -> Tensor:
        return functional.cross_entropy(head(chunk).float(), chunk_targets, reduction="sum")

    if len(targets) <= chunk_tokens:
        return chunk_loss(hidden, targets)
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), chunk_tokens):
        rows = slice(start, start + chunk_tokens)
        total = total + checkpoint(chunk_loss, hidden[rows], targets[rows], use_reentrant=False)
    return total


def gathered_loss(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Loss of a decoder whose logits are its output layer applied to its last hidden states."""
    hidden, head, targets = _gathered(module, batch)
    return cross_entropy_sum(hidden, head, targets), len(targets)


def full_logits_loss(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Loss of any decoder, from the logits it gives itself at every position."""
    logits, targets = _own_logits(module, batch)
    return cross_entropy_sum(logits, _as_it_is, targets), len(targets)


def sequence_to_sequence_loss(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Loss of an encoder–decoder; its decoder reads the labels shifted right, as transformers does it."""
    logits = module(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"], use_cache=False
    ).logits  # (batch, answer length, vocabulary)
    is_supervised = batch["labels"] != IGNORED
    loss = cross_entropy_sum(logits[is_supervised], _as_it_is, batch["labels"][is_supervised])
    return loss, int(is_supervised.sum())


def with_penalty(loss_sum: LossSum, penalty: Callable[[], Tensor] | None) -> LossSum:
    """Return a loss whose mean over the supervised tokens is larger by ``penalty()``, whatever the micro-batches."""
    if penalty is None:
        return loss_sum

    def penalised(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        loss, tokens = loss_sum(module, batch)
        return loss + tokens * penalty(), tokens

    return penalised


def choose_loss(
    module: torch.nn.Module,
    architecture: Architecture,
    batch: dict[str, Tensor],
    *,
    autocast: torch.dtype | None = None,
) -> tuple[LossSum, str | None]:
    """Return the cheapest loss that is right for the model, and a sentence for the user where it is not the usual one.

    The gathered loss leaves out whatever a model does to its logits after the output layer (scaling, soft-capping).
    So the logits are computed both ways once, on one batch, and the gathered loss is used only where they agree.
    Weights of several number formats work together only under ``autocast``, as they will in training.

    Raises:
        TrainingError: the logits are not finite before training has begun.
    """
    if architecture == "encoder-decoder":
        return sequence_to_sequence_loss, None
    was_training = module.training
    formats = {value.dtype for value in module.parameters() if value.is_floating_point()}
    is_mixed = autocast is not None and len(formats) > 1
    device = next(module.parameters()).device.type
    module.eval()
    try:
        with torch.no_grad(), torch.autocast(device, dtype=autocast, enabled=is_mixed):
            own = _own_logits(module, batch)[0].float()
            gathered = _gathered_logits(module, batch)
    finally:
        module.train(was_training)
    if not bool(own.isfinite().all()):
        raise TrainingError(
            "the untrained model gives logits that are not finite",
            "The model's weights or number format are broken: load it with dtype='float32'.",
        )
    tolerance = TOLERANCE if formats == {torch.float32} else TOLERANCE_BFLOAT16
    if gathered is not None and float((gathered - own).norm() / own.norm().clamp_min(1e-9)) <= tolerance:
        return gathered_loss, None
    return full_logits_loss, (
        "this model changes its logits after the output layer, so the loss computes them at every position (slower)"
    )


def _gathered(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Head, Tensor]:
    """(hidden states before each supervised token, output layer, the supervised tokens).

    Position i of the hidden states predicts token i + 1, so the states one before each label are gathered.
    """
    model = _unwrapped(module)
    hidden = model.base_model(**_read(batch), use_cache=False).last_hidden_state
    targets = batch["labels"][:, 1:]
    is_supervised = targets != IGNORED
    return hidden[:, :-1][is_supervised], model.get_output_embeddings(), targets[is_supervised]


def _own_logits(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(the model's logits before each supervised token, the supervised tokens)."""
    logits = module(**_read(batch), use_cache=False).logits  # (batch, length, vocabulary)
    targets = batch["labels"][:, 1:]
    is_supervised = targets != IGNORED
    return logits[:, :-1][is_supervised], targets[is_supervised]


def _read(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the model reads of a batch: a mask, or positions that begin anew with each text packed into a row."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}


def _gathered_logits(module: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor | None:
    """The output layer's logits, or None where the model has not the usual parts."""
    try:
        hidden, head, _ = _gathered(module, batch)
        return head(hidden).float()
    except (AttributeError, TypeError):
        return None


def _unwrapped(module: torch.nn.Module) -> Any:
    """The transformers model inside a PEFT wrapper; its layers carry the adapters."""
    unwrap: Any = getattr(module, "get_base_model", None)
    return module if unwrap is None else unwrap()


def _as_it_is(logits: Tensor) -> Tensor:
    return logits
