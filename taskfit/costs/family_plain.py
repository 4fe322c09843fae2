"""Decoders with plain or fused matrices: GPT-2, GPT-NeoX, OPT, Phi, Falcon, MPT."""

from __future__ import annotations

from dataclasses import replace

from taskfit.costs.architecture import Architecture, Linear, Parameters
from taskfit.costs.sizes import Sizes, attention_linears, biases_of, matrices

__all__ = ["falcon", "gpt2", "gpt_neox", "mpt", "opt", "phi", "phi3"]


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
    own_biases = biases_of(linears) if has_biases else 0
    factors = norms * hidden if final == 1 else norms * hidden // 2  # the rest of a layer norm are biases
    per_layer = matrices(linears) + own_biases + norms * hidden
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


def gpt2(family: str, sizes: Sizes) -> Architecture:
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


def gpt_neox(family: str, sizes: Sizes) -> Architecture:
    """GPT-NeoX and Pythia: attention in one matrix, rotary positions, biases everywhere."""
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
    return found if sizes.flag("attention_bias", True) else _less(found, layers * biases_of(attention))


def _less(found: Architecture, layers: int) -> Architecture:
    """Take biases away from the layers."""
    smaller = replace(found.parameters, layers=found.parameters.layers - layers)
    return replace(found, parameters=smaller, biases=found.biases - layers)


def opt(family: str, sizes: Sizes) -> Architecture:
    """OPT; the 350M model embeds more narrowly and norms after, which gives it two projections and no final norm."""
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    mlp_width, narrow = sizes.number("ffn_dim"), sizes.number("word_embed_proj_dim", hidden)
    norms_first = sizes.flag("do_layer_norm_before", True)
    linears = (
        *attention_linears(hidden, hidden, hidden, "out_proj"),
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


def phi(family: str, sizes: Sizes) -> Architecture:
    """Phi 1 to 2: attention and MLP side by side behind one norm, an output layer with biases."""
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads"), sizes.number("intermediate_size")
    key_value_heads = sizes.number("num_key_value_heads", heads)
    narrow = key_value_heads * max(1, hidden // heads)
    linears = (
        *attention_linears(hidden, hidden, narrow, "dense"),
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


def phi3(family: str, sizes: Sizes) -> Architecture:
    """Phi 3: Llama's layers with fused matrices."""
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


def falcon(family: str, sizes: Sizes) -> Architecture:
    """Falcon: a single or few key-value heads, attention and MLP side by side."""
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


def mpt(family: str, sizes: Sizes) -> Architecture:
    """MPT: fused attention, linear biases of positions, no other biases."""
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
