"""Encoders, and encoder-decoders: BERT and its like, T5."""

from __future__ import annotations

from taskfit.costs.architecture import Architecture, Linear, Parameters
from taskfit.costs.sizes import Sizes, biases_of, matrices

__all__ = ["bert", "t5"]


def bert(family: str, sizes: Sizes) -> Architecture:
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
    per_layer = matrices(linears) + biases_of(linears) + 4 * hidden
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
        biases=layers * (biases_of(linears) + 2 * hidden),
        norms=layers * 2 * hidden,
    )


_BERT_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def t5(family: str, sizes: Sizes) -> Architecture:
    """T5, its successors with gated MLPs, and mT5: two stacks, no biases, positions as biases of attention."""
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
    stacks = layers * (matrices(own + mlp) + 2 * hidden) + 2 * positions
    stacks += decoder_layers * (matrices(own + cross + mlp) + 3 * hidden)
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
