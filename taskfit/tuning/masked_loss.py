"""The loss of masked tokens: the encoder's own head, applied where a token is hidden and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from taskfit.errors import TrainingError
from taskfit.tuning.examples import IGNORED
from taskfit.tuning.loss import TOLERANCE, TOLERANCE_BFLOAT16, Chosen, cross_entropy_sum
from taskfit.tuning.packed import unwrapped

__all__ = ["choose_masked_loss", "full_masked_loss", "masked_loss"]

_EVERYWHERE = (
    "this model's head is no function of one token's hidden state, so it is applied at every position (slower)"
)


def masked_loss(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """(summed loss in nats, masked tokens); hidden states are gathered where tokens are masked, before the head."""
    is_masked = batch["labels"] != IGNORED
    with _only(module, is_masked):
        logits = _logits(module, batch)  # (1, masked tokens, vocabulary)
    return _summed(logits[0], batch["labels"][is_masked])


def full_masked_loss(module: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """The same from the model's own logits at every position."""
    is_masked = batch["labels"] != IGNORED
    return _summed(_logits(module, batch)[is_masked], batch["labels"][is_masked])


def choose_masked_loss(
    module: torch.nn.Module, batch: dict[str, Tensor], *, autocast: torch.dtype | None = None
) -> Chosen:
    """Return the cheapest loss that is right for the encoder, tried on one batch against its own logits.

    Args:
        module: the model as it will be trained.
        batch: a few rows with ``labels``.
        autocast: number format of the forward pass in training; None: that of the weights.

    Raises:
        TrainingError: the logits are not finite before training has begun.
    """
    was_training = module.training
    module.eval()
    device = next(module.parameters()).device
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            own, tokens = full_masked_loss(module, batch)
            try:
                gathered = float(masked_loss(module, batch)[0])
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # a head with ways of its own
                gathered = float("inf")
    finally:
        module.train(was_training)
    if not bool(own.isfinite()):
        raise TrainingError(
            "the untrained model gives logits that are not finite",
            "The model's weights or number format are broken: load it with dtype='float32'.",
        )
    tolerance = TOLERANCE if autocast is None else TOLERANCE_BFLOAT16
    if abs(gathered - float(own)) <= tolerance * max(float(own), float(tokens)):
        return Chosen(masked_loss, gathers=True)
    return Chosen(full_masked_loss, gathers=False, finding=_EVERYWHERE)


def _logits(module: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits: Tensor = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def _summed(logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    return cross_entropy_sum(logits, lambda rows: rows, targets), len(targets)


@contextmanager
def _only(module: torch.nn.Module, places: Tensor) -> Iterator[None]:
    """Let the model's body hand on its hidden states at these places only, as one row; ``places`` (batch, length)."""

    def gather(body: torch.nn.Module, given: Any, made: Any) -> Any:
        made.last_hidden_state = made.last_hidden_state[places].unsqueeze(0)
        return made

    handle = unwrapped(module).base_model.register_forward_hook(gather)
    try:
        yield
    finally:
        handle.remove()
