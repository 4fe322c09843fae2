"""The tiny models and the fake engine that ship with the package."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from taskfit.inference.requests import Generate, Score
from taskfit.tasks.prompt import Prompt
from taskfit.testing import FakeEngine, generated, scored, tiny_decoder


def test_the_seed_decides_the_weights_and_leaves_the_callers_randomness_alone(tmp_path):
    """Same seed, same weights; another seed, others."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    folders = [tiny_decoder(tmp_path / str(number), seed=seed) for number, seed in enumerate((0, 0, 1))]
    assert torch.equal(torch.rand(1), expected)
    first, same, other = (load_file(folder / "model.safetensors") for folder in folders)
    name = "model.embed_tokens.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])


def test_byte_families_read_any_text_back(tiny):
    """Umlauts, emoji and line breaks survive."""
    text = "Größe: 中 🐟\n\n  two  spaces"
    for kind in ("llama", "gpt2", "chatml", "gemma"):
        tokenizer = tiny(kind).tokenizer
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_fake_engine_remembers_and_counts():
    """Requests, waves, tokens."""
    engine = FakeEngine(
        lambda request: scored(request, [-1.0, -2.0]) if isinstance(request, Score) else generated(request, "a b")
    )
    requests = [Score(Prompt("one two three"), ("yes", "not so")), Generate(Prompt("one"), 5)]
    score, text = engine.run(requests)
    engine.run(requests[:1])
    assert score.logprobs == (-1.0, -2.0) and score.tokens == (1, 2)
    assert (text.text, text.finish, text.tokens) == ("a b", "end", 3)
    assert engine.waves == [2, 1] and engine.requests == [*requests, requests[0]]
    assert (engine.work.prompt_tokens, engine.work.answer_tokens) == (7, 9)
