"""Answers that begin alike, as a tree of tokens: each shared token is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trie", "build_trie", "shared_prefix"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Trie:
    """The tree of some answers, without tokens that nothing follows (those need not be read, only predicted).

    Attributes:
        tokens: token of each node; the root, which is the prompt's last token, is not among them.
        depths: of each node; children of the root have 1.
        sees: (nodes, nodes): whether a node has another above it, or is it.
        edge_nodes: for each edge the node it begins at, -1 for the root.
        edge_tokens: for each edge the token that is predicted there.
        paths: for each answer the edges that lead to its end.
    """

    tokens: Ids
    depths: Ids
    sees: NDArray[np.bool_]
    edge_nodes: Ids
    edge_tokens: Ids
    paths: tuple[Ids, ...]

    @property
    def heads(self) -> Ids:
        """The nodes at which something is predicted, each once, the root first."""
        return tuple(sorted(set(self.edge_nodes)))


@lru_cache(maxsize=1024)
def build_trie(answers: tuple[Ids, ...]) -> Trie:
    """Return the tree of answers, none of which is empty."""
    parents: list[int] = []
    tokens: list[int] = []
    depths: list[int] = []
    nodes: dict[Ids, int] = {(): -1}
    edges: dict[tuple[int, int], int] = {}
    paths: list[Ids] = []
    for answer in answers:
        path: list[int] = []
        for depth, token in enumerate(answer):
            above = answer[:depth]
            if above not in nodes:
                nodes[above] = len(tokens)
                parents.append(nodes[above[:-1]])
                tokens.append(above[-1])
                depths.append(depth)
            path.append(edges.setdefault((nodes[above], token), len(edges)))
        paths.append(tuple(path))
    return Trie(
        tokens=tuple(tokens),
        depths=tuple(depths),
        sees=_ancestors(parents),
        edge_nodes=tuple(node for node, _ in edges),
        edge_tokens=tuple(token for _, token in edges),
        paths=tuple(paths),
    )


def shared_prefix(sequences: Sequence[Ids]) -> Ids:
    """Return the longest beginning that all sequences share and that is shorter than each of them."""
    low, high = min(sequences), max(sequences)  # all others lie between these two
    most = min(map(len, sequences)) - 1
    length = 0
    while length < most and low[length] == high[length]:
        length += 1
    return low[:length]


def _ancestors(parents: Sequence[int]) -> NDArray[np.bool_]:
    sees = np.eye(len(parents), dtype=np.bool_)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    return sees
