"""One engine for every decoder: tiny random models of many families against a plain pass a continuation."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import EngineError
from taskfit.inference.requests import Score
from taskfit.inference.torch_engine import TorchEngine
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import PARAGRAPH
from tests.inference.naive import naive_scores

WORDS = PARAGRAPH.split()
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 8, "sliding_window": 9, "query_pre_attn_scalar": 8}
OLD = {"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2}

SHARING = {
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen2 with windows in upper layers": (
        "Qwen2Config",
        GROUPED | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", GROUPED | {"head_dim": 8}),
    "mistral with a window": ("MistralConfig", GROUPED | {"sliding_window": 8}),
    "gemma": ("GemmaConfig", GROUPED | {"head_dim": 8}),
    "gemma 2: capped, every second layer with a window": (
        "Gemma2Config",
        GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma 3: windows in most layers": ("Gemma3TextConfig", GEMMA | {"layer_types": None, "sliding_window_pattern": 2}),
    "gpt2": ("GPT2Config", OLD | {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt-neox": ("GPTNeoXConfig", SIZES),
    "phi": ("PhiConfig", SIZES),
    "granite: scaled logits": ("GraniteConfig", GROUPED | {"logits_scaling": 3.0, "attention_multiplier": 0.2}),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": 512,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 256,
            "init_std": 0.2,
            "dropout": 0.0,
            "pad_token_id": 0,
        },
    ),
}
SEPARATE = {
    "bloom: positions as biases": ("BloomConfig", OLD | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gpt-j: attention of its own": (
        "GPTJConfig",
        OLD | {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "gpt-oss: sinks": (
        "GptOssConfig",
        GROUPED | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    ),
    "mamba: recurrent": ("MambaConfig", OLD | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}


@pytest.fixture(scope="module")
def model_of(tiny):
    """Return a function from a family to a language model that has the tiny Llama's tokenizer."""
    made = {}

    def make(family):
        if family not in made:
            name, values = (SHARING | SEPARATE)[family]
            config = getattr(transformers, name)(**{key: value for key, value in values.items() if value is not None})
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=_attention(config))
            made[family] = dataclasses.replace(tiny("llama"), module=module.eval(), name=family, context=256)
        return made[family]

    return make


def _attention(config):
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return "eager" if capped or config.model_type in ("gpt_oss", "gptj", "bloom", "mamba") else "sdpa"


def _requests():
    worked = (Shot("the harbour opens at six and the market wakes up before the sun does. Open?", "yes"),) * 2
    answers = ("yes", "the cats", "the cats who wait", "no")
    return [Score(Prompt(" ".join(WORDS[i : i + 3 + 5 * i]), worked if i % 3 else ()), answers) for i in range(5)]


@pytest.mark.parametrize("family", SHARING)
def test_a_family_that_shares_scores_as_one_by_one(model_of, family):
    """Windows shorter than the prompt, capped scores, scaled logits, positions with an offset."""
    model, requests = model_of(family), _requests()
    engine = TorchEngine(model, batch_tokens=150)
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)
    assert not any("one by one" in note for note in engine.notes)
    assert engine.work.computed_tokens < engine.work.prompt_tokens


@pytest.mark.parametrize("family", SEPARATE)
def test_a_family_that_cannot_share_scores_as_one_by_one_and_says_so(model_of, family):
    """Slower, and right."""
    model, requests = model_of(family), _requests()[:3]
    engine = TorchEngine(model)
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)
    assert any("one by one" in note for note in engine.notes)


def test_bart_encodes_a_prompt_once_and_scores_all_answers(tiny):
    """The encoder-decoder with learned positions, beside T5 with relative ones."""
    config = transformers.BartConfig(
        vocab_size=512,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=256,
        init_std=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.BartForConditionalGeneration(config).eval()
    model, requests = dataclasses.replace(tiny("t5"), module=module, context=256), _requests()[:4]
    engine = TorchEngine(model, batch_tokens=150)
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)
    assert engine.work.computed_tokens < 1.6 * engine.work.prompt_tokens


def test_the_model_gets_its_own_attention_back(model_of):
    """Also where scoring fails."""
    model = model_of("qwen3")
    engine = TorchEngine(model)
    engine.run(_requests()[:1])
    weight = model.module.get_output_embeddings().weight
    kept = weight.detach().clone()
    try:
        weight.data[3] = float("nan")
        with pytest.raises(EngineError, match="NaN"):
            engine.run(_requests()[:1])
    finally:
        weight.data.copy_(kept)
    assert model.module.config._attn_implementation == "sdpa"


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
beginnings = st.sampled_from(["", PARAGRAPH[:120], PARAGRAPH[:200], PARAGRAPH[:120] + "Or else? " * 6])
prompts = st.tuples(beginnings, texts).map(lambda parts: Prompt("".join(parts)))
answers = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join), min_size=1, max_size=4, unique=True
)


_ENGINES = {}


def _engine(model, batch_tokens):
    """An engine that has tried its model already, where an earlier example made one."""
    key = model.name, batch_tokens
    if key not in _ENGINES:
        _ENGINES[key] = TorchEngine(model, batch_tokens=batch_tokens)
    return _ENGINES[key]


@pytest.mark.parametrize("family", [name for name in SHARING if name.startswith(("qwen3", "mistral", "gemma 2"))])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(st.builds(lambda p, a: Score(p, tuple(a)), prompts, answers), min_size=1, max_size=6),
    batch_tokens=st.sampled_from([1, 60, 400]),
    order=st.randoms(use_true_random=False),
)
def test_scores_are_the_same_whatever_is_shared(model_of, family, requests, batch_tokens, order):
    """Random prompts behind nested beginnings, with labels of their own, in any order and batch size."""
    model = model_of(family)
    shuffled = order.sample(requests, len(requests))
    engine = _engine(model, batch_tokens)
    for request, response in zip(shuffled, engine.run(shuffled), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)
