"""Causal attention of rows that lie one behind the other in one sequence, forward and backward.

Every row attends to itself alone: the attention matrix is block-diagonal, and only its blocks are computed. Within a
row, queries go in blocks, each of which sees the keys up to its own end, so that about half of the products of a long
row are left out. Query heads that share a key head are folded into one product. Queries may be fewer than keys: where
only some positions are read afterwards, only these ask.

This is matrix products and a softmax, because on processors torch's fused kernel takes more than twice as long in
bfloat16, forward and backward together (see LOG.md). Source of the formulas: Dao et al. 2022 (FlashAttention), section
3 and appendix B.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Block", "Rows", "attend", "attend_back", "blocks_of", "fold", "unfold"]

Rows = Sequence[tuple[int, int]]
"""Where each row begins and ends in the sequence."""

QUERY_BLOCK = 96
"""Queries whose scores are computed together; a row of up to one and a half blocks is one block."""


class Block(NamedTuple):
    """Queries whose scores are computed together.

    Attributes:
        queries: where they lie among the folded queries.
        keys: the keys that one of them at least may see.
        mask: 0 where a query may see a key, else minus infinity; shape (queries, keys).
    """

    queries: slice
    keys: slice
    mask: Tensor


def blocks_of(
    rows: Rows, places: Tensor | None, groups: int, like: Tensor, *, window: int | None = None
) -> list[Block]:
    """Return the blocks of queries of all rows.

    Args:
        rows: where each row begins and ends.
        places: of the queries in the sequence, ascending; None: every token asks.
        groups: query heads of a key head.
        like: a tensor of the scores' number format and device.
        window: tokens that a query sees, itself the last; None: all up to itself.
    """
    asking = list(range(rows[-1][1] if rows else 0)) if places is None else places.tolist()
    blocks = []
    for start, stop in rows:
        first, last = bisect_left(asking, start), bisect_left(asking, stop)
        for begin, end in _split(first, last):
            own = torch.tensor(asking[begin:end], device=like.device)
            own = own.repeat_interleave(groups)[:, None]
            keys = slice(start if window is None else max(start, asking[begin] + 1 - window), asking[end - 1] + 1)
            places_of_keys = torch.arange(keys.start, keys.stop, device=like.device)
            is_hidden = places_of_keys > own
            if window is not None:
                is_hidden |= places_of_keys <= own - window
            mask = like.new_zeros(is_hidden.shape).masked_fill_(is_hidden, float("-inf"))
            blocks.append(Block(slice(begin * groups, end * groups), keys, mask))
    return blocks


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[Block], *, scale: float
) -> tuple[Tensor, list[Tensor]]:
    """Attention of every query to the tokens of its row up to itself.

    Args:
        queries: shape (heads of keys, queries x groups, head_dim), as :func:`fold` makes it.
        keys: shape (heads of keys, tokens, head_dim).
        values: like the keys.
        blocks: see :func:`blocks_of`.
        scale: of the scores.

    Returns:
        what was seen, in the shape of the queries, and the shares of every block for :func:`attend_back`.
    """
    output, shares = torch.empty_like(queries), []
    for block in blocks:
        seen = keys[:, block.keys].transpose(1, 2)
        share = torch.baddbmm(block.mask, queries[:, block.queries], seen, alpha=scale).softmax(-1)
        torch.bmm(share, values[:, block.keys], out=output[:, block.queries])
        shares.append(share)
    return output, shares


def attend_back(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    shares: Sequence[Tensor],
    blocks: Sequence[Block],
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, from that of :func:`attend`'s output; shapes as there."""
    to_queries, to_keys, to_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    for block, share in zip(blocks, shares, strict=True):
        seen = gradient[:, block.queries]
        to_share = torch.bmm(seen, values[:, block.keys].transpose(1, 2))
        to_score = torch._softmax_backward_data(to_share, share, -1, share.dtype)
        to_values[:, block.keys].baddbmm_(share.transpose(1, 2), seen)
        to_keys[:, block.keys].baddbmm_(to_score.transpose(1, 2), queries[:, block.queries])
        torch.bmm(to_score, keys[:, block.keys], out=to_queries[:, block.queries])
    return to_queries.mul_(scale), to_keys.mul_(scale), to_values


def fold(tokens: Tensor, key_heads: int) -> Tensor:
    """(tokens, heads, head_dim) as (heads of keys, tokens x groups, head_dim): query heads beside their key head."""
    length, heads, width = tokens.shape
    by_key = tokens.view(length, key_heads, heads // key_heads, width).transpose(0, 1)
    return by_key.reshape(key_heads, length * heads // key_heads, width)


def unfold(tokens: Tensor, groups: int) -> Tensor:
    """The inverse of :func:`fold`."""
    key_heads, length, width = tokens.shape
    return tokens.view(key_heads, length // groups, groups, width).transpose(0, 1).flatten(1, 2)


def _split(first: int, last: int) -> list[tuple[int, int]]:
    """Blocks of the queries from ``first`` up to ``last``: first and one past the last of each."""
    if first == last:
        return []
    count = max(1, round((last - first) / QUERY_BLOCK))
    return list(pairwise(first + (last - first) * block // count for block in range(count + 1)))
