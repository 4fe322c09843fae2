"""What of a document is kept: clean paragraphs without evaluation text. The rest becomes a gap, and gaps part it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from evaluation_text import LENGTH, EvaluationText
from text_hashes import Hashes, WordHashes, run_hashes, signature

__all__ = ["LEAST_CHARACTERS", "Piece", "pieces_of"]

LEAST_CHARACTERS = 200
"""A shorter piece of a document is not worth its markers."""

LEAST_LETTERS = 0.6
"""Share of letters and spaces below which a paragraph is a table, code or a list of numbers."""

SHINGLE = 5
"""Words on end by which documents are compared."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\ufeff]")
_SPACES = re.compile(r"[ \t\u00a0]+")
_RULE = re.compile(r"^[\W_]{3,}$")
_BREAKS = re.compile(r"\n{2,}")


@dataclass(frozen=True)
class Piece:
    """A stretch of a document between two gaps.

    Attributes:
        paragraphs: their texts.
        hashes: of the paragraphs' words, one each; 0 for a short one, which may repeat.
        signature: of the runs of words in all of it; see :func:`text_hashes.signature`.
        runs: number of different ones.
    """

    paragraphs: tuple[str, ...]
    hashes: Hashes
    signature: Hashes
    runs: int = field(default=0)


def pieces_of(
    text: str, evaluated: EvaluationText, words: WordHashes, dropped: Counter[str], *, least_repeated: int = 8
) -> list[Piece]:
    """Return what may be trained on of a document.

    Args:
        text: of the document.
        evaluated: the texts of evaluation; a paragraph that shares 13 words on end with one is left out, and so are
            both of two neighbours with such a run across their border.
        words: hashes of the words met so far.
        dropped: counts characters left out, by reason.
        least_repeated: words of a paragraph from which on it may stand in the corpus only once.
    """
    paragraphs = [_clean(part) for part in _BREAKS.split(_unmarked(text))]
    paragraphs = [part for part in paragraphs if part]
    hashes = [words.of(part) for part in paragraphs]
    is_evaluated = _evaluated(hashes, evaluated)
    pieces: list[list[int]] = [[]]
    for place, part in enumerate(paragraphs):
        reason = "evaluation text" if is_evaluated[place] else "" if _is_prose(part) else "not prose"
        if not reason:
            pieces[-1].append(place)
            continue
        dropped[reason] += len(part)
        if reason == "evaluation text":
            pieces.append([])
    found = []
    for places in pieces:
        length = sum(len(paragraphs[place]) for place in places)
        if length >= LEAST_CHARACTERS:
            found.append(_piece([paragraphs[at] for at in places], [hashes[at] for at in places], least_repeated))
        else:
            dropped["too short"] += length
    return found


def _piece(paragraphs: list[str], hashes: list[Hashes], least_repeated: int) -> Piece:
    wholes = [run_hashes(one, len(one))[0] if len(one) >= least_repeated else 0 for one in hashes]
    runs = np.unique(run_hashes(np.concatenate(hashes), SHINGLE))
    # A piece of fewer words than a run has none; nothing of that size passes LEAST_CHARACTERS but one long word.
    mark = signature(runs) if len(runs) else signature(np.concatenate([*hashes, np.ones(1, dtype=np.uint64)]))
    return Piece(tuple(paragraphs), np.array(wholes, dtype=np.uint64), mark, len(runs))


def _evaluated(hashes: list[Hashes], evaluated: EvaluationText) -> list[bool]:
    """Return which paragraphs hold evaluation text, also where a run goes on from one into the next."""
    found = [False] * len(hashes)
    if not hashes:
        return found
    ends = np.cumsum([len(one) for one in hashes])
    for start in evaluated.run_starts(np.concatenate(hashes)):
        first, last = np.searchsorted(ends, [start, start + LENGTH - 1], side="right")
        found[int(first) : int(last) + 1] = [True] * (int(last) + 1 - int(first))
    return [one or evaluated.is_whole(words) for one, words in zip(found, hashes, strict=True)]


def _unmarked(text: str) -> str:
    return _CONTROL.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")))


def _clean(paragraph: str) -> str:
    """Return the paragraph with single spaces and without rules of signs; line breaks in it stay (verse)."""
    lines = (_SPACES.sub(" ", line).strip() for line in paragraph.split("\n"))
    return "\n".join(line for line in lines if line and not _RULE.match(line))


def _is_prose(paragraph: str) -> bool:
    letters = sum(character.isalpha() or character.isspace() for character in paragraph)
    return letters >= LEAST_LETTERS * len(paragraph)
