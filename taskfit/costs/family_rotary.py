"""Llama and its like."""

from __future__ import annotations

from taskfit.costs.architecture import Architecture, Linear, Parameters
from taskfit.costs.sizes import Sizes, attention_linears, biases_of, matrices

__all__ = ["rotary_decoder"]


def rotary_decoder(family: str, sizes: Sizes) -> Architecture:
    """Llama and its like: grouped-query attention, gated MLP or experts, RMS norms, rotary positions."""
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads"), _mlp_width(family, sizes)
    is_gemma, has_head_norms = family.startswith("gemma"), family in ("qwen3", "qwen3_moe", "gemma3_text")
    head_size = sizes.number("head_dim", _HEAD_SIZES.get(family, max(1, hidden // heads)))
    key_value_heads = sizes.number("num_key_value_heads", _KEY_VALUE_HEADS.get(family, heads))
    width, narrow = heads * head_size, key_value_heads * head_size
    attention, mlp = attention_linears(hidden, width, narrow), _gated(family, hidden, mlp_width, sizes)
    has_bias = sizes.flag("attention_bias", False)
    biases = width + 2 * narrow if has_bias or family == "qwen2" else 0
    biases += (hidden if has_bias else 0) + (biases_of(mlp) if sizes.flag("mlp_bias", False) else 0)
    norms = hidden * (4 if family in ("gemma2", "gemma3_text") else 2) + (2 * head_size if has_head_norms else 0)
    is_tied = sizes.flag("tie_word_embeddings", is_gemma)
    table = vocabulary * hidden
    linears = attention + mlp
    return Architecture(
        kind="decoder",
        family=family,
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        mlp_width=mlp_width,
        vocabulary=vocabulary,
        layers=layers,
        linears=linears,
        parameters=Parameters(table, layers * (matrices(linears) + biases + norms), 0 if is_tied else table, hidden),
        is_gated=True,
        context=sizes.number("max_position_embeddings", 2048),
        biases=layers * biases,
        norms=layers * norms,
    )


_HEAD_SIZES = {"qwen3": 128, "gemma": 256, "gemma2": 256, "gemma3_text": 256}
"""Head sizes that a family's configuration need not name; elsewhere: width / heads."""

_KEY_VALUE_HEADS = {"mixtral": 8, "mistral": 8}
"""Key-value heads that a family's configuration need not name; elsewhere: as many as heads."""


def _mlp_width(family: str, sizes: Sizes) -> int:
    return sizes.number("moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size")


def _gated(family: str, hidden: int, mlp_width: int, sizes: Sizes) -> tuple[Linear, ...]:
    """One gated MLP, or a router and experts."""
    if family not in ("mixtral", "qwen3_moe"):
        experts, active = 1, 1
        router: tuple[Linear, ...] = ()
    else:
        key = "num_experts" if "num_experts" in sizes.values else "num_local_experts"  # transformers writes either
        experts = sizes.number(key, 8 if family == "mixtral" else 128)
        active = sizes.number("num_experts_per_tok", 2 if family == "mixtral" else 8)
        router = (Linear("gate", hidden, experts),)
        if sizes.values.get("mlp_only_layers") or sizes.values.get("decoder_sparse_step", 1) != 1:
            sizes.faults.add("layers without experts among layers with experts cannot be counted")
    shapes = (("gate_proj", hidden, mlp_width), ("up_proj", hidden, mlp_width), ("down_proj", mlp_width, hidden))
    return (*router, *(Linear(*shape, copies=experts, active=active) for shape in shapes))
