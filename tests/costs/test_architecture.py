from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from taskfit.costs.architecture import Architecture, known_families
from taskfit.errors import ModelError

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GPT2 = {
    "vocab_size": 100,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
T5 = {"vocab_size": 100, "d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 16}

OPT = {"vocab_size": 100, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FALCON = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}

CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "llama": (lambda: transformers.LlamaConfig(**GROUPED), "AutoModelForCausalLM"),
    "llama with biases, tied": (
        lambda: transformers.LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
        "AutoModelForCausalLM",
    ),
    "mistral": (lambda: transformers.MistralConfig(**GROUPED, head_dim=16), "AutoModelForCausalLM"),
    "qwen2": (lambda: transformers.Qwen2Config(**GROUPED), "AutoModelForCausalLM"),
    "qwen3": (lambda: transformers.Qwen3Config(**GROUPED), "AutoModelForCausalLM"),
    "qwen3 with biases": (lambda: transformers.Qwen3Config(**GROUPED, attention_bias=True), "AutoModelForCausalLM"),
    "gemma": (lambda: transformers.GemmaConfig(**GROUPED), "AutoModelForCausalLM"),
    "gemma2": (lambda: transformers.Gemma2Config(**GROUPED), "AutoModelForCausalLM"),
    "gemma3_text": (lambda: transformers.Gemma3TextConfig(**GROUPED), "AutoModelForCausalLM"),
    "gpt2": (lambda: transformers.GPT2Config(**GPT2), "AutoModelForCausalLM"),
    "gpt2 with its own MLP width": (lambda: transformers.GPT2Config(**GPT2, n_inner=40), "AutoModelForCausalLM"),
    "gpt_neox": (lambda: transformers.GPTNeoXConfig(**SIZES), "AutoModelForCausalLM"),
    "gpt_neox without attention biases": (
        lambda: transformers.GPTNeoXConfig(**SIZES, attention_bias=False),
        "AutoModelForCausalLM",
    ),
    "gpt_neox, tied": (
        lambda: transformers.GPTNeoXConfig(**SIZES, tie_word_embeddings=True),
        "AutoModelForCausalLM",
    ),
    "mixtral": (
        lambda: transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
        "AutoModelForCausalLM",
    ),
    "qwen3_moe": (
        lambda: transformers.Qwen3MoeConfig(**GROUPED, head_dim=8, moe_intermediate_size=24, num_experts=4),
        "AutoModelForCausalLM",
    ),
    "gpt_bigcode": (lambda: transformers.GPTBigCodeConfig(**GPT2), "AutoModelForCausalLM"),
    "opt": (lambda: transformers.OPTConfig(**OPT), "AutoModelForCausalLM"),
    "opt with a narrow embedding": (
        lambda: transformers.OPTConfig(**OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
        "AutoModelForCausalLM",
    ),
    "phi": (lambda: transformers.PhiConfig(**GROUPED), "AutoModelForCausalLM"),
    "phi3": (lambda: transformers.Phi3Config(**GROUPED), "AutoModelForCausalLM"),
    "falcon": (lambda: transformers.FalconConfig(**FALCON), "AutoModelForCausalLM"),
    "falcon, new layout, with biases": (
        lambda: transformers.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True),
        "AutoModelForCausalLM",
    ),
    "mpt": (
        lambda: transformers.MptConfig(d_model=32, n_layers=2, n_heads=4, vocab_size=100),
        "AutoModelForCausalLM",
    ),
    "distilbert": (
        lambda: transformers.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=48),
        "AutoModel",
    ),
    "bert": (lambda: transformers.BertConfig(**SIZES), "AutoModel"),
    "roberta": (lambda: transformers.RobertaConfig(**SIZES), "AutoModel"),
    "xlm-roberta": (lambda: transformers.XLMRobertaConfig(**SIZES), "AutoModel"),
    "t5": (lambda: transformers.T5Config(**T5, num_decoder_layers=3), "AutoModelForSeq2SeqLM"),
    "t5, gated and untied": (
        lambda: transformers.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        "AutoModelForSeq2SeqLM",
    ),
    "mt5": (lambda: transformers.MT5Config(**T5), "AutoModelForSeq2SeqLM"),
}


@pytest.mark.parametrize("case", CASES)
def test_parameters_equal_those_of_the_model(case: str) -> None:
    """Against the model that transformers builds, on the meta device."""
    build, auto_class = CASES[case]
    config = build()
    with torch.device("meta"):
        model = getattr(transformers, auto_class).from_config(config)
    found = Architecture.from_config(config)
    assert found.parameters.total == sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    assert found.parameters.embedding >= embedding
    assert Architecture.from_config(json.loads(config.to_json_string(use_diff=False))) == found


def test_a_sparse_config_file_gets_the_familys_defaults() -> None:
    """Files on disk name only what differs."""
    values = {"model_type": "llama", **SIZES, "num_attention_heads": 4}
    found = Architecture.from_config(values)
    assert found.attention_width == 32
    assert found.parameters.head == 3200
    assert Architecture.from_config({**values, "model_type": "gemma"}).parameters.head == 0


def test_an_unknown_family_names_the_known_ones() -> None:
    """Nothing is guessed."""
    with pytest.raises(ModelError, match=r"'lama' model \(did you mean 'llama'\?\); known are bert"):
        Architecture.from_config({"model_type": "lama"})
    assert "llama" in known_families()


def test_all_missing_and_impossible_sizes_are_reported_together() -> None:
    """A damaged configuration names every fault."""
    values = {"model_type": "bert", "hidden_size": "32", "num_hidden_layers": 0, "vocab_size": True}
    with pytest.raises(
        ModelError, match=r"(?s)4 faults.*hidden_size.*num_hidden_layers.*intermediate_size.*vocab_size"
    ):
        Architecture.from_config(values)
