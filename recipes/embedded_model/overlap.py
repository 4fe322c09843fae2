"""Exact overlap with the evaluation sets: 13 equal words in a row, or an equal whole text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from places import read_rows

WORDS = re.compile(r"\w+")
LENGTH = 13
EVALUATED = {"banking77": ("test", "text"), "sst2": ("test", "sentence"), "dialogsum": ("test", "dialogue")}


def words(text: str) -> list[str]:
    """Lower-case words; punctuation does not count."""
    return WORDS.findall(text.lower())


def grams(text: str) -> Iterator[tuple[str, ...]]:
    """Every run of 13 words."""
    found = words(text)
    for start in range(len(found) - LENGTH + 1):
        yield tuple(found[start : start + LENGTH])


class EvaluationText:
    """The texts of the evaluation sets' test splits, asked for overlaps."""

    def __init__(self) -> None:
        self.grams: set[tuple[str, ...]] = set()
        self.wholes: set[tuple[str, ...]] = set()
        for name, (split, field) in EVALUATED.items():
            for row in read_rows(name, split):
                self.grams.update(grams(row[field]))
                self.wholes.add(tuple(words(row[field])))

    def overlaps(self, text: str) -> bool:
        """True when the text shares 13 words in a row with a test text."""
        return any(gram in self.grams for gram in grams(text))

    def contains_row(self, text: str) -> bool:
        """True as ``overlaps``, or when a line of four words or more is a whole test text (rows are short)."""
        if self.overlaps(text):
            return True
        lines = (tuple(words(line)) for line in text.splitlines())
        return any(len(line) >= 4 and line in self.wholes for line in lines)
