"""What is shared, what it saves, and what it may cost."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import transformers

from taskfit.inference import cascade, own_attention, score_shared
from taskfit.inference.requests import Score
from taskfit.inference.sharing import cache_bytes, find_sharing
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models.encoding import encode
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import PARAGRAPH
from tests.inference.naive import naive_scores

WORDS = PARAGRAPH.split()
FIRST, SECOND = PARAGRAPH[:180], PARAGRAPH[200:380]


@pytest.fixture(scope="module")
def requests():
    """Two groups that share nothing, the second with a group inside."""
    texts = [FIRST + word for word in WORDS[:4]] + [SECOND + word for word in WORDS[4:7]]
    texts += [SECOND + FIRST + word for word in WORDS[7:9]]
    return [Score(Prompt(text), ("yes", "the cats", "no")) for text in texts]


@pytest.fixture(scope="module")
def wide(tiny):
    """The tiny Llama with room for longer prompts."""
    return dataclasses.replace(tiny("llama"), context=400)


def test_groups_and_groups_inside_share_their_beginnings(wide, requests):
    """Beginnings are computed once each, whatever the order of the requests."""
    mixed = requests[::2] + requests[1::2]
    engine = TorchEngine(wide)
    for request, response in zip(mixed, engine.run(mixed), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(wide, request), abs=1e-4)
    beginnings = sum(len(encode(wide, Prompt(text)).prompt) for text in (FIRST, SECOND, FIRST))
    assert engine.work.computed_tokens < beginnings + len(requests) * 20
    assert engine.work.prompt_tokens > 2.5 * beginnings


def test_equal_requests_are_computed_once(tiny):
    """They are billed each."""
    once, often = TorchEngine(tiny("gpt2")), TorchEngine(tiny("gpt2"))
    request = Score(Prompt("boats"), ("yes", "the cats"))
    (expected,) = once.run([request])
    assert often.run([request] * 5) == [expected] * 5
    assert often.work.computed_tokens == once.work.computed_tokens
    assert often.work.prompt_tokens == 5 * once.work.prompt_tokens


@pytest.mark.parametrize("tokens", [0, 70, 150, 10_000])
def test_shared_keys_and_values_stay_within_their_memory(wide, requests, tokens, monkeypatch):
    """Rows are taken in rounds; what is larger than the memory is not shared; scores are the same."""
    sharing = find_sharing(wide)
    held = []
    score = score_shared._Run.score

    def watch(self, rows):
        score(self, rows)
        held.append(sum(segment.tokens for segment in self._held.values()))

    monkeypatch.setattr(score_shared._Run, "score", watch)
    encoded = [encode(wide, request.prompt, request.continuations) for request in requests]
    with torch.no_grad():
        found, _ = score_shared.score_shared(
            wide, encoded, 400, sharing, cache_bytes=tokens * sharing.bytes_per_token + 1
        )
    assert max(held) <= tokens
    assert (len(held) > 1) == (tokens in (70, 150))
    for request, scores in zip(requests, found, strict=True):
        assert scores == pytest.approx(naive_scores(wide, request), abs=1e-4)


def test_what_a_position_keeps_is_measured(tiny):
    """Two layers, keys and values, two heads of eight numbers in four bytes."""
    sharing = find_sharing(tiny("llama"))
    assert sharing is not None
    assert sharing.bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert sharing.has_plain_head and not sharing.windows
    assert cache_bytes(torch.device("cuda")) > cache_bytes(torch.device("cpu"))


def test_attention_without_a_fused_kernel_is_the_same(wide, requests, monkeypatch):
    """Other devices take the plain way, in parts where scores are many."""
    expected = TorchEngine(wide).run(requests)
    attend = own_attention.attend
    monkeypatch.setattr(cascade, "attend", lambda *args, **how: attend(*args, **how | {"is_fused": False}))
    monkeypatch.setattr(own_attention, "_MOST_SCORES", 20_000)
    for one, other in zip(TorchEngine(wide).run(requests), expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.fixture(scope="module")
def trained(wide):
    """The tiny Llama after a few steps on the paragraph, so that it prefers some answers by nats."""
    model = dataclasses.replace(wide, module=copy.deepcopy(wide.module))
    ids = torch.tensor([model.tokenizer(PARAGRAPH)["input_ids"][:400]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimiser = torch.optim.AdamW(model.module.parameters(), lr=1e-2)
        for _ in range(15):
            optimiser.zero_grad()
            model.module(input_ids=ids, labels=ids).loss.backward()
            optimiser.step()
    return model


def test_decisions_in_half_precision_are_those_in_full(trained):
    """On at least 99.5 % of rows; where they differ, the margin is within the rounding."""
    half = dataclasses.replace(trained, module=copy.deepcopy(trained.module).bfloat16(), dtype=torch.bfloat16)
    shots = (Shot(FIRST, "yes"),)
    answers = ("yes", "the market", "negative. Question:", "red")
    texts = [" ".join(WORDS[i : i + 4]) for i in range(70)] + [" ".join(WORDS[i : i + 7]) for i in range(70)]
    requests = [Score(Prompt(text, shots), answers) for text in texts]
    engine = TorchEngine(half)
    full, rounded = TorchEngine(trained).run(requests), engine.run(requests)
    assert engine._find_sharing()
    differ = [one for one, other in zip(full, rounded, strict=True) if _best(one) != _best(other)]
    assert len(differ) <= 0.005 * len(requests)
    assert all(one.margin < 0.2 for one in differ)
    assert sorted(one.margin for one in full)[len(full) // 2] > 0.2  # no degenerate margins


def _best(response):
    return max(range(len(response.logprobs)), key=lambda number: response.logprobs[number])


def test_the_margin_is_between_the_best_two(tiny):
    """One continuation has no rival."""
    one, three = TorchEngine(tiny("gpt2")).run(
        [Score(Prompt("boats"), ("yes",)), Score(Prompt("boats"), ("yes", "no", "the cats"))]
    )
    ranked = sorted(three.logprobs)
    assert three.margin == pytest.approx(ranked[2] - ranked[1])
    assert one.margin == float("inf")


def test_an_answer_that_begins_another_is_scored_and_said(tiny):
    """The longer one can only be less likely; once a run is enough to say so."""
    engine = TorchEngine(tiny("gpt2"))
    answers = ("the cats", "no", "the cats who", "the")
    pair, none, _ = engine.run(
        [Score(Prompt("boats"), answers), Score(Prompt("boats"), ("yes", "no")), Score(Prompt("cats"), answers)]
    )
    assert pair.has_prefix_pair and not none.has_prefix_pair
    assert pair.logprobs[0] > pair.logprobs[2]
    assert len([note for note in engine.notes if "begins with another" in note]) == 1


def test_a_merged_boundary_is_said(tiny):
    """Joint tokens are scored."""
    engine = TorchEngine(tiny("gpt2"))
    (response,) = engine.run([Score(Prompt("the harb"), ("our", "yes"))])
    assert response.is_merged == any("merges" in note for note in engine.notes)


def test_a_head_with_a_bias_and_one_that_is_wrapped_score_alike(tiny):
    """The output layer is read in tiles where it is plain, and called as a whole where it is not."""
    config = transformers.PhiConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
        torch.nn.init.normal_(module.lm_head.bias)
        torch.nn.init.normal_(module.lm_head.weight, std=0.3)
    model = dataclasses.replace(tiny("llama"), module=module)
    request = Score(Prompt("boats are"), ("yes", "the cats"))
    expected = naive_scores(model, request)
    assert find_sharing(model).has_plain_head
    assert TorchEngine(model).run([request])[0].logprobs == pytest.approx(expected, abs=1e-4)

    class Wrapped(torch.nn.Linear):
        """Another class may do more than a product."""

    module.lm_head.__class__ = Wrapped
    assert not find_sharing(model).has_plain_head
    assert TorchEngine(model).run([request])[0].logprobs == pytest.approx(expected, abs=1e-4)
