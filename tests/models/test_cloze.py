"""Prompts with a mask at the place of the answer."""

from __future__ import annotations

import dataclasses

import pytest

from taskfit.errors import EngineError
from taskfit.models import load
from taskfit.models.encoding import encode
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import tiny_encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return an encoder with a masked-token head."""
    folder = tmp_path_factory.mktemp("cloze")
    return load(tiny_encoder(folder, has_masked_head=True, context=40), dtype="float32", device="cpu")


def text_of(model, encoded):
    """Return the prompt as text, its special tokens included."""
    return model.tokenizer.decode(encoded.prompt)


def test_the_prompt_holds_the_mask_once_and_its_special_tokens(model):
    """[CLS] system, question with its mask, [SEP]."""
    encoded = encode(model, Prompt("the film is [MASK] today", system="say it"), ("good", "bad"))
    assert text_of(model, encoded) == "[CLS] say it the film is [MASK] today [SEP]"
    assert [model.tokenizer.decode(answer) for answer in encoded.answers] == ["good", "bad"]


@pytest.mark.parametrize("sides", [(True, False), (False, False), (True, True)])
def test_the_space_around_a_mask_is_read_as_the_tokenizer_reads_it(model, sides):
    """RoBERTa's mask takes the space before it; a token of its own for that space would be one too many."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytes_of = Tokenizer(models.BPE())
    bytes_of.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    bytes_of.train_from_iterator(["It was good. It was bad today."] * 4, trainer)
    mask = AddedToken("<mask>", lstrip=sides[0], rstrip=sides[1], special=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_of, mask_token=mask)
    roberta = dataclasses.replace(model, tokenizer=tokenizer)
    for text in ("It was <mask> today.", "It was [MASK] today.", "It was <mask>."):
        expected = tokenizer(text.replace("[MASK]", "<mask>"), add_special_tokens=False)["input_ids"]
        encoded = encode(roberta, Prompt(text), ("good",))
        assert list(encoded.prompt) == expected
        assert encoded.answers == (tuple(tokenizer(" good", add_special_tokens=False)["input_ids"]),)


def test_only_the_wording_masks(model):
    """A mask in an example's answer or in the system text is ordinary text."""
    shot = Shot("is it [MASK]?", "[MASK]")
    encoded = encode(model, Prompt("so [MASK]", (shot,), system="[MASK]"), ("good",))
    assert encoded.prompt.count(model.tokenizer.mask_token_id) == 1
    assert encoded.prompt[-2] == model.tokenizer.mask_token_id


def test_two_masks_are_refused(model):
    """Which one would hold the answer?"""
    with pytest.raises(EngineError, match=r"one \[MASK\].*got 2"):
        encode(model, Prompt("[MASK] or [MASK]"), ("good",))


def test_what_is_too_long_loses_examples_first_and_never_the_mask(model):
    """Then the middle of the question's longer side."""
    shot = Shot("the boats are [MASK]", "washed")
    encoded = encode(model, Prompt("cats " * 28 + "are [MASK] now", (shot, shot)), ("good", "the cats"))
    assert (encoded.dropped_shots, encoded.cut_tokens) == (1, 0)
    encoded = encode(model, Prompt("are [MASK] now " + "cats " * 60, (shot, shot)), ("good", "the cats"))
    assert encoded.dropped_shots == 2 and encoded.cut_tokens > 20
    assert encoded.prompt.count(model.tokenizer.mask_token_id) == 1
    assert len(encoded.prompt) + 1 == model.context


def test_an_answer_without_tokens_and_a_body_without_a_head_are_refused(model, tmp_path):
    """Each says so."""
    with pytest.raises(EngineError, match="has no tokens"):
        encode(model, Prompt("so [MASK]"), (" ",))
    body = load(tiny_encoder(tmp_path / "body"), dtype="float32", device="cpu")
    with pytest.raises(EngineError, match="without a masked-token head"):
        encode(body, Prompt("so [MASK]"), ("good",))
