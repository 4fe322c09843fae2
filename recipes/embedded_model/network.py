"""The models' shapes, their parameters and work, held-out bits per character, and export as an ordinary folder."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from taskfit.errors import ConfigError, nearest
from taskfit.files import appearing
from taskfit.tuning.examples import IGNORED

__all__ = ["CONTEXT", "SHAPES", "Shape", "document_bits", "export", "labelled", "load_tokenizer", "new_model"]

PAD, TEXT, END, USER, ASSISTANT, SYSTEM = range(6)
"""Ids of the markers, the first entries of every tokenizer made here."""

CONTEXT = 1024
"""Tokens that a model reads at most."""


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder of the Llama kind.

    Attributes:
        width: of the hidden states.
        layers, heads, key_heads: how many.
        inner: width of the gated MLP.
    """

    width: int
    layers: int
    heads: int
    key_heads: int
    inner: int

    def parameters(self, vocabulary: int) -> int:
        """Return the number of weights, tied embeddings counted once."""
        return vocabulary * self.width + self.width + self.layers * (self._matrices + 2 * self.width)

    def flops_per_token(self, vocabulary: int, length: int) -> float:
        """Return the work of one token of training in rows of ``length``: six for each weight of a product.

        Source: Kaplan et al. 2020, section 2.1, with the output layer, whose weights the embedding shares, and with
        attention's own products over half a row on average.
        """
        attended = self.width * length / 2
        return 6.0 * (vocabulary * self.width + self.layers * (self._matrices + 2 * attended))

    @property
    def _matrices(self) -> int:
        keys = self.width // self.heads * self.key_heads
        return 2 * self.width * self.width + 2 * self.width * keys + 3 * self.width * self.inner


SHAPES = {
    "1m": Shape(64, 6, 2, 1, 176),
    "2m": Shape(128, 6, 4, 2, 352),
    "4m": Shape(192, 6, 3, 1, 528),
    "6m": Shape(256, 6, 4, 2, 704),
    "8m": Shape(256, 9, 4, 2, 704),
    "15m": Shape(384, 7, 6, 2, 1056),
    "30m": Shape(512, 10, 8, 2, 1408),
}
"""Sizes by name, about the number of parameters at 8,192 entries: heads of 64 (32 below width 192), inner width 2.75
times the width, both multiples of 16, which the processor's products want."""


SHIPPED_WEIGHTS = 15_000_000
"""Most weights that the repository may hold: 30 MB in bfloat16."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer that lies in a folder."""
    return AutoTokenizer.from_pretrained(folder)


def shape_named(name: str) -> Shape:
    """Return a shape of ``SHAPES``.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in SHAPES:
        raise ConfigError(f"expected a size of {', '.join(SHAPES)}, got {name!r}", nearest(name, SHAPES))
    return SHAPES[name]


def new_model(shape: Shape, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return a fresh model in float32.

    Weights that add to the stream begin smaller by the root of twice the layers (Radford et al. 2019, section 2.3).
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        intermediate_size=shape.inner,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                matrix.mul_(1 / math.sqrt(2 * shape.layers))
    return model


def labelled(rows: Tensor, supervised: Tensor | None = None) -> dict[str, Tensor]:
    """Return a batch of rows that hold texts one behind the other, as the library's losses take it.

    Positions begin anew at each text marker, so no text sees the one before it; a text's first token is not learnt.
    A conversation begins with the role behind its marker, and does not see the marker: a chat template has none.

    Args:
        rows: token ids, shape (rows, length).
        supervised: which tokens are learnt, the same shape; None: all.
    """
    is_first = rows == TEXT
    is_role = (rows == USER) | (rows == SYSTEM)
    is_first[:, 1:] |= is_first[:, :-1].clone() & is_role[:, 1:]
    is_first[:, 0] = True
    places = torch.arange(rows.shape[1]).expand_as(rows)
    starts = torch.where(is_first, places, 0).cummax(dim=1).values
    is_learnt = ~is_first if supervised is None else supervised & ~is_first
    return {
        "input_ids": rows,
        "position_ids": places - starts,
        "labels": torch.where(is_learnt, rows, IGNORED),
    }


def document_bits(
    model: Any, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, length: int = 512
) -> list[tuple[float, int]]:
    """Return (bits, characters) of each text: the whole text is predicted, in windows of ``length`` tokens.

    A window sees half of the one before it, so every token but the first has at least ``length / 2`` before it or
    the text's beginning. Bits of a text can be compared between models with different tokenizers.
    """
    model.eval()
    return [(_bits(model, [tokenizer.bos_token_id, *_ids(tokenizer, text)], length), len(text)) for text in texts]


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model (bfloat16) and tokenizer into ``folder``, whole or not at all."""
    logging.disable_progress_bar()
    copy = deepcopy(model).to("cpu", torch.bfloat16)
    copy.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    for entry in ("is_local", "local_files_only"):  # how this process found the tokenizer is nobody's business
        tokenizer.init_kwargs.pop(entry, None)
    with appearing(folder) as partial:
        copy.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        for path in partial.iterdir():
            path.chmod(0o644)


def copy_files(source: Path, target: Path) -> None:
    """Replace the files of a model folder by those of another, each at once; further files in it stay."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        with appearing(target / path.name) as partial:
            shutil.copyfile(path, partial)


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _bits(model: Any, ids: list[int], length: int) -> float:
    nats = 0.0
    device = next(model.parameters()).device
    for window, first_new in _windows(ids, length):
        row = torch.tensor([window], device=device)
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(input_ids=row[:, :-1], use_cache=False).logits[0, first_new - 1 :].float()
        nats += torch.nn.functional.cross_entropy(logits, row[0, first_new:], reduction="sum").item()
    return nats / math.log(2)


def _windows(ids: list[int], length: int) -> Iterator[tuple[list[int], int]]:
    """Yield windows of a text, each with the place of its first token that no window before it has predicted."""
    done = 1
    while done < len(ids):
        start = max(0, done - length // 2) if done > 1 else 0
        window = ids[start : start + length + 1]
        yield window, done - start
        done = start + len(window)


def as_stream(parts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return token ids one behind the other, two bytes each."""
    return np.concatenate([np.asarray(part, dtype=np.uint16) for part in parts])
