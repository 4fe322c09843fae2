"""Which texts are nearly the same as an earlier one: candidates by parts of their signatures, judged by the whole.

Signatures are short, so those of the whole corpus are in memory at once while its texts are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from text_hashes import PERMUTATIONS, Hashes

__all__ = ["BANDS", "SIMILARITY", "near_duplicates"]

SIMILARITY = 0.7
"""Estimated share of runs in common from which on a text is dropped as a near duplicate."""

BANDS = 16
"""Parts of a signature, any of which equal makes two texts candidates: at a similarity of 0.7, 99 % are found."""


def near_duplicates(signatures: Hashes) -> NDArray[np.bool_]:
    """Return for each text whether an earlier one that is kept is nearly the same.

    Args:
        signatures: shape (texts, PERMUTATIONS), in the order in which texts are preferred.
    """
    width = PERMUTATIONS // BANDS
    candidates: list[set[int]] = [set() for _ in signatures]
    for band in range(BANDS):
        first_with: dict[bytes, list[int]] = {}
        for text, part in enumerate(np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])):
            same = first_with.setdefault(part.tobytes(), [])
            candidates[text].update(same[:100])
            same.append(text)
    dropped = np.zeros(len(signatures), dtype=bool)
    for text, earlier in enumerate(candidates):
        kept = [one for one in earlier if not dropped[one]]
        if kept:
            alike = (signatures[kept] == signatures[text]).mean(axis=1)
            dropped[text] = bool((alike >= SIMILARITY).any())
    return dropped
