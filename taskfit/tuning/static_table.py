"""One vector a token, taken from an encoder once: texts become sums of vectors, without a model.

A token's vector is what the encoder makes of it alone between its special tokens. Principal components make it
narrower and more even; frequent tokens count less (smooth inverse frequency). A text's vector is the mean over its
tokens, of length 1.

Source: Tulkens and van Dongen 2024 (model2vec); Arora, Liang and Ma 2017, section 3 (the weights).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError, PredictorError

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.models.language_model import LanguageModel
    from taskfit.models.work import Work

__all__ = ["StaticTable", "distil_table", "load_table", "save_table"]

_WORD = re.compile(r"\w+|[^\w\s]")
"""Words and single signs: what the tokenizer is asked about, once for each different one."""

_SIF = 1e-4
"""How soon a token's frequency makes it count less (Arora et al. 2017 find 1e-3 to 1e-4 good; on three sets the smaller
one gained 0.2 to 1.4 points of accuracy)."""

_MOST_WORDS = 50_000
"""Different words from which on those kept are forgotten: memory stays the same over millions of rows."""

_BATCH = 512
_TOKENIZER_FILE = "tokenizer.json"
_TABLE_FILE = "vectors.safetensors"
_LARGEST_TOKENIZER = 256 * 2**20


@dataclass
class StaticTable:
    """Vectors of tokens, and of the words met so far.

    Attributes:
        vectors: shape (tokens, width), float16, as they are saved.
        tokenizer: of the ``tokenizers`` library; it splits words.
    """

    vectors: NDArray[np.float16]
    tokenizer: Any
    _places: dict[str, int] = field(default_factory=dict)
    _words: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vector of each text, of length 1 (0 for a text without a word); shape (texts, width).

        A text's vector does not depend on the texts beside it.
        """
        found = np.zeros((len(texts), self.width), dtype=np.float32)
        if len(self._places) > _MOST_WORDS:
            self._places = {}
        split = [_WORD.findall(text) for text in texts]
        self._learn({word for words in split for word in words if word not in self._places})
        for number, words in enumerate(split):
            if words:
                places = [self._places[word] for word in words]
                found[number] = self._words[places].sum(axis=0)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.maximum(lengths, 1e-12)
        return found

    def _learn(self, words: set[str]) -> None:
        """Add the vectors of new words: the sum over their tokens."""
        if not words:
            return
        new = sorted(words)
        known = len(self._places)
        if known + len(new) > len(self._words):
            room = np.zeros((2 * (known + len(new)), self.width), dtype=np.float32)
            room[:known] = self._words[:known] if known else 0.0
            self._words = room
        for place, encoded in enumerate(self.tokenizer.encode_batch(new, add_special_tokens=False), start=known):
            ids = [token for token in encoded.ids if token < len(self.vectors)]
            self._words[place] = self.vectors[ids].astype(np.float32).sum(axis=0)
        self._places.update({word: known + number for number, word in enumerate(new)})


def distil_table(model: LanguageModel, dimensions: int) -> tuple[StaticTable, Work]:
    """Ask an encoder about every token of its vocabulary and keep one vector for each.

    Args:
        model: the encoder; its tokenizer must be a fast one.
        dimensions: principal components kept; all where the encoder is no wider.

    Returns:
        The table, and what the encoder computed for it.

    Raises:
        ConfigError: the tokenizer is no fast one, so that it cannot be saved as one file.
    """
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"{model.name} has a tokenizer that cannot be saved as one file", "take another encoder")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    count = tokenizer.get_vocab_size()
    hidden, work = _token_vectors(model, count)
    vectors = _principal(hidden, dimensions) * _weights(count)[:, None]
    vectors[sorted({token for token in model.tokenizer.all_special_ids if token < count})] = 0.0
    scale = float(np.abs(vectors).max()) or 1.0  # halves hold three digits whatever the scale, but end at 65,504
    return StaticTable((vectors / scale).astype(np.float16), tokenizer), work


def save_table(table: StaticTable, folder: Path) -> None:
    """Write vectors and tokenizer into an existing folder."""
    from safetensors.numpy import save_file

    from taskfit.strategy.folder import write_file

    save_file({"vectors": np.ascontiguousarray(table.vectors)}, folder / _TABLE_FILE)
    write_file(folder / _TOKENIZER_FILE, table.tokenizer.to_str())


def load_table(folder: Path) -> StaticTable:
    """Read what :func:`save_table` wrote; it gives the same vectors.

    Raises:
        PredictorError: a file is missing or damaged, or the vectors are not those of the tokenizer's tokens.
    """
    from tokenizers import Tokenizer

    from taskfit.tuning.numbers_file import read_numbers

    path = folder / _TOKENIZER_FILE
    if not path.is_file() or path.stat().st_size > _LARGEST_TOKENIZER:
        raise PredictorError(f"{path} is missing, or larger than {_LARGEST_TOKENIZER >> 20} MiB")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise PredictorError(f"cannot read {path}: {error}") from error
    vectors = read_numbers(folder / _TABLE_FILE, {"vectors": (tokenizer.get_vocab_size(), None)}, np.float16)["vectors"]
    return StaticTable(vectors, tokenizer)


def _token_vectors(model: LanguageModel, count: int) -> tuple[NDArray[np.float32], Work]:
    """Return the mean hidden state of each token between the special ones, shape (tokens, hidden width)."""
    import torch

    from taskfit.models.text_format import text_format
    from taskfit.tuning.counts import batches_work

    form = text_format(model.tokenizer)
    body: Any = getattr(model.module, "base_model", model.module)
    found = []
    with torch.inference_mode():
        for start in range(0, count, _BATCH):
            tokens = range(start, min(start + _BATCH, count))
            ids = torch.tensor([[*form.head, token, *form.tail] for token in tokens], device=model.device)
            states = body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            found.append(states.float().mean(dim=1).cpu().numpy())
    length = len(form.head) + 1 + len(form.tail)
    work = batches_work([[(length, 0)] * count], "encoder", gathers=True)
    return np.concatenate(found), work


def _principal(hidden: NDArray[np.float32], dimensions: int) -> NDArray[np.float64]:
    """Return the vectors around their mean along the directions in which they vary most, signs fixed."""
    centred = hidden.astype(np.float64) - hidden.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    kept = directions[:, ::-1][:, :dimensions]
    largest = kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])]
    turned: NDArray[np.float64] = centred @ (kept * np.where(largest < 0, -1.0, 1.0))
    return turned


def _weights(count: int) -> NDArray[np.float64]:
    """Return how much each token counts: vocabularies stand about in order of frequency, which falls as 1 / rank."""
    frequency = 1 / np.arange(2, count + 2)
    frequency /= frequency.sum()
    weights: NDArray[np.float64] = _SIF / (_SIF + frequency)
    return weights
