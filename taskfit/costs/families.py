"""How each family of models lays out its layers: one function a family, from the values of its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskfit.costs.architecture import Architecture, Linear, Parameters
from taskfit.errors import Faults

__all__ = ["FAMILIES", "Sizes"]


@dataclass
class Sizes:
    """Reads whole numbers and flags, and notes what is missing or impossible."""

    values: Mapping[str, Any]
    faults: Faults

    def number(self, key: str, default: int | None = None) -> int:
        """Return a size of at least 1; a fault and 1 where it is missing or something else."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.faults.add(f"{key} must be a whole number of at least 1 (got {value!r})")
            return 1
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a yes or no."""
        value = self.values.get(key)
        return default if value is None else bool(value)


def _matrices(linears: Sequence[Linear]) -> int:
    return sum(linear.weights for linear in linears)


def _biases(linears: Sequence[Linear]) -> int:
    return sum(linear.outputs * linear.copies for linear in linears)


def _attention(hidden: int, width: int, narrow: int, output: str = "o_proj") -> tuple[Linear, ...]:
    """Query, key, value and output as matrices of their own."""
    return (
        Linear("q_proj", hidden, width),
        Linear("k_proj", hidden, narrow),
        Linear("v_proj", hidden, narrow),
        Linear(output, width, hidden),
    )


def _rotary_decoder(family: str, sizes: Sizes) -> Architecture:
    """Llama and its like: grouped-query attention, gated MLP or experts, RMS norms, rotary positions."""
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads"), _mlp_width(family, sizes)
    is_gemma, has_head_norms = family.startswith("gemma"), family in ("qwen3", "qwen3_moe", "gemma3_text")
    head_size = sizes.number("head_dim", _HEAD_SIZES.get(family, max(1, hidden // heads)))
    key_value_heads = sizes.number("num_key_value_heads", _KEY_VALUE_HEADS.get(family, heads))
    width, narrow = heads * head_size, key_value_heads * head_size
    attention, mlp = _attention(hidden, width, narrow), _gated(family, hidden, mlp_width, sizes)
    has_bias = sizes.flag("attention_bias", False)
    biases = width + 2 * narrow if has_bias or family == "qwen2" else 0
    biases += (hidden if has_bias else 0) + (_biases(mlp) if sizes.flag("mlp_bias", False) else 0)
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
        parameters=Parameters(table, layers * (_matrices(linears) + biases + norms), 0 if is_tied else table, hidden),
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


def _plain(
    family: str,
    sizes: Sizes,
    linears: tuple[Linear, ...],
    *,
    hidden: int,
    heads: int,
    vocabulary: int,
    layers: int,
    mlp_width: int,
    positions: int = 0,
    has_biases: bool = True,
    norms: int = 4,
    final: int = 2,
    is_tied: bool = True,
    key_value_heads: int = 0,
    head_bias: bool = False,
) -> Architecture:
    """Join the parts of a decoder with plain or fused matrices.

    ``norms`` counts the vectors of width ``hidden`` in a layer's norms (a layer norm has two), ``final`` those of the
    final norm.
    """
    own_biases = _biases(linears) if has_biases else 0
    factors = norms * hidden if final == 1 else norms * hidden // 2  # the rest of a layer norm are biases
    per_layer = _matrices(linears) + own_biases + norms * hidden
    table = vocabulary * hidden
    head = 0 if is_tied else table + (vocabulary if head_bias else 0)
    return Architecture(
        kind="decoder",
        family=family,
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads or heads,
        head_size=max(1, hidden // heads),
        mlp_width=mlp_width,
        vocabulary=vocabulary,
        layers=layers,
        linears=linears,
        parameters=Parameters(table + positions * hidden, layers * per_layer, head, final * hidden),
        context=positions or sizes.number("max_position_embeddings", 2048),
        biases=layers * (own_biases + norms * hidden - factors),
        norms=layers * factors,
    )


def _gpt2(family: str, sizes: Sizes) -> Architecture:
    """GPT-2, and GPT-BigCode with its single key-value head."""
    hidden, layers, vocabulary = sizes.number("n_embd"), sizes.number("n_layer"), sizes.number("vocab_size")
    heads, mlp_width = sizes.number("n_head"), sizes.number("n_inner", 4 * hidden)
    is_multi_query = family == "gpt_bigcode" and sizes.flag("multi_query", True)
    narrow = max(1, hidden // heads) if is_multi_query else hidden
    linears = (
        Linear("c_attn", hidden, hidden + 2 * narrow),
        Linear("c_proj", hidden, hidden),
        Linear("c_fc", hidden, mlp_width),
        Linear("c_proj", mlp_width, hidden),
    )
    return _plain(
        family,
        sizes,
        linears,
        hidden=hidden,
        heads=heads,
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        positions=sizes.number("n_positions", 1024),
        is_tied=sizes.flag("tie_word_embeddings", True),
        key_value_heads=1 if is_multi_query else heads,
    )


def _gpt_neox(family: str, sizes: Sizes) -> Architecture:
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads", 1), sizes.number("intermediate_size")
    attention = (Linear("query_key_value", hidden, 3 * hidden), Linear("dense", hidden, hidden))
    mlp = (Linear("dense_h_to_4h", hidden, mlp_width), Linear("dense_4h_to_h", mlp_width, hidden))
    found = _plain(
        family,
        sizes,
        attention + mlp,
        hidden=hidden,
        heads=heads,
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        is_tied=sizes.flag("tie_word_embeddings", False),
    )
    return found if sizes.flag("attention_bias", True) else _less(found, layers * _biases(attention))


def _less(found: Architecture, layers: int) -> Architecture:
    """Take biases away from the layers."""
    smaller = replace(found.parameters, layers=found.parameters.layers - layers)
    return replace(found, parameters=smaller, biases=found.biases - layers)


def _opt(family: str, sizes: Sizes) -> Architecture:
    """OPT; the 350M model embeds more narrowly and norms after, which gives it two projections and no final norm."""
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    mlp_width, narrow = sizes.number("ffn_dim"), sizes.number("word_embed_proj_dim", hidden)
    norms_first = sizes.flag("do_layer_norm_before", True)
    linears = (
        *_attention(hidden, hidden, hidden, "out_proj"),
        Linear("fc1", hidden, mlp_width),
        Linear("fc2", mlp_width, hidden),
    )
    found = _plain(
        family,
        sizes,
        linears,
        hidden=hidden,
        heads=sizes.number("num_attention_heads"),
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        positions=sizes.number("max_position_embeddings", 2048) + 2,
        has_biases=sizes.flag("enable_bias", True),
        final=2 if norms_first else 0,
        is_tied=sizes.flag("tie_word_embeddings", True),
    )
    if narrow == hidden:
        return found
    embedding = found.parameters.embedding - vocabulary * (hidden - narrow)
    rest = found.parameters.rest + 2 * hidden * narrow
    return replace(found, parameters=replace(found.parameters, embedding=embedding, rest=rest))


def _phi(family: str, sizes: Sizes) -> Architecture:
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads"), sizes.number("intermediate_size")
    key_value_heads = sizes.number("num_key_value_heads", heads)
    narrow = key_value_heads * max(1, hidden // heads)
    linears = (
        *_attention(hidden, hidden, narrow, "dense"),
        Linear("fc1", hidden, mlp_width),
        Linear("fc2", mlp_width, hidden),
    )
    return _plain(
        family,
        sizes,
        linears,
        hidden=hidden,
        heads=heads,
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        norms=2,
        is_tied=sizes.flag("tie_word_embeddings", False),
        key_value_heads=key_value_heads,
        head_bias=True,
    )


def _phi3(family: str, sizes: Sizes) -> Architecture:
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads"), sizes.number("intermediate_size")
    key_value_heads = sizes.number("num_key_value_heads", heads)
    narrow = key_value_heads * max(1, hidden // heads)
    linears = (
        Linear("qkv_proj", hidden, hidden + 2 * narrow),
        Linear("o_proj", hidden, hidden),
        Linear("gate_up_proj", hidden, 2 * mlp_width),
        Linear("down_proj", mlp_width, hidden),
    )
    found = _plain(
        family,
        sizes,
        linears,
        hidden=hidden,
        heads=heads,
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        has_biases=False,
        norms=2,
        final=1,
        is_tied=sizes.flag("tie_word_embeddings", False),
        key_value_heads=key_value_heads,
    )
    return replace(found, is_gated=True)


def _falcon(family: str, sizes: Sizes) -> Architecture:
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads = sizes.number("num_attention_heads")
    mlp_width = sizes.number("ffn_hidden_size", 4 * hidden)
    is_new = sizes.flag("new_decoder_architecture", False)
    key_value_heads = heads
    if is_new:
        key_value_heads = sizes.number("num_kv_heads", heads)
    elif sizes.flag("multi_query", True):
        key_value_heads = 1
    narrow = key_value_heads * max(1, hidden // heads)
    linears = (
        Linear("query_key_value", hidden, hidden + 2 * narrow),
        Linear("dense", hidden, hidden),
        Linear("dense_h_to_4h", hidden, mlp_width),
        Linear("dense_4h_to_h", mlp_width, hidden),
    )
    has_one_norm = not is_new and sizes.flag("parallel_attn", True)
    return _plain(
        family,
        sizes,
        linears,
        hidden=hidden,
        heads=heads,
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        has_biases=sizes.flag("bias", False),
        norms=2 if has_one_norm else 4,
        is_tied=sizes.flag("tie_word_embeddings", True),
        key_value_heads=key_value_heads,
    )


def _mpt(family: str, sizes: Sizes) -> Architecture:
    hidden, layers, vocabulary = sizes.number("d_model"), sizes.number("n_layers"), sizes.number("vocab_size")
    mlp_width = sizes.number("expansion_ratio", 4) * hidden
    linears = (
        Linear("Wqkv", hidden, 3 * hidden),
        Linear("out_proj", hidden, hidden),
        Linear("up_proj", hidden, mlp_width),
        Linear("down_proj", mlp_width, hidden),
    )
    return _plain(
        family,
        sizes,
        linears,
        hidden=hidden,
        heads=sizes.number("n_heads"),
        vocabulary=vocabulary,
        layers=layers,
        mlp_width=mlp_width,
        has_biases=False,
        norms=2,
        final=1,
        is_tied=True,
    )


def _bert(family: str, sizes: Sizes) -> Architecture:
    """BERT and RoBERTa without output layer to the vocabulary, with pooler; DistilBERT without pooler and segments."""
    is_distil = family == "distilbert"
    keys = ("dim", "n_layers", "n_heads", "hidden_dim") if is_distil else _BERT_KEYS
    hidden, layers = sizes.number(keys[0]), sizes.number(keys[1])
    heads, mlp_width = sizes.number(keys[2], 1), sizes.number(keys[3])
    linears = (
        Linear("query", hidden, hidden),
        Linear("key", hidden, hidden),
        Linear("value", hidden, hidden),
        Linear("dense", hidden, hidden),
        Linear("dense", hidden, mlp_width),
        Linear("dense", mlp_width, hidden),
    )
    context = sizes.number("max_position_embeddings", 512)
    tables = sizes.number("vocab_size") + context + (0 if is_distil else sizes.number("type_vocab_size", 2))
    per_layer = _matrices(linears) + _biases(linears) + 4 * hidden
    pooler = 0 if is_distil else hidden * hidden + hidden
    return Architecture(
        kind="encoder",
        family=family,
        hidden=hidden,
        heads=heads,
        key_value_heads=heads,
        head_size=max(1, hidden // heads),
        mlp_width=mlp_width,
        vocabulary=0,
        layers=layers,
        linears=linears,
        parameters=Parameters(tables * hidden + 2 * hidden, layers * per_layer, 0, pooler),
        context=context,
        biases=layers * (_biases(linears) + 2 * hidden),
        norms=layers * 2 * hidden,
    )


_BERT_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def _t5(family: str, sizes: Sizes) -> Architecture:
    hidden, layers, vocabulary = sizes.number("d_model"), sizes.number("num_layers"), sizes.number("vocab_size")
    decoder_layers, heads = sizes.number("num_decoder_layers", layers), sizes.number("num_heads")
    head_size, mlp_width = sizes.number("d_kv"), sizes.number("d_ff")
    width = heads * head_size
    is_gated = str(sizes.values.get("feed_forward_proj", "relu")).startswith("gated")
    own = (
        Linear("q", hidden, width),
        Linear("k", hidden, width),
        Linear("v", hidden, width),
        Linear("o", width, hidden),
    )
    cross = tuple(Linear(one.name, one.inputs, one.outputs, reads_encoder=one.name in "kv") for one in own)
    rising = ("wi_0", "wi_1") if is_gated else ("wi",)
    mlp = (*(Linear(name, hidden, mlp_width) for name in rising), Linear("wo", mlp_width, hidden))
    positions = heads * sizes.number("relative_attention_num_buckets", 32)
    head = 0 if sizes.flag("tie_word_embeddings", True) else vocabulary * hidden
    stacks = layers * (_matrices(own + mlp) + 2 * hidden) + 2 * positions
    stacks += decoder_layers * (_matrices(own + cross + mlp) + 3 * hidden)
    return Architecture(
        kind="encoder-decoder",
        family=family,
        hidden=hidden,
        heads=heads,
        key_value_heads=heads,
        head_size=head_size,
        mlp_width=mlp_width,
        vocabulary=vocabulary,
        layers=layers,
        linears=own + mlp,
        parameters=Parameters(vocabulary * hidden, stacks, head, 2 * hidden),
        decoder_layers=decoder_layers,
        decoder_linears=own + cross + mlp,
        is_gated=is_gated,
        context=sizes.number("n_positions", 512),
        norms=(2 * layers + 3 * decoder_layers) * hidden,
    )


_ROTARY = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text")

FAMILIES: dict[str, Callable[[str, Sizes], Architecture]] = {
    **dict.fromkeys(_ROTARY, _rotary_decoder),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _gpt2),
    "gpt_neox": _gpt_neox,
    "opt": _opt,
    "phi": _phi,
    "phi3": _phi3,
    "falcon": _falcon,
    "mpt": _mpt,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "distilbert"), _bert),
    **dict.fromkeys(("t5", "mt5"), _t5),
}
"""Readers by ``model_type``."""
