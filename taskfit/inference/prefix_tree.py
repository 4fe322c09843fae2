"""Which beginnings several prompts share, as a tree of segments that are each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from taskfit.inference.trie import Ids

__all__ = ["WORTH_SHARING", "PrefixTree", "Segment", "build_prefix_tree"]

WORTH_SHARING = 16
"""Fewest tokens of a segment. A shorter one costs about as much in passes of its own as it saves."""


@dataclass(frozen=True)
class Segment:
    """A stretch of tokens that some prompts share, behind the segment above it.

    Attributes:
        start: how many tokens come before it.
        tokens: at least one.
        above: number of the segment before it, -1 for none.
        level: how many segments are before it.
        first, last: the rows that share it are ``order[first:last]`` of the tree.
    """

    start: int
    tokens: Ids
    above: int
    level: int
    first: int
    last: int

    @property
    def end(self) -> int:
        """Tokens up to its end."""
        return self.start + len(self.tokens)


@dataclass(frozen=True)
class PrefixTree:
    """Prompts by their beginnings.

    Attributes:
        order: rows by number, sorted so that rows with longer common beginnings are nearer to each other.
        segments: shared stretches; every one stands behind the one above it.
        behind: for each row (by its number) its last segment, -1 for none.
    """

    order: tuple[int, ...]
    segments: tuple[Segment, ...]
    behind: tuple[int, ...]

    def chain(self, segment: int) -> tuple[int, ...]:
        """Return a segment and all above it, the topmost first; nothing for -1."""
        found: list[int] = []
        while segment >= 0:
            found.append(segment)
            segment = self.segments[segment].above
        return tuple(reversed(found))

    def start(self, row: int) -> int:
        """Return how many tokens of a row its segments hold."""
        return 0 if self.behind[row] < 0 else self.segments[self.behind[row]].end


def build_prefix_tree(
    prompts: Sequence[Ids], *, worth_sharing: int = WORTH_SHARING, most_tokens: float = float("inf")
) -> PrefixTree:
    """Find the shared beginnings of prompts, nested ones too.

    The last token of a prompt is never shared: something is predicted there.

    Args:
        prompts: token ids, none empty.
        worth_sharing: fewest tokens of a segment.
        most_tokens: no row has more tokens in its segments than this: what their keys and values may take.
    """
    order = sorted(range(len(prompts)), key=lambda row: (prompts[row], row))
    ranked = [prompts[row] for row in order]
    common = np.array([_common(one, other) for one, other in pairwise(ranked)], dtype=np.int64)
    segments: list[Segment] = []
    behind = [-1] * len(prompts)
    groups = [(0, len(prompts), 0, -1)]
    while groups:
        first, last, start, above = groups.pop()
        if last - first < 2:
            continue
        inside = common[first : last - 1]
        end = int(inside.min())
        if end - start >= worth_sharing and end <= most_tokens:
            level = 0 if above < 0 else segments[above].level + 1
            segments.append(Segment(start, ranked[first][start:end], above, level, first, last))
            start, above = end, len(segments) - 1
            for place in range(first, last):
                behind[order[place]] = above
        groups += [(one, other, start, above) for one, other in _parts(first, last, inside, end)]
    return PrefixTree(tuple(order), tuple(segments), tuple(behind))


def _common(one: Ids, other: Ids) -> int:
    """How many first tokens are the same, the last of either not counted."""
    low, high = 0, min(len(one), len(other)) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _parts(first: int, last: int, inside: NDArray[np.int64], end: int) -> list[tuple[int, int]]:
    """Cut a group where neighbours share no more than all do."""
    cuts = [first, *(first + 1 + int(place) for place in np.flatnonzero(inside == end)), last]
    return list(pairwise(cuts))
