"""What a transformer is made of, from its configuration alone: parameters by part, and weights at work per token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from taskfit.errors import Faults, ModelError, nearest

__all__ = ["Architecture", "Parameters", "known_families"]

Values = Mapping[str, Any]


class _HasToDict(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part; tied weights are counted once, in the embedding.

    Attributes:
        embedding: tokens, and positions and segments where they are learned, with their norm.
        layers: all layers of all stacks.
        head: output layer to the vocabulary; 0 where it is tied or there is none.
        rest: final norms; an encoder's pooler, which exists in the file even where nothing uses it.
    """

    embedding: int
    layers: int
    head: int
    rest: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.layers + self.head + self.rest


@dataclass(frozen=True)
class Architecture:
    """Sizes that decide what a model costs.

    "Weights" below are entries of matrices that each position is multiplied with, biases and norms left out.

    Attributes:
        kind: decoder, encoder, or encoder-decoder.
        family: transformers' ``model_type``.
        hidden: width of the residual stream.
        attention_width: heads x head size.
        vocabulary: rows of the output layer; 0 for encoders, whose classification head is too small to count.
        layers: of the only stack, or of the encoder.
        layer_weights: of one such layer.
        decoder_layers: of an encoder-decoder's decoder; 0 otherwise.
        decoder_layer_weights: of one such layer, for each decoder position.
        cross_weights: of one such layer, for each *encoder* position: keys and values of the cross-attention.
        parameters: by part.
    """

    kind: Literal["decoder", "encoder", "encoder-decoder"]
    family: str
    hidden: int
    attention_width: int
    vocabulary: int
    layers: int
    layer_weights: int
    parameters: Parameters
    decoder_layers: int = 0
    decoder_layer_weights: int = 0
    cross_weights: int = 0

    @classmethod
    def from_config(cls, config: Values | _HasToDict) -> Architecture:
        """Read a transformers configuration, or the values of a ``config.json``.

        Raises:
            ModelError: a family that is not known here, or a size that is missing or impossible.
        """
        values = config if isinstance(config, Mapping) else config.to_dict()
        family = str(values.get("model_type", ""))
        if family not in _FAMILIES:
            known = ", ".join(known_families())
            raise ModelError(
                f"cannot count the work of a {family!r} model{nearest(family, _FAMILIES)}; known are {known}"
            )
        sizes = _Sizes(values, Faults(f"configuration of a {family} model"))
        found = _FAMILIES[family](family, sizes)
        sizes.faults.raise_as(ModelError)
        return found


def known_families() -> list[str]:
    """Return the model types that can be counted, sorted."""
    return sorted(_FAMILIES)


@dataclass
class _Sizes:
    """Reads whole numbers and flags, and notes what is missing or impossible."""

    values: Values
    faults: Faults

    def number(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.faults.add(f"{key} must be a whole number of at least 1 (got {value!r})")
            return 1
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        return default if value is None else bool(value)


def _rotary_decoder(family: str, sizes: _Sizes) -> Architecture:
    """Llama and its like: grouped-query attention, gated MLP, RMS norms, rotary positions."""
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads, mlp_width = sizes.number("num_attention_heads"), sizes.number("intermediate_size")
    is_gemma, has_head_norms = family.startswith("gemma"), family in ("qwen3", "gemma3_text")
    head_size = sizes.number("head_dim", _HEAD_SIZES.get(family, max(1, hidden // heads)))
    width, narrow = heads * head_size, sizes.number("num_key_value_heads", heads) * head_size
    weights = 2 * hidden * width + 2 * hidden * narrow + 3 * hidden * mlp_width
    has_bias = sizes.flag("attention_bias", False)
    inner_bias = width + 2 * narrow if has_bias or family == "qwen2" else 0
    biases = inner_bias + (hidden if has_bias else 0) + (2 * mlp_width + hidden if sizes.flag("mlp_bias", False) else 0)
    norms = hidden * (4 if family in ("gemma2", "gemma3_text") else 2) + (2 * head_size if has_head_norms else 0)
    is_tied = sizes.flag("tie_word_embeddings", is_gemma)
    table = vocabulary * hidden
    parameters = Parameters(table, layers * (weights + biases + norms), 0 if is_tied else table, hidden)
    return Architecture("decoder", family, hidden, width, vocabulary, layers, weights, parameters)


_HEAD_SIZES = {"qwen3": 128, "gemma": 256, "gemma2": 256, "gemma3_text": 256}
"""Head sizes that a family's configuration need not name; elsewhere: width / heads."""


def _plain_layer(hidden: int, mlp_width: int) -> tuple[int, int]:
    """Return weights and parameters of a layer with full attention, plain MLP, biases and two layer norms."""
    weights = 4 * hidden * hidden + 2 * hidden * mlp_width
    return weights, weights + 4 * hidden + mlp_width + hidden + 4 * hidden


def _gpt2(family: str, sizes: _Sizes) -> Architecture:
    hidden, layers, vocabulary = sizes.number("n_embd"), sizes.number("n_layer"), sizes.number("vocab_size")
    weights, per_layer = _plain_layer(hidden, sizes.number("n_inner", 4 * hidden))
    table = vocabulary * hidden
    head = 0 if sizes.flag("tie_word_embeddings", True) else table
    parameters = Parameters(table + sizes.number("n_positions", 1024) * hidden, layers * per_layer, head, 2 * hidden)
    return Architecture("decoder", family, hidden, hidden, vocabulary, layers, weights, parameters)


def _gpt_neox(family: str, sizes: _Sizes) -> Architecture:
    hidden, layers, vocabulary = (sizes.number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    weights, per_layer = _plain_layer(hidden, sizes.number("intermediate_size"))
    per_layer -= 0 if sizes.flag("attention_bias", True) else 4 * hidden
    table = vocabulary * hidden
    head = 0 if sizes.flag("tie_word_embeddings", False) else table
    parameters = Parameters(table, layers * per_layer, head, 2 * hidden)
    return Architecture("decoder", family, hidden, hidden, vocabulary, layers, weights, parameters)


def _bert(family: str, sizes: _Sizes) -> Architecture:
    """BERT and RoBERTa without output layer to the vocabulary, with pooler."""
    hidden, layers = sizes.number("hidden_size"), sizes.number("num_hidden_layers")
    weights, per_layer = _plain_layer(hidden, sizes.number("intermediate_size"))
    tables = (
        sizes.number("vocab_size") + sizes.number("max_position_embeddings", 512) + sizes.number("type_vocab_size", 2)
    )
    parameters = Parameters(tables * hidden + 2 * hidden, layers * per_layer, 0, hidden * hidden + hidden)
    return Architecture("encoder", family, hidden, hidden, 0, layers, weights, parameters)


def _t5(family: str, sizes: _Sizes) -> Architecture:
    hidden, layers, vocabulary = sizes.number("d_model"), sizes.number("num_layers"), sizes.number("vocab_size")
    decoder_layers, heads = sizes.number("num_decoder_layers", layers), sizes.number("num_heads")
    width = heads * sizes.number("d_kv")
    is_gated = str(sizes.values.get("feed_forward_proj", "relu")).startswith("gated")
    mlp = (3 if is_gated else 2) * hidden * sizes.number("d_ff")
    attention, cross_keys = 4 * hidden * width, 2 * hidden * width
    encoder_layer, decoder_layer = attention + mlp + 2 * hidden, 2 * attention + mlp + 3 * hidden
    positions = heads * sizes.number("relative_attention_num_buckets", 32)
    head = 0 if sizes.flag("tie_word_embeddings", True) else vocabulary * hidden
    stacks = layers * encoder_layer + decoder_layers * decoder_layer + 2 * positions
    parameters = Parameters(vocabulary * hidden, stacks, head, 2 * hidden)
    return Architecture(
        kind="encoder-decoder",
        family=family,
        hidden=hidden,
        attention_width=width,
        vocabulary=vocabulary,
        layers=layers,
        layer_weights=attention + mlp,
        parameters=parameters,
        decoder_layers=decoder_layers,
        decoder_layer_weights=2 * attention - cross_keys + mlp,
        cross_weights=cross_keys,
    )


_FAMILIES: dict[str, Callable[[str, _Sizes], Architecture]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _rotary_decoder),
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), _bert),
    **dict.fromkeys(("t5", "mt5"), _t5),
}
