"""The loss of tuning against transformers' own and against plain loops in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from taskfit.errors import TrainingError
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import ZeroShot
from taskfit.tuning.examples import IGNORED, build_examples, collate
from taskfit.tuning.loss import (
    choose_loss,
    cross_entropy_sum,
    full_logits_loss,
    gathered_loss,
    sequence_to_sequence_loss,
)
from taskfit.tuning.packed import packed_loss
from tests.tuning.keyword_task import Family, keyword_task, tiny_model

DECODERS: tuple[Family, ...] = ("llama", "gpt2", "chat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def batch_for(model: LanguageModel) -> dict[str, torch.Tensor]:
    task = keyword_task(5)
    examples = build_examples(model, task.definition, ZeroShot().prepare(task, seed=0), task.train)
    return collate(examples, model.architecture, model.tokenizer.pad_token_id)


def transformers_loss(model: LanguageModel, batch: dict[str, torch.Tensor]) -> float:
    """Its mean loss times the number of supervised tokens."""
    count = int((batch["labels"] != IGNORED).sum())
    return float(model.module(**batch).loss.detach()) * count


@pytest.mark.parametrize("family", DECODERS)
def test_decoder_losses_equal_transformers(folder: Path, family: Family) -> None:
    """Gathered and full, both."""
    model = tiny_model(folder, family)
    batch = batch_for(model)
    expected = transformers_loss(model, batch)
    for loss in (gathered_loss, full_logits_loss):
        value, tokens = loss(model.module, batch)
        assert tokens == int((batch["labels"] != IGNORED).sum())
        assert math.isclose(value.item(), expected, rel_tol=1e-5)


def test_encoder_decoder_loss_equals_transformers(folder: Path) -> None:
    """The decoder reads the labels shifted right."""
    model = tiny_model(folder, "t5")
    batch = batch_for(model)
    value, _ = sequence_to_sequence_loss(model.module, batch)
    assert math.isclose(value.item(), transformers_loss(model, batch), rel_tol=1e-5)


def test_loss_equals_a_loop_in_float64(folder: Path) -> None:
    """One row at a time, without padding, -log softmax by hand."""
    model = tiny_model(folder, "llama")
    batch = batch_for(model)
    value, _ = gathered_loss(model.module, batch)
    module = tiny_model(folder, "llama").module.double()
    total = 0.0
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        length = int(mask.sum())
        logits = module(input_ids=ids[None, :length]).logits[0].tolist()
        for position in range(1, length):
            if labels[position] != IGNORED:
                scores = logits[position - 1]
                largest = max(scores)
                norm = largest + math.log(sum(math.exp(score - largest) for score in scores))
                total += norm - scores[int(labels[position])]
    assert math.isclose(value.item(), total, rel_tol=1e-5)


def test_chunks_change_neither_loss_nor_gradient() -> None:
    """Logits are recomputed chunk by chunk."""
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 30)
    hidden = torch.randn(25, 8, requires_grad=True)
    targets = torch.randint(0, 30, (25,))
    found = []
    for chunk_tokens in (25, 4):
        hidden.grad = head.weight.grad = None
        loss = cross_entropy_sum(hidden, head, targets, chunk_tokens=chunk_tokens)
        loss.backward()
        found.append((loss.detach(), hidden.grad, head.weight.grad))
    assert_close(found[0], found[1])


def test_gathered_and_full_losses_have_the_same_gradient(folder: Path) -> None:
    """So which one is chosen changes speed only."""
    model = tiny_model(folder, "llama")
    batch = batch_for(model)
    gradients = []
    for loss in (gathered_loss, full_logits_loss):
        model.module.zero_grad()
        loss(model.module, batch)[0].backward()
        gradients.append({name: value.grad.clone() for name, value in model.module.named_parameters()})
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("family", DECODERS)
def test_usual_decoders_get_the_gathered_loss(folder: Path, family: Family) -> None:
    """Nothing need be said then."""
    model = tiny_model(folder, family)
    chosen = choose_loss(model.module, "decoder", batch_for(model))
    assert (
        chosen.gathers
        and chosen.finding is None
        and getattr(chosen.loss_sum, "func", chosen.loss_sum) in (gathered_loss, packed_loss)
    )


def test_a_model_that_scales_its_logits_gets_the_full_loss(folder: Path) -> None:
    """Noticed by comparing both on a batch, not by the model's name."""
    from transformers import CohereConfig, CohereForCausalLM

    usual = tiny_model(folder, "llama")
    module = CohereForCausalLM(
        CohereConfig(
            vocab_size=usual.module.config.vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            logit_scale=0.25,
            pad_token_id=0,
        )
    ).eval()
    batch = batch_for(usual)
    chosen = choose_loss(module, "decoder", batch)
    loss, finding = chosen.loss_sum, chosen.finding
    assert loss is full_logits_loss
    assert finding is not None and "every position" in finding
    count = int((batch["labels"] != IGNORED).sum())
    assert math.isclose(loss(module, batch)[0].item(), float(module(**batch).loss.detach()) * count, rel_tol=1e-5)


def test_a_model_without_the_usual_parts_gets_the_full_loss(folder: Path) -> None:
    """It only has to give logits."""
    usual = tiny_model(folder, "llama")

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = usual.module

        def forward(self, **batch: object) -> object:
            return self.inside(**batch)

    assert choose_loss(Bare(), "decoder", batch_for(usual)).loss_sum is full_logits_loss


def test_a_broken_model_is_refused_before_training(folder: Path) -> None:
    """A loss that is no number at the start never gets better."""
    model = tiny_model(folder, "llama")
    batch = batch_for(model)
    with torch.no_grad():
        model.module.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="gives logits that are not finite"):
        choose_loss(model.module, "decoder", batch)
