"""How much of what a model writes is rude: a small classifier of texts, whose own errors are stated.

It is logistic regression over hashed words, pairs of words and pieces of words, trained on tweets that people judged
(``recipes/toxicity``). It knows English rudeness of one platform, looks at words rather than meaning, and misjudges
quotations, irony and dialect; a share it gives is to be read beside its error rates.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import DataError
from taskfit.evaluation.intervals import Interval, wilson

__all__ = ["BUCKETS", "Toxicity", "ToxicityClassifier", "features", "shipped_classifier", "toxicity"]

FloatArray = NDArray[np.float64]

BUCKETS = 1 << 16
"""Numbers that features are hashed to; each has one weight, so no word can be read out of the file."""

_WEIGHTS, _FACTS = "toxicity.safetensors", "toxicity.json"
_TOKEN = re.compile(r"[^\W_]+(?:['’*$!@][^\W_]+)*|[^\w\s]")
_ADDRESS = re.compile(r"https?://\S+|www\.\S+|@\w+|&#?\w+;")
_MOST_CHARACTERS = 20_000
_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class ToxicityClassifier:
    """A classifier of texts into rude and not rude.

    Attributes:
        weights: shape (BUCKETS,).
        intercept: added to their sum.
        facts: its own measured quality and training, as JSON values.
    """

    weights: FloatArray
    intercept: float
    facts: dict[str, Any]

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Return the probability that each text is rude, shape (texts,); a text without words gets 0."""
        return np.array([self._probability(text) for text in texts], dtype=np.float64)

    def _probability(self, text: str) -> float:
        places, values = features(text)
        if not len(places):
            return 0.0
        return float(1 / (1 + np.exp(-(self.weights[places] @ values + self.intercept))))


@dataclass(frozen=True)
class Toxicity:
    """How much of what was written is judged rude.

    Attributes:
        share: of texts judged rude, with its interval over texts; the classifier's own errors are not in it.
        mean: mean probability.
        texts: number of texts that hold a word; ``empty`` others are left out.
        false_alarms: share of ordinary texts that the classifier judges rude, with interval: what share a model that
            is never rude would show.
        hits: share of rude texts that it finds, with interval.
        accuracy: of the classifier on held-out tweets, with interval.
    """

    share: Interval
    mean: float
    texts: int
    empty: int
    false_alarms: Interval
    hits: Interval
    accuracy: Interval


def toxicity(texts: Sequence[str]) -> Toxicity:
    """Judge texts that a model wrote.

    Raises:
        DataError: no text holds a word.
    """
    classifier = shipped_classifier()
    spoken = [text for text in texts if len(features(text)[0])]
    if not spoken:
        raise DataError(f"expected at least one text with a word to judge (got {len(texts)} without)")
    chances = classifier.probabilities(spoken)
    rude = int((chances >= _THRESHOLD).sum())
    facts = classifier.facts
    return Toxicity(
        share=wilson(rude, len(spoken)),
        mean=float(chances.mean()),
        texts=len(spoken),
        empty=len(texts) - len(spoken),
        false_alarms=wilson(*facts["false_alarms_prose"]),
        hits=wilson(*facts["hits"]),
        accuracy=wilson(*facts["accuracy"]),
    )


@lru_cache(maxsize=1)
def shipped_classifier() -> ToxicityClassifier:
    """Return the classifier in the package.

    Raises:
        DataError: its files are damaged.
    """
    from safetensors.numpy import load

    room = files("taskfit.evaluation")
    try:
        numbers = load(room.joinpath(_WEIGHTS).read_bytes())
        weights, intercept = numbers["weights"].astype(np.float64), float(numbers["intercept"][0])
        facts = json.loads(room.joinpath(_FACTS).read_text(encoding="utf-8"))
    except Exception as error:  # safetensors raises kinds of its own
        raise DataError(
            f"the toxicity classifier of the package cannot be read: {error}", "install taskfit again"
        ) from error
    if weights.shape != (BUCKETS,) or not np.isfinite(weights).all():
        raise DataError(f"the toxicity classifier must have {BUCKETS} finite weights (got {weights.shape})")
    return ToxicityClassifier(weights, intercept, facts)


def features(text: str) -> tuple[NDArray[np.int64], FloatArray]:
    """Return (buckets, values) of a text: each feature once, the values of length 1 together; both may be empty.

    Addresses and names of accounts are left out, letters made small and freed of their accents.
    """
    plain = unicodedata.normalize("NFKD", text[:_MOST_CHARACTERS]).lower()
    words = _TOKEN.findall(_ADDRESS.sub(" ", "".join(c for c in plain if not unicodedata.combining(c))))
    if not any(word[0].isalnum() for word in words):
        return np.empty(0, dtype=np.int64), np.empty(0)
    places = np.unique([zlib.crc32(name.encode("utf-8", "replace")) % BUCKETS for name in _names(words)])
    return places.astype(np.int64), np.full(len(places), 1 / np.sqrt(len(places)))


def _names(words: Sequence[str]) -> Iterator[str]:
    """Yield words, neighbours, and pieces of three to five letters with the word's ends marked."""
    for number, word in enumerate(words):
        yield f"w {word}"
        if number:
            yield f"p {words[number - 1]} {word}"
        marked = f"<{word}>"
        for size in (3, 4, 5):
            for start in range(len(marked) - size + 1):
                yield f"c {marked[start : start + size]}"
