"""From hidden states to log-probabilities of chosen tokens, without the table of all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["has_plain_head", "token_logprobs"]

_TILE = 2048  # entries of the vocabulary at once: with some hundred positions this stays in the processor's cache
_TILE_ON_CUDA = 32_768


def has_plain_head(module: Any) -> bool:
    """Whether logits are one linear layer of the hidden states, and nothing is done to them after it.

    Tried on three tokens: what scales or caps logits shows there.
    """
    head = module.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return False
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _layer, arguments: seen.append(arguments[0]))
    try:
        ids = torch.tensor([[1, 2, 3]], device=head.weight.device)
        logits = module(input_ids=ids, use_cache=False, return_dict=True).logits
    finally:
        hook.remove()
    return len(seen) == 1 and logits.shape[1] == 3 and bool(torch.equal(head(seen[0]), logits))


def token_logprobs(head: torch.nn.Linear, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each (row of ``hidden``, token), in float32.

    Args:
        head: the output layer.
        hidden: shape (positions, width).
        rows: shape (asked,): positions by number.
        tokens: shape (asked,).
    """
    weight, bias = head.weight, head.bias
    most = hidden.new_full((len(hidden),), torch.finfo(torch.float32).min, dtype=torch.float32)
    total = torch.zeros_like(most)
    tile = _TILE_ON_CUDA if hidden.is_cuda else _TILE
    for first in range(0, len(weight), tile):
        part = slice(first, first + tile)
        logits = torch.nn.functional.linear(hidden, weight[part], None if bias is None else bias[part]).float()
        higher = torch.maximum(most, logits.amax(-1))
        total = total * (most - higher).exp() + logits.sub_(higher[:, None]).exp_().sum(-1)
        most = higher
    asked = (hidden[rows].float() * weight[tokens].float()).sum(-1)
    if bias is not None:
        asked = asked + bias[tokens].float()
    # The logits of the sum are rounded to the layer's number format, those asked for are not: without a bound, a token
    # that is all but certain could come out likelier than 1.
    return (asked - (most + total.log())[rows]).clamp_max(0)
