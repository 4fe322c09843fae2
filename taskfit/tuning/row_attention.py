"""Causal attention of rows that lie one behind the other in one sequence, forward and backward.

Every row attends to itself alone: the attention matrix is block-diagonal, and only its blocks are computed. Within a
row, queries go in blocks, each of which sees the keys up to its own end, so that about half of the products of a long
row are left out. Query heads that share a key head are folded into one product.

This is matrix products and a softmax, because on processors torch's fused kernel takes more than twice as long in
bfloat16, forward and backward together (see LOG.md). Source of the formulas: Dao et al. 2022 (FlashAttention), section
3 and appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Rows", "attend", "attend_back"]

Rows = Sequence[tuple[int, int]]
"""Where each row begins and ends in the sequence."""

QUERY_BLOCK = 128
"""Queries whose scores are computed together; a row of up to one and a half blocks is one block."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, rows: Rows, *, scale: float) -> tuple[Tensor, list[Tensor]]:
    """Attention of every token to the tokens of its row up to itself.

    Args:
        queries: shape (tokens, heads, head_dim).
        keys: shape (tokens, heads of keys, head_dim); ``heads`` is a multiple of theirs.
        values: like the keys.
        rows: where each row begins and ends.
        scale: of the scores.

    Returns:
        what was seen, shape (tokens, heads, head_dim), and the shares of every block for :func:`attend_back`.
    """
    output, shares = torch.empty_like(queries), []
    groups = queries.shape[1] // keys.shape[1]
    for start, stop in rows:
        row_queries = _folded(queries[start:stop], groups)
        row_keys, row_values = keys[start:stop].transpose(0, 1), values[start:stop].transpose(0, 1)
        for first, last in _blocks(stop - start):
            block = slice(first * groups, last * groups)
            share = _shares(row_queries[:, block], row_keys[:, :last], first, groups, scale)
            found = torch.bmm(share, row_values[:, :last])
            output[start + first : start + last] = _unfolded(found, groups)
            shares.append(share)
    return output, shares


def attend_back(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    shares: Sequence[Tensor],
    rows: Rows,
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, from that of :func:`attend`'s output; shapes as there."""
    to_queries, to_keys, to_values = (torch.empty_like(one) for one in (queries, keys, values))
    groups = queries.shape[1] // keys.shape[1]
    left = iter(shares)
    for start, stop in rows:
        row_queries, row_gradient = _folded(queries[start:stop], groups), _folded(gradient[start:stop], groups)
        row_keys, row_values = (one[start:stop].transpose(0, 1).contiguous() for one in (keys, values))
        row_to_keys, row_to_values = torch.zeros_like(row_keys), torch.zeros_like(row_values)
        for first, last in _blocks(stop - start):
            block, share = slice(first * groups, last * groups), next(left)
            seen = row_gradient[:, block]
            to_share = torch.bmm(seen, row_values[:, :last].transpose(1, 2))
            to_score = torch._softmax_backward_data(to_share, share, -1, share.dtype).mul_(scale)
            row_to_values[:, :last] += torch.bmm(share.transpose(1, 2), seen)
            row_to_keys[:, :last] += torch.bmm(to_score.transpose(1, 2), row_queries[:, block])
            to_queries[start + first : start + last] = _unfolded(torch.bmm(to_score, row_keys[:, :last]), groups)
        to_keys[start:stop] = row_to_keys.transpose(0, 1)
        to_values[start:stop] = row_to_values.transpose(0, 1)
    return to_queries, to_keys, to_values


def _shares(queries: Tensor, keys: Tensor, first: int, groups: int, scale: float) -> Tensor:
    """Softmax of the scores of one block whose first query is token ``first`` of its row."""
    scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
    own = keys.shape[1] - first  # only the block's own square holds keys that come after a query
    later = torch.ones(own, own, dtype=torch.bool, device=keys.device).triu_(1).repeat_interleave(groups, 0)
    scores[:, :, first:].masked_fill_(later, float("-inf"))
    return torch.softmax(scores, -1)


def _blocks(length: int) -> list[tuple[int, int]]:
    """Query blocks of a row of that many tokens: first and one past the last."""
    count = max(1, round(length / QUERY_BLOCK))
    edges = [length * block // count for block in range(count + 1)]
    return list(pairwise(edges))


def _folded(tokens: Tensor, groups: int) -> Tensor:
    """(tokens, heads, head_dim) as (heads of keys, tokens x groups, head_dim): query heads beside their key head."""
    length, heads, width = tokens.shape
    by_key = tokens.view(length, heads // groups, groups, width).transpose(0, 1)
    return by_key.reshape(heads // groups, length * groups, width)


def _unfolded(tokens: Tensor, groups: int) -> Tensor:
    """The inverse of :func:`_folded`."""
    key_heads, length, width = tokens.shape
    return tokens.view(key_heads, length // groups, groups, width).transpose(0, 1).flatten(1, 2)
