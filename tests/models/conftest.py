"""A tiny model of every family, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from taskfit.models import LanguageModel, load
from taskfit.testing import tiny_decoder, tiny_encoder, tiny_encoder_decoder

MAKERS: dict[str, Callable[[Path], Path]] = {
    "llama": lambda folder: tiny_decoder(folder, context=200),
    "gpt2": lambda folder: tiny_decoder(folder, kind="gpt2", context=200),
    "chatml": lambda folder: tiny_decoder(folder, kind="gpt2", chat=True, context=200),
    "llama-chatml": lambda folder: tiny_decoder(folder, chat=True, context=200),
    "gemma": lambda folder: tiny_decoder(folder, chat="gemma", context=200),
    "t5": lambda folder: tiny_encoder_decoder(folder, context=200),
    "bert": lambda folder: tiny_encoder(folder, context=64),
    "bert-masked": lambda folder: tiny_encoder(folder, has_masked_head=True, context=64),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models lose more by threads than they win."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from family to model folder; nobody may change what is in it."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = MAKERS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(scope="session")
def tiny(folder: Callable[[str], Path]) -> Callable[[str], LanguageModel]:
    """Return a function from family to loaded model, in float32."""
    loaded: dict[str, LanguageModel] = {}

    def get(kind: str) -> LanguageModel:
        if kind not in loaded:
            loaded[kind] = load(folder(kind), dtype="float32", device="cpu")
        return loaded[kind]

    return get
