"""Tiny models, made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskfit.models import LanguageModel, load
from taskfit.testing import tiny_decoder, tiny_encoder, tiny_encoder_decoder

MAKERS: dict[str, Callable] = {
    "llama": lambda folder: tiny_decoder(folder, context=160),
    "gpt2": lambda folder: tiny_decoder(folder, kind="gpt2", context=160),
    "chat": lambda folder: tiny_decoder(folder, chat=True, context=160),
    "t5": lambda folder: tiny_encoder_decoder(folder, context=160),
    "bert": tiny_encoder,
    "cloze": lambda folder: tiny_encoder(folder, has_masked_head=True),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models lose more by threads than they win."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LanguageModel]:
    """Return a function from kind to model, in float32."""
    loaded: dict[str, LanguageModel] = {}

    def get(kind: str) -> LanguageModel:
        if kind not in loaded:
            loaded[kind] = load(MAKERS[kind](tmp_path_factory.mktemp(kind)), dtype="float32", device="cpu")
        return loaded[kind]

    return get
