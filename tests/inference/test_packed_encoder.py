"""Encoders over texts behind each other give what the model gives, whatever stands beside a text."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest
import torch
from torch.testing import assert_close

from taskfit.inference.encoder_weights import expected_shapes, is_readable, read_weights
from taskfit.inference.packed_encoder import PackedEncoder, float_products, packed_batches
from taskfit.models import load
from taskfit.strategy.grammar import parse
from taskfit.testing import tiny_encoder
from taskfit.tuning.classifier import EncoderClassifier, collate_texts
from taskfit.tuning.encoder_packed import try_packed
from taskfit.tuning.peft_method import PeftMethod

POOLS: tuple[Literal["mean", "cls"], ...] = ("mean", "cls")


def classifier(folder: Path, pool: Literal["mean", "cls"] = "mean") -> EncoderClassifier:
    """A random encoder with a random head of five classes."""
    body = load(tiny_encoder(folder / "encoder"), dtype="float32").module
    torch.manual_seed(1)
    made = EncoderClassifier(body, 32, 5, pool, 0.1).eval().requires_grad_(False)
    torch.nn.init.normal_(made.head.weight)
    return made


def texts(count: int = 40) -> list[list[int]]:
    """Ragged texts: of one token, of the whole context, and many of equal lengths."""
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 128, *torch.randint(2, 20, (count - 2,), generator=generator).tolist()]
    return [torch.randint(5, 280, (length,), generator=generator).tolist() for length in lengths]


def packed(made: EncoderClassifier, threads: int = 1) -> PackedEncoder:
    """The same encoder, packed, in float32."""
    shape, weights = read_weights(made.encoder, made.head, made.pool)
    return PackedEncoder(shape, weights, float_products(weights, shape), threads)


@pytest.mark.parametrize("pool", POOLS)
def test_logits_are_those_of_the_model(tmp_path: Path, pool: Literal["mean", "cls"]) -> None:
    made = classifier(tmp_path, pool)
    batch = collate_texts(texts(), 0, torch.device("cpu"))
    assert_close(packed(made).logits(texts()), made(batch["input_ids"], batch["attention_mask"]), rtol=1e-4, atol=1e-5)


def test_neighbours_order_and_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = classifier(tmp_path)
    monkeypatch.setattr("taskfit.inference.packed_encoder.BATCH_TOKENS", 64)
    expected = packed(made).logits(texts())
    assert torch.equal(packed(made, threads=4).logits(texts()), expected)
    assert_close(packed(made).logits(texts()[::-1]).flip(0), expected, rtol=1e-5, atol=1e-6)
    alone = torch.cat([packed(made).logits([text]) for text in texts()[:5]])
    assert_close(alone, expected[:5], rtol=1e-5, atol=1e-6)


def test_without_onednn_the_results_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = classifier(tmp_path)
    expected = packed(made).logits(texts())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert_close(packed(made).logits(texts()), expected, rtol=1e-4, atol=1e-5)


def test_weights_have_the_shapes_that_are_expected_of_them(tmp_path: Path) -> None:
    made = classifier(tmp_path)
    shape, weights = read_weights(made.encoder, made.head, made.pool)
    assert {name: tuple(value.shape) for name, value in weights.items()} == expected_shapes(shape)


def test_what_is_hooked_wrapped_or_of_another_kind_is_not_packed(tmp_path: Path) -> None:
    made = classifier(tmp_path)
    assert try_packed(made, texts(), 0) is not None
    made.encoder.config.hidden_act = "relu"  # type: ignore[union-attr]
    assert try_packed(made, texts(), 0) is None
    made.encoder.config.hidden_act = "gelu"  # type: ignore[union-attr]
    hook = made.encoder.register_forward_hook(lambda *_: None)
    assert try_packed(made, texts(), 0) is None
    hook.remove()
    assert not is_readable(torch.nn.Linear(2, 2))
    first = made.encoder.encoder.layer[0]  # type: ignore[union-attr, index]
    first.output.dense = torch.nn.Sequential(first.output.dense)  # type: ignore[union-attr, assignment, arg-type]
    assert try_packed(made, texts(), 0) is None


@pytest.mark.parametrize(
    "name", ["lora(rank=4)", "rslora(rank=4)", "dora(rank=4)", "pissa(rank=4)", "vera(rank=4)", "ia3"]
)
def test_updates_beside_the_weights_are_folded_in_and_the_model_keeps_them_apart(tmp_path: Path, name: str) -> None:
    """What such a predictor costs a row must not hang on how it was tuned."""
    made = classifier(tmp_path)
    model = load(tmp_path / "encoder", dtype="float32")
    method = cast("PeftMethod", parse(name).weights)  # type: ignore[attr-defined]
    made.encoder = method.wrap(model, seed=0).eval()
    torch.manual_seed(2)
    for part in (part for part in made.encoder.parameters() if part.requires_grad):
        part.data.mul_(1 + 0.3 * torch.randn_like(part)).add_(0.1 * torch.randn_like(part))
    made.requires_grad_(False)

    def folded() -> torch.nn.Module:
        return method.merge(replace(model, module=deepcopy(made.encoder))).module

    batch = collate_texts(texts(), 0, torch.device("cpu"))
    expected = made(batch["input_ids"], batch["attention_mask"])
    bare = classifier(tmp_path)(batch["input_ids"], batch["attention_mask"])
    assert (expected - bare).abs().max() > 0.05
    assert try_packed(made, texts(), 0) is None
    found = try_packed(made, texts(), 0, folded)
    assert found is not None
    assert_close(found.logits(texts()), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(made(batch["input_ids"], batch["attention_mask"]), expected)


def test_an_encoder_that_differs_from_its_packed_form_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = classifier(tmp_path)
    monkeypatch.setattr(PackedEncoder, "_attended", lambda self, qkv, runs: qkv[:, :32].clone())
    assert try_packed(made, texts(), 0) is None


def test_batches_hold_every_text_once_and_no_more_tokens_than_they_may() -> None:
    lengths = [3, 50, 7, 7, 1, 20]
    batches = packed_batches(lengths, 21)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) == 1 or sum(lengths[index] for index in batch) <= 21 for batch in batches)
    assert packed_batches([], 21) == []
