"""The loss of tuning: cross-entropy of the supervised tokens, computed at their positions only.

The output layer is by far the widest of a small model. It is applied to the hidden states of supervised positions
alone, in chunks whose logits are recomputed going backward, so that neither prompts nor padding reach it and no
(batch, length, vocabulary) tensor ever exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from taskfit.errors import TrainingError
from taskfit.models.language_model import Architecture
from taskfit.tuning.examples import IGNORED
from taskfit.tuning.linear_loss import linear_cross_entropy_sum
from taskfit.tuning.packed import is_packable, pack, packed_hidden, packed_loss, unwrapped
from taskfit.tuning.projection import Layouts

__all__ = [
    "Chosen",
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

TOLERANCE_PACKED_BFLOAT16 = 5e-2
"""The same for hidden states through all layers: two orders of rounding differ by up to 2 % after 30 layers."""

_FULL_LOGITS = (
    "this model changes its logits after the output layer, so the loss computes them at every position (slower)"
)


@dataclass(frozen=True)
class Chosen:
    """The loss that a model is trained with.

    Attributes:
        loss_sum: see :mod:`taskfit.tuning.trainer`.
        gathers: whether only supervised positions reach the output layer.
        packs: whether padding is left out before the model computes, so that rows of any length go together.
        finding: a sentence for the user where the loss is not a usual one.
    """

    loss_sum: LossSum
    gathers: bool
    packs: bool = False
    finding: str | None = None


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
    if type(head) is torch.nn.Linear:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if head.bias is None else head.bias.to(hidden.dtype)
            return linear_cross_entropy_sum(hidden, head.weight.to(hidden.dtype), bias, targets), len(targets)
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
) -> Chosen:
    """Return the cheapest loss that is right for the model.

    The gathered loss leaves out whatever a model does to its logits after the output layer (scaling, soft-capping),
    and the packed one computes the layers itself. So each is tried once, on one batch, against the model's own
    results, and used only where they agree.

    Args:
        module: the model as it will be trained.
        architecture: of the model.
        batch: rows as :func:`taskfit.tuning.examples.collate` makes them; a few suffice.
        autocast: number format of the forward pass in training; None: that of the weights.

    Raises:
        TrainingError: the logits are not finite before training has begun.
    """
    if architecture == "encoder-decoder":
        return Chosen(sequence_to_sequence_loss, gathers=False)
    was_training = module.training
    formats = {value.dtype for value in module.parameters() if value.is_floating_point()}
    is_mixed = autocast is not None and len(formats) > 1
    device = next(module.parameters()).device.type
    packs, layouts = is_packable(module), Layouts()
    module.eval()
    try:
        with torch.no_grad(), torch.autocast(device, dtype=autocast, enabled=is_mixed):
            own = _own_logits(module, batch)[0].float()
            gathered = _gathered_or_none(module, batch)
            logits = None if gathered is None else gathered[1](gathered[0])
            hidden = packed_hidden(module, pack(batch), layouts=layouts) if packs else None
    finally:
        module.train(was_training)
    if not bool(own.isfinite().all()):
        raise TrainingError(
            "the untrained model gives logits that are not finite",
            "The model's weights or number format are broken: load it with dtype='float32'.",
        )
    is_exact = formats == {torch.float32}
    if gathered is None or logits is None or _gap(logits, own) > (TOLERANCE if is_exact else TOLERANCE_BFLOAT16):
        return Chosen(full_logits_loss, gathers=False, finding=_FULL_LOGITS)
    packs = hidden is not None and _gap(hidden, gathered[0]) <= (TOLERANCE if is_exact else TOLERANCE_PACKED_BFLOAT16)
    return Chosen(partial(packed_loss, layouts=layouts) if packs else gathered_loss, gathers=True, packs=packs)


def _gap(found: Tensor, own: Tensor) -> float:
    """Relative distance between two results that should be the same."""
    return float((found.float() - own.float()).norm() / own.float().norm().clamp_min(1e-9))


def _gathered(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Head, Tensor]:
    """(hidden states before each supervised token, output layer, the supervised tokens).

    Position i of the hidden states predicts token i + 1, so the states one before each label are gathered.
    """
    model = unwrapped(module)
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


def _gathered_or_none(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Head] | None:
    """(hidden states, output layer), or None where the model has not the usual parts."""
    try:
        hidden, head, _ = _gathered(module, batch)
    except (AttributeError, TypeError):
        return None
    return hidden, head


def _as_it_is(logits: Tensor) -> Tensor:
    return logits
