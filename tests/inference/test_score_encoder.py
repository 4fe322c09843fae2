"""Answers of encoders: what the masked-token head says at the mask."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import EngineError
from taskfit.inference.requests import Generate, Score
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models.encoding import encode
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import PARAGRAPH

WORDS = PARAGRAPH.split()
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
answers = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(lambda some: " ".join(some).lower()),
    min_size=1,
    max_size=4,
    unique=True,
)


def fill_masks(model, request):
    """Score every answer in a plain pass of its own, the text written out with transformers' own mask token."""
    mask = model.tokenizer.mask_token_id
    scores = []
    for answer in encode(model, request.prompt, request.continuations).answers:
        text = request.prompt.text.replace("[MASK]", " ".join(["[MASK]"] * len(answer)))
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        places = (ids[0] == mask).nonzero()[:, 0]
        assert len(places) == len(answer)
        with torch.no_grad():
            logprobs = model.module(input_ids=ids).logits[0].double().log_softmax(-1)
        scores.append(sum(float(logprobs[place, token]) for place, token in zip(places, answer, strict=True)))
    return scores


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(st.tuples(words, words), min_size=1, max_size=5),
    labels=answers,
    batch_tokens=st.integers(1, 200),
    order=st.randoms(use_true_random=False),
)
def test_scores_equal_one_plain_pass_an_answer(tiny, texts, labels, batch_tokens, order):
    """Whatever the length of answers, the order and the batch."""
    model = tiny("cloze")
    requests = [Score(Prompt(f"{before} [MASK] {after}"), tuple(labels)) for before, after in texts]
    try:
        responses = TorchEngine(model, batch_tokens=batch_tokens).run(requests)
    except EngineError as error:
        assert "same tokens" in error.message  # "Boats" and "boats"
        return
    for request, response in zip(requests, responses, strict=True):
        assert response.logprobs == pytest.approx(fill_masks(model, request), abs=1e-4)
    shuffled = order.sample(requests, len(requests))
    for request, response in zip(shuffled, TorchEngine(model).run(shuffled), strict=True):
        assert response.logprobs == pytest.approx(responses[requests.index(request)].logprobs, abs=1e-4)


def test_answers_of_one_length_share_a_pass(tiny):
    """Two passes: for one mask and for two."""
    model = tiny("cloze")
    engine = TorchEngine(model)
    request = Score(Prompt("boats are [MASK] today"), ("good", "bad", "the cats"))
    (response,) = engine.run([request])
    assert sorted(set(response.tokens)) == [1, 2]
    assert engine.work.head_tokens == 1 + 2
    assert engine.work.computed_tokens == 2 * (response.prompt_tokens + 1)


def test_a_mask_in_front_of_the_text_and_worked_examples(tiny):
    """The answer of an example stands at its mask; a question without one gets it behind."""
    model = tiny("cloze")
    shown = Shot("Topic: [MASK]. the boats come in", "sports")
    request = Score(Prompt("Topic: [MASK]. the nets are mended", (shown,)), ("sports", "business"))
    written = Prompt("Topic: sports. the boats come in\n\nTopic: [MASK]. the nets are mended")
    engine = TorchEngine(model)
    (response,) = engine.run([request])
    assert response.logprobs == pytest.approx(fill_masks(model, dataclasses.replace(request, prompt=written)), abs=1e-4)
    plain, marked = engine.run(
        [Score(Prompt("boats are"), ("good", "bad")), Score(Prompt("boats are [MASK]"), ("good", "bad"))]
    )
    assert plain == marked


def test_encoders_generate_nothing(tiny):
    """The error says what would."""
    with pytest.raises(EngineError, match="generates no text"):
        TorchEngine(tiny("cloze")).run([Generate(Prompt("boats"), 3)])


def test_nan_is_an_error(tiny):
    """A broken weight is never a score."""
    model = tiny("cloze")
    bias = model.module.get_output_embeddings().bias
    kept = bias.detach().clone()
    try:
        bias.data[5] = float("nan")
        with pytest.raises(EngineError, match="NaN"):
            TorchEngine(model).run([Score(Prompt("a [MASK]"), ("yes", "no"))])
    finally:
        bias.data.copy_(kept)
