from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from taskfit.errors import EngineError
from taskfit.inference.text_loss import text_losses
from taskfit.models import load
from taskfit.models.language_model import LanguageModel
from taskfit.testing import PARAGRAPH, tiny_decoder, tiny_encoder

TEXTS = [PARAGRAPH, "At noon the prices fall.", "a", "Later, the nets are mended <s> and </s> washed."]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(tiny_decoder(tmp_path_factory.mktemp("model"), kind=request.param), dtype="float32", device="cpu")


def by_hand(model: LanguageModel, ids: list[int]) -> float:
    """Minus the log-probability of all tokens but the first, one plain pass in float64."""
    module = model.module.double()
    with torch.no_grad():
        logits = module(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    module.float()
    return -float(logits.gather(1, torch.tensor(ids[1:])[:, None]).sum())


def test_losses_equal_a_plain_pass_over_each_text(model: LanguageModel) -> None:
    """The beginning of text is read and not predicted; every token of the text is."""
    start = model.tokenizer.bos_token_id
    for text, found in zip(TEXTS[:3], text_losses(model, TEXTS[:3]), strict=True):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found.tokens == len(ids)
        assert found.nats == pytest.approx(by_hand(model, [start, *ids]), rel=1e-5)


def test_a_loss_does_not_depend_on_the_other_texts_or_the_batch(model: LanguageModel) -> None:
    """Alone, in another order, in small batches."""
    together = text_losses(model, TEXTS)
    alone = [text_losses(model, [text], batch_tokens=16)[0] for text in reversed(TEXTS)]
    for one, other in zip(together, reversed(alone), strict=True):
        assert one.tokens == other.tokens
        assert one.nats == pytest.approx(other.nats, rel=1e-5)


def test_a_text_longer_than_the_context_loses_no_token(model: LanguageModel) -> None:
    """It is cut into pieces; each begins anew, so each is what the piece alone would be."""
    short = replace(model, context=40)
    whole, cut = text_losses(model, [PARAGRAPH])[0], text_losses(short, [PARAGRAPH])[0]
    assert cut.tokens == whole.tokens
    assert cut.nats != pytest.approx(whole.nats, rel=1e-4)
    start, ids = model.tokenizer.bos_token_id, model.tokenizer(PARAGRAPH, add_special_tokens=False)["input_ids"]
    by_pieces = sum(by_hand(model, [start, *ids[at : at + 39]]) for at in range(0, len(ids), 39))
    assert cut.nats == pytest.approx(by_pieces, rel=1e-5)


def test_without_any_beginning_of_text_the_first_token_is_only_read(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each further piece begins with the token before it, so that no token is left out."""
    from taskfit.models.text_format import text_format

    bare = replace(text_format(model.tokenizer), head=(), start=None)
    monkeypatch.setattr("taskfit.inference.text_loss.text_format", lambda tokenizer: bare)
    ids = model.tokenizer(PARAGRAPH, add_special_tokens=False)["input_ids"]
    (found,) = text_losses(model, [PARAGRAPH])
    assert (found.tokens, found.nats) == (len(ids) - 1, pytest.approx(by_hand(model, ids), rel=1e-5))
    (cut,) = text_losses(replace(model, context=40), [PARAGRAPH])
    assert cut.tokens == len(ids) - 1
    with pytest.raises(EngineError, match="no token to predict"):
        text_losses(model, [""])


def test_empty_texts_and_encoders_are_refused(model: LanguageModel, tmp_path: Path) -> None:
    """Nothing can be said of them."""
    with pytest.raises(EngineError, match="no token to predict"):
        text_losses(model, [""])
    with pytest.raises(EngineError, match="no decoder"):
        text_losses(load(tiny_encoder(tmp_path, has_masked_head=True)), ["a"])
