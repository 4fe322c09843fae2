"""Tiny models for the tests of strategies, made once a session."""

from __future__ import annotations

import pytest

from taskfit.testing import tiny_decoder, tiny_encoder, tiny_encoder_decoder


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory):
    """One folder for each architecture. One thread: tiny products are slower on several."""
    import torch

    root = tmp_path_factory.mktemp("models")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {
        "decoder": tiny_decoder(root / "decoder"),
        "encoder-decoder": tiny_encoder_decoder(root / "encoder-decoder", sentinels=40),
        "encoder": tiny_encoder(root / "encoder", has_masked_head=True),
    }
    torch.set_num_threads(threads)
