"""One pass through a model, of which only the positions that are asked for reach the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor

from taskfit.errors import EngineError

__all__ = [
    "check_finite",
    "evaluating",
    "forward",
    "hidden_states",
    "long_tensor",
    "output_layer",
    "select_rows",
    "vocabulary_size",
]


def forward(module: Any, rows: Tensor, columns: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
    """Run a model and return the logits at some positions.

    The hidden states are gathered before the output layer, so whatever the model does to its logits after that
    (scaling, capping) is done here too.

    Args:
        module: the transformers model or a wrapper of it.
        rows: shape (positions,): the row of each position.
        columns: shape (positions,): its place in the row of ``input_ids`` or ``decoder_input_ids``.
        inputs: of the model's forward method.

    Returns:
        (logits in float32, shape (positions, vocabulary); the cache, or None)
    """
    ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    assert ids is not None
    length = int(ids.shape[1])

    def gather(_layer: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]  # (batch, length, width); longer than the ids where a method puts tokens in front
        return (hidden[rows, columns + (hidden.shape[1] - length)].unsqueeze(0), *arguments[1:])

    hook = output_layer(module).register_forward_pre_hook(gather)
    try:
        output = module(**inputs, return_dict=True)
    finally:
        hook.remove()
    logits = output.logits
    if logits.shape[:2] != (1, len(rows)):
        raise EngineError(f"{type(module).__name__} does not use its output layer the usual way; it cannot be scored")
    return logits[0].float(), getattr(output, "past_key_values", None)


def hidden_states(module: Any, columns: Tensor, **inputs: Any) -> Tensor:
    """Run a model on one row and return what its output layer is given, at some positions only.

    Args:
        module: the transformers model or a wrapper of it.
        columns: shape (positions,): places in the row of ``input_ids``; there may be none.
        inputs: of the model's forward method.

    Returns:
        hidden states, shape (positions, width)
    """
    seen: list[Tensor] = []

    def gather(_layer: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(arguments[0][0, columns])
        return (arguments[0][:, :0], *arguments[1:])  # the output layer has nothing to do

    hook = output_layer(module).register_forward_pre_hook(gather)
    try:
        module(**inputs, return_dict=True)
    finally:
        hook.remove()
    if len(seen) != 1:
        raise EngineError(f"{type(module).__name__} does not use its output layer the usual way; it cannot be scored")
    return seen[0]


def output_layer(module: Any) -> Any:
    """Return the layer that gives logits."""
    return module.get_output_embeddings()


def vocabulary_size(module: Any) -> int:
    """Return the number of logits a position has."""
    return int(output_layer(module).weight.shape[0])


def long_tensor(values: Any, device: torch.device) -> Tensor:
    """Return (nested) sequences of integers, all of one length, as a tensor."""
    return torch.tensor(values, dtype=torch.long, device=device)


def check_finite(logprobs: Tensor, model_name: str) -> None:
    """Check log-probabilities of shape (anything).

    Raises:
        EngineError: one is NaN or infinite.
    """
    if not bool(logprobs.isfinite().all()):
        raise EngineError(
            f"{model_name!r} gave a log-probability that is NaN or infinite",
            "Load it as float32; if that does not help, its weights are damaged.",
        )


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and set every part of the module back to how it was."""
    were_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in were_training:
            part.training = True


def select_rows(cache: Any, rows: Sequence[int]) -> Any:
    """Return a new cache that holds some rows of a cache, in this order; a row may come more than once.

    Layers stay of their kind: one with a window holds its last tokens only, and knows how many went before.
    """
    from transformers import EncoderDecoderCache

    if isinstance(cache, EncoderDecoderCache):
        both = (cache.self_attention_cache, cache.cross_attention_cache)
        return EncoderDecoderCache(*(select_rows(part, rows) for part in both))
    chosen = copy(cache)
    chosen.layers = [copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(torch.tensor(rows))
    return chosen
