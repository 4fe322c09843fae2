"""How alike texts are: by their words (BM25), or by the vectors of an encoder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError, PredictorError

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["Bm25", "Ranker", "Vectors", "encoder_fingerprint", "far_apart", "ranker"]

FloatArray = NDArray[np.float64]

WORDS = "bm25"
"""The name that asks for words instead of an encoder."""

_BATCH = 64
_WORD = re.compile(r"\w+")


class Ranker(Protocol):
    """Says how alike a text is to each text of a pool."""

    def scores(self, text: str) -> FloatArray:
        """Return one number a text of the pool, larger where it is more alike."""
        ...


class Bm25:
    """Okapi BM25 over the words of a pool of texts, case folded.

    Args:
        texts: the pool.
        k1: how soon repetitions of a word stop counting.
        b: how much long texts are held back, from 0 to 1.

    Source: Robertson and Zaragoza 2009, section 3.2, with the idf ln(1 + (N - n + 0.5) / (n + 0.5)), never negative.
    """

    def __init__(self, texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> None:
        counts = [Counter(_words(text)) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        held_back = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1.0))
        places: dict[str, list[tuple[int, int]]] = {}
        for place, count in enumerate(counts):
            for word, times in count.items():
                places.setdefault(word, []).append((place, times))
        self._size = len(texts)
        self._postings: dict[str, tuple[NDArray[np.int64], FloatArray]] = {}
        for word, found in places.items():
            rows, times_in = np.array([row for row, _ in found]), np.array([times for _, times in found], dtype=float)
            idf = np.log(1 + (self._size - len(found) + 0.5) / (len(found) + 0.5))
            self._postings[word] = (rows, idf * times_in * (k1 + 1) / (times_in + held_back[rows]))

    def scores(self, text: str) -> FloatArray:
        """Return the score of every text of the pool for the words of ``text``."""
        total = np.zeros(self._size)
        for word, times in Counter(_words(text)).items():
            if word in self._postings:
                rows, weights = self._postings[word]
                total[rows] += times * weights
        return total


class Vectors:
    """Cosine of the mean vectors that an encoder gives to texts.

    Args:
        texts: the pool.
        model: an encoder.

    Source: Reimers and Gurevych 2019, section 3 (mean of the token vectors).
    """

    def __init__(self, texts: Sequence[str], model: LanguageModel) -> None:
        self._model = model
        self._pool = embed(model, texts)

    def scores(self, text: str) -> FloatArray:
        """Return the cosine with every text of the pool."""
        return np.asarray(self._pool @ embed(self._model, [text])[0])


def ranker(texts: Sequence[str], by: str, fingerprint: str = "") -> Ranker:
    """Return what ranks a pool of texts.

    Args:
        texts: the pool.
        by: ``bm25``, or the name or folder of an encoder.
        fingerprint: that the encoder must have; empty: any.

    Raises:
        ConfigError: the model is no encoder. PredictorError: it is another one than before.
        ModelError: it cannot be loaded.
    """
    if by == WORDS:
        return Bm25(texts)
    model = _encoder(by)
    if fingerprint and model.fingerprint != fingerprint:
        raise PredictorError(
            f"examples were chosen by encoder {by!r} with fingerprint {fingerprint} (got {model.fingerprint})",
            "give back the encoder that was used, or fit again",
        )
    return Vectors(texts, model)


def encoder_fingerprint(by: str) -> str:
    """Return the fingerprint of the encoder named ``by``; empty for ``bm25``."""
    return "" if by == WORDS else _encoder(by).fingerprint


def far_apart(texts: Sequence[str], k: int, by: str) -> list[int]:
    """Return the places of k texts: the first one, then always the one farthest from those taken, first of equals.

    Args:
        texts: the pool, at least k.
        k: how many.
        by: ``bm25``: distance between TF-IDF vectors; else the name of an encoder.

    Source: Sener and Savarese 2018, section 4.1, algorithm 1 (greedy k-centre).
    """
    vectors: Any = embed(_encoder(by), texts) if by != WORDS else _tfidf(texts)
    taken = [0]
    nearest = np.full(len(texts), -np.inf)
    while len(taken) < min(k, len(texts)):
        last = vectors[taken[-1]]
        cosines = vectors @ last if by != WORDS else (vectors @ last.T).toarray().ravel()
        nearest = np.maximum(nearest, cosines)
        nearest[taken] = np.inf
        taken.append(int(np.argmin(nearest)))
    return taken


def embed(model: LanguageModel, texts: Sequence[str]) -> FloatArray:
    """Return the mean token vector of every text, of length 1; shape (texts, width)."""
    import torch

    from taskfit.models.encoding import encode_texts

    ids, _ = encode_texts(model, texts)
    found = np.zeros((len(texts), 0))
    by_length = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    for start in range(0, len(ids), _BATCH):
        places = by_length[start : start + _BATCH]
        longest = max(len(ids[place]) for place in places)
        tokens = torch.tensor([[*ids[place], *[0] * (longest - len(ids[place]))] for place in places])
        mask = torch.tensor([[1] * len(ids[place]) + [0] * (longest - len(ids[place])) for place in places])
        with torch.inference_mode():
            inputs = {"input_ids": tokens.to(model.device), "attention_mask": mask.to(model.device)}
            states = model.module(**inputs, output_hidden_states=True).hidden_states[-1].double().cpu()
        means = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        vectors = (means / means.norm(dim=-1, keepdim=True).clamp_min(1e-12)).numpy()
        found = np.zeros((len(texts), vectors.shape[1])) if found.shape[1] == 0 else found
        found[places] = vectors
    return found


@lru_cache(maxsize=2)
def _encoder(name: str) -> LanguageModel:
    from taskfit.models import load

    model = load(name)
    if model.architecture != "encoder":
        raise ConfigError(f"by must be bm25 or an encoder ({name!r} is a {model.architecture})", "try by=minilm")
    return model


def _tfidf(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=_WORD.pattern, lowercase=True).fit_transform(
        [text if _WORD.search(text) else "0" for text in texts]
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
