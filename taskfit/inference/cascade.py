"""Attention of many rows packed into one sequence, behind beginnings that some of them share.

What a row sees falls into parts: its own tokens, and the shared segments before them. Each part is attended to by
itself, a shared one by all its rows in one product of matrices and without a copy of its keys per row; the parts are
then merged by the logarithms of their sums of exponentials, which is exact. Nothing is padded outside attention.

It is given to transformers as an attention function, so it works for every architecture that uses that interface,
with grouped keys, windows (each layer its own) and capped scores. Positions come from us, and no cache is kept by
the model.

Source: Juravsky et al. 2024 (Hydragen), section 3; the merge is that of Dao et al. 2022 (FlashAttention), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskfit.inference.forward import long_tensor
from taskfit.inference.own_attention import How, attend, attending_by, bias_of
from taskfit.inference.trie import Ids, Trie

__all__ = ["KeysValues", "Pack", "Piece", "cascading", "pack"]

_NAME = "taskfit_cascade"
_MOST_PADDING = 1.25  # of the positions in a group of pieces, before a new group begins

_current: ContextVar[Pack] = ContextVar("taskfit_pack")


@dataclass(frozen=True)
class KeysValues:
    """What a shared segment left behind: for each layer keys and values of shape (heads, tokens, head_dim)."""

    start: int
    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        """Number of its positions."""
        return int(self.layers[0][0].shape[1])


@dataclass(frozen=True)
class Piece:
    """Tokens of one row, or of a segment, that go through the model.

    Attributes:
        tokens: in sequence.
        trie: of the answers behind them, None for a segment.
        behind: the segments before them, the topmost first.
    """

    tokens: Ids
    trie: Trie | None
    behind: tuple[KeysValues, ...]

    @property
    def start(self) -> int:
        """Position of the first token."""
        return self.behind[-1].start + self.behind[-1].tokens if self.behind else 0

    @property
    def size(self) -> int:
        """Positions, those of the trie included."""
        return len(self.tokens) + (len(self.trie.tokens) if self.trie else 0)

    @property
    def pairs(self) -> int:
        """Key positions that its positions attend to, summed."""
        length = len(self.tokens)
        own = length * (length + 1) // 2
        if self.trie:
            own += len(self.trie.tokens) * length + sum(self.trie.depths)
        return own + self.size * self.start


@dataclass(frozen=True)
class _Group:
    """Pieces of about the same length, side by side for attention among themselves.

    Attributes:
        places: (pieces, longest): where each position stands in the pack; padding repeats the piece's first.
        real: (tokens,): the places above, flattened, that are not padding.
        sees: (pieces, longest, longest), or None where all pieces are plain sequences.
    """

    places: Tensor
    real: Tensor
    sees: Tensor | None


@dataclass(frozen=True)
class _Span:
    """Neighbouring positions of the pack, ``first`` to ``last``, that all see one segment."""

    first: int
    last: int
    seen: KeysValues


@dataclass
class Pack:
    """Pieces in one sequence.

    Attributes:
        ids, positions: shape (1, tokens).
        offsets: where each piece begins.
        keeps: remember keys and values of every layer (of segments, for those behind them).
        kept: those of each layer so far, shape (heads, tokens, head_dim).
        windows: what layers said about how far they see.
        biases: of attention among a group's pieces, for each group and window.
        layer: the next layer's number.
    """

    ids: Tensor
    positions: Tensor
    offsets: tuple[int, ...]
    groups: tuple[_Group, ...]
    spans: tuple[_Span, ...]
    keeps: bool
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    windows: set[int] = field(default_factory=set)
    biases: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    layer: int = 0

    def keys_values(self, number: int, piece: Piece) -> KeysValues:
        """Return what a piece left behind."""
        first, last = self.offsets[number], self.offsets[number] + piece.size
        layers = tuple((keys[:, first:last].clone(), values[:, first:last].clone()) for keys, values in self.kept)
        return KeysValues(piece.start, layers)


def pack(pieces: Sequence[Piece], device: torch.device, *, keeps: bool = False) -> Pack:
    """Put pieces in one sequence; those behind the same segments should be neighbours."""
    ids: list[int] = []
    positions: list[int] = []
    offsets: list[int] = []
    for piece in pieces:
        offsets.append(len(ids))
        end = piece.start + len(piece.tokens)
        ids += piece.tokens
        positions += range(piece.start, end)
        if piece.trie:
            ids += piece.trie.tokens
            positions += [end - 1 + depth for depth in piece.trie.depths]
    return Pack(
        ids=long_tensor([ids], device),
        positions=long_tensor([positions], device),
        offsets=tuple(offsets),
        groups=tuple(_group(pieces, offsets, numbers, device) for numbers in _of_like_length(pieces)),
        spans=tuple(_spans(pieces, offsets)),
        keeps=keeps,
    )


@contextmanager
def cascading(module: Any, packed: Pack) -> Iterator[None]:
    """Let a model attend as this pack says, and give it its own attention back."""
    token = _current.set(packed)
    try:
        with attending_by(module, _NAME, _attention):
            yield
    finally:
        _current.reset(token)


def _attention(module: torch.nn.Module, queries: Tensor, keys: Tensor, values: Tensor, how: How) -> Tensor:
    """Attend in one layer; the shapes are those of :data:`taskfit.inference.own_attention.Inner`."""
    packed = _current.get()
    if how.window:
        packed.windows.add(how.window)
    if packed.keeps:
        packed.kept.append((keys, values))
    output, total = _own(packed, queries, keys, values, how)
    for span in packed.spans:
        _add_span(packed, span, queries, output, total, how)
    packed.layer += 1
    return output.transpose(0, 1)


def _own(packed: Pack, queries: Tensor, keys: Tensor, values: Tensor, how: How) -> tuple[Tensor, Tensor]:
    """Let every piece attend to itself; return output like ``queries`` and log-sums of shape (heads, tokens)."""
    heads, tokens, width = queries.shape
    output = queries.new_empty(tokens, heads, width)
    total = torch.empty(tokens, heads, dtype=torch.float32, device=queries.device)
    for number in range(len(packed.groups)):
        group = packed.groups[number]
        flat, size = group.places.flatten(), group.places.shape
        bias = _own_bias(packed, number, queries, how)
        if bias is None:  # plain causal attention: a fused kernel skips what is not seen, given a key for each query
            repeats, folds = heads // keys.shape[0], 1
        else:
            repeats, folds = 1, heads // keys.shape[0]
        own_keys = _side_by_side(keys, flat, size).repeat_interleave(repeats, dim=1)
        own_values = _side_by_side(values, flat, size).repeat_interleave(repeats, dim=1)
        folded = _side_by_side(queries, flat, size).reshape(size[0], heads // folds, folds * size[1], width)
        own_bias = None if bias is None else bias.repeat(1, 1, folds, 1)
        found, sums = attend(folded, own_keys, own_values, own_bias, how, is_causal=True)
        found = found.reshape(size[0], heads, size[1], width).transpose(1, 2).reshape(-1, heads, width)
        sums = sums.reshape(size[0], heads, size[1]).transpose(1, 2).reshape(-1, heads)
        places = flat[group.real]
        output[places] = found[group.real]
        total[places] = sums[group.real]
    return output.transpose(0, 1), total.transpose(0, 1)


def _side_by_side(states: Tensor, flat: Tensor, size: Sequence[int]) -> Tensor:
    """Turn (heads, tokens, head_dim) into (pieces, heads, longest, head_dim)."""
    chosen = states.transpose(0, 1).index_select(0, flat)
    return chosen.view(*size, *chosen.shape[1:]).transpose(1, 2)


def _own_bias(packed: Pack, number: int, queries: Tensor, how: How) -> Tensor | None:
    """Return 0 where a position sees another of its piece, else minus infinity; None: it sees all before it.

    The shape is (pieces, 1, longest, longest). Layers alike in their window share one.
    """
    group = packed.groups[number]
    longest = group.places.shape[1]
    window = how.window if how.window < longest else 0
    if group.sees is None and not window:
        return None
    if (number, window) not in packed.biases:
        sees = group.sees
        if sees is None:
            sees = torch.ones(longest, longest, dtype=torch.bool, device=queries.device).tril()[None]
        if window:
            where = packed.positions[0][group.places]
            sees = sees & (where[:, :, None] - where[:, None, :] < window)
            sees = sees | torch.eye(longest, dtype=torch.bool, device=sees.device)  # padding sees itself
        packed.biases[number, window] = bias_of(sees[:, None], queries.dtype)
    return packed.biases[number, window]


def _add_span(packed: Pack, span: _Span, queries: Tensor, output: Tensor, total: Tensor, how: How) -> None:
    """Merge into the output what neighbouring positions see of one segment; changes output and total in place."""
    heads, _, width = queries.shape
    keys, values = span.seen.layers[packed.layer]
    bias: Tensor | None = None
    if how.window:
        where = packed.positions[0, span.first : span.last]
        place = span.seen.start + torch.arange(keys.shape[1], device=where.device)
        near = where[:, None] - place[None, :] < how.window
        seen_by_some = near.any(0)
        keys, values, near = keys[:, seen_by_some], values[:, seen_by_some], near[:, seen_by_some]
        if not keys.shape[1]:
            return
        if not bool(near.all()):
            bias = bias_of(near, queries.dtype).repeat(heads // keys.shape[0], 1)[None, None]
    folded = queries[:, span.first : span.last].reshape(1, keys.shape[0], -1, width)
    found, sums = attend(folded, keys[None], values[None], bias, how, is_fused=bias is None)
    found, sums = found.reshape(heads, -1, width), sums.reshape(heads, -1)
    own, own_sums = output[:, span.first : span.last], total[:, span.first : span.last]
    own.lerp_(found, torch.sigmoid(sums - own_sums)[..., None].to(own.dtype))
    own_sums.copy_(torch.logaddexp(own_sums, sums))


def _of_like_length(pieces: Sequence[Piece]) -> list[list[int]]:
    """Group pieces by number so that little is padded."""
    found: list[list[int]] = []
    real = 0
    for number in sorted(range(len(pieces)), key=lambda number: -pieces[number].size):
        size = pieces[number].size
        if found and pieces[found[-1][0]].size * (len(found[-1]) + 1) <= _MOST_PADDING * (real + size):
            found[-1].append(number)
            real += size
        else:
            found.append([number])
            real = size
    return found


def _group(pieces: Sequence[Piece], offsets: Sequence[int], numbers: Sequence[int], device: torch.device) -> _Group:
    longest = max(pieces[number].size for number in numbers)
    places = np.empty((len(numbers), longest), dtype=np.int64)
    real = np.zeros((len(numbers), longest), dtype=np.bool_)
    for row, number in enumerate(numbers):
        size = pieces[number].size
        places[row, :size] = np.arange(offsets[number], offsets[number] + size)
        places[row, size:] = offsets[number]
        real[row, :size] = True
    has_tries = any((trie := pieces[number].trie) and trie.tokens for number in numbers)
    sees = torch.from_numpy(_sees([pieces[number] for number in numbers], longest)).to(device) if has_tries else None
    return _Group(torch.from_numpy(places).to(device), torch.from_numpy(np.flatnonzero(real)).to(device), sees)


def _sees(pieces: Sequence[Piece], longest: int) -> NDArray[np.bool_]:
    """What positions see of their own piece: all tokens before them, and in the trie the nodes above them."""
    sees = np.tri(longest, dtype=np.bool_)[None].repeat(len(pieces), axis=0)
    for row, piece in enumerate(pieces):
        if piece.trie:
            sees[row, len(piece.tokens) : piece.size, len(piece.tokens) : piece.size] = piece.trie.sees
    return sees


def _spans(pieces: Sequence[Piece], offsets: Sequence[int]) -> Iterator[_Span]:
    """Yield runs of neighbours behind the same segment, for every segment."""
    deepest = max((len(piece.behind) for piece in pieces), default=0)
    for level in range(deepest):
        first, seen = 0, None
        for piece, offset in zip(pieces, offsets, strict=True):
            here = piece.behind[level] if level < len(piece.behind) else None
            if here is not seen:
                if seen is not None:
                    yield _Span(first, offset, seen)
                first, seen = offset, here
        if seen is not None:
            yield _Span(first, offsets[-1] + pieces[-1].size, seen)
