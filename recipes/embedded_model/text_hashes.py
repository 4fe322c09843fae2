"""Words as numbers, runs of words as hashes, and small signatures of whole texts: overlap without keeping the text.

A hash has 64 bits: that two different runs of words get the same one happens in a corpus of this size about once in a
hundred thousand builds. So equal hashes are taken for equal runs.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.leaks import words_of

__all__ = ["PERMUTATIONS", "Hashes", "WordHashes", "run_hashes", "signature", "stands_in"]

Hashes = NDArray[np.uint64]

PERMUTATIONS = 64
"""Smallest hashes in a signature."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.zeros(0, dtype=np.uint64)


class WordHashes:
    """The hash of every word met, computed once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, text: str) -> Hashes:
        """Return the hashes of a text's words (those of :func:`taskfit.evaluation.leaks.words_of`), in order."""
        known = self._known
        words = words_of(text)
        for word in set(words).difference(known):
            known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.fromiter(map(known.__getitem__, words), dtype=np.uint64, count=len(words))


def run_hashes(words: Hashes, length: int) -> Hashes:
    """Return a hash of every run of ``length`` words, by its first word's place; none where there are fewer words."""
    count = len(words) - length + 1
    if count < 1:
        return _EMPTY
    runs = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(length):
            runs = _mixed(runs * _FACTOR + words[place : place + count])
    return runs


def stands_in(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Return which hashes stand among the known ones, which are sorted."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    found: NDArray[np.bool_] = known[places] == hashes
    return found


def signature(runs: Hashes, seed: int = 0) -> Hashes:
    """Return the smallest of a text's run hashes under each of ``PERMUTATIONS`` hash functions.

    Two texts have the same value at a place with the probability of their similarity: the share of runs in common
    among all in either (Jaccard). Source: Broder 1997, section 3.

    Args:
        runs: of at least one run.
        seed: of the hash functions.
    """
    draws = np.random.default_rng(seed).integers(1, 2**63, PERMUTATIONS, dtype=np.uint64)
    return np.array([_mixed(runs ^ draw).min() for draw in draws], dtype=np.uint64)


def _mixed(values: Hashes) -> Hashes:
    """Spread every bit over all others (the finaliser of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
