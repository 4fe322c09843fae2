"""What a transformer is made of, from its configuration alone: parameters by part, and weights at work per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from taskfit.errors import Faults, ModelError, nearest

__all__ = ["Architecture", "Linear", "Parameters", "known_families"]

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
class Linear:
    """One matrix of a layer, by the name that its modules have in transformers.

    Attributes:
        name: last part of the module's name; targets of adapters are chosen by it.
        inputs, outputs: its shape.
        copies: of the same shape in one layer (experts).
        active: how many of them one token goes through.
        reads_encoder: multiplies *encoder* positions although it stands in a decoder layer (cross-attention's keys).
    """

    name: str
    inputs: int
    outputs: int
    copies: int = 1
    active: int = 1
    reads_encoder: bool = False

    @property
    def weights(self) -> int:
        """Entries of all copies."""
        return self.inputs * self.outputs * self.copies

    @property
    def active_weights(self) -> int:
        """Entries that one token is multiplied with."""
        return self.inputs * self.outputs * self.active


@dataclass(frozen=True)
class Architecture:
    """Sizes that decide what a model costs.

    "Weights" below are entries of matrices that each position is multiplied with, biases and norms left out.

    Attributes:
        kind: decoder, encoder, or encoder-decoder.
        family: transformers' ``model_type``.
        hidden: width of the residual stream.
        heads, key_value_heads, head_size: of self-attention.
        mlp_width: width between the MLP's matrices (of one expert).
        vocabulary: rows of the output layer; 0 for encoders, whose classification head is too small to count.
        layers: of the only stack, or of the encoder.
        linears: matrices of one such layer.
        parameters: by part.
        decoder_layers, decoder_linears: of an encoder-decoder's decoder; 0 and empty otherwise.
        is_gated: the MLP multiplies two projections.
        context: most positions, where the configuration says so; else 0.
        biases: of all layers, those of their norms included.
        norms: factors (not biases) of all norms inside the layers.
    """

    kind: Literal["decoder", "encoder", "encoder-decoder"]
    family: str
    hidden: int
    heads: int
    key_value_heads: int
    head_size: int
    mlp_width: int
    vocabulary: int
    layers: int
    linears: tuple[Linear, ...]
    parameters: Parameters
    decoder_layers: int = 0
    decoder_linears: tuple[Linear, ...] = ()
    is_gated: bool = False
    context: int = 0
    biases: int = 0
    norms: int = 0

    @property
    def attention_width(self) -> int:
        """Heads x head size."""
        return self.heads * self.head_size

    @property
    def key_value_width(self) -> int:
        """Key-value heads x head size: what the cache holds per position and layer, twice."""
        return self.key_value_heads * self.head_size

    @property
    def layer_weights(self) -> int:
        """Weights at work per token in a layer of the only stack, or of the encoder."""
        return sum(linear.active_weights for linear in self.linears)

    @property
    def decoder_layer_weights(self) -> int:
        """Weights at work for each decoder position in a layer of an encoder-decoder's decoder."""
        return sum(linear.active_weights for linear in self.decoder_linears if not linear.reads_encoder)

    @property
    def cross_weights(self) -> int:
        """Weights at work in such a layer for each *encoder* position: keys and values of the cross-attention."""
        return sum(linear.active_weights for linear in self.decoder_linears if linear.reads_encoder)

    @property
    def linear_weights(self) -> int:
        """Entries of all matrices in all layers: what quantisation makes smaller."""
        return self.layers * sum(linear.weights for linear in self.linears) + self.decoder_layers * sum(
            linear.weights for linear in self.decoder_linears
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets: all but the experts it is not sent to."""
        idle = sum(linear.weights - linear.active_weights for linear in self.linears)
        return self.parameters.total - self.layers * idle

    @property
    def depth(self) -> int:
        """Layers of all stacks."""
        return self.layers + self.decoder_layers

    @classmethod
    def from_config(cls, config: Values | _HasToDict) -> Architecture:
        """Read a transformers configuration, or the values of a ``config.json``.

        Raises:
            ModelError: a family that is not known here, or a size that is missing or impossible.
        """
        from taskfit.costs.families import FAMILIES
        from taskfit.costs.sizes import Sizes

        values = config if isinstance(config, Mapping) else config.to_dict()
        family = str(values.get("model_type", ""))
        if family not in FAMILIES:
            known = ", ".join(known_families())
            raise ModelError(
                f"cannot count the work of a {family!r} model{nearest(family, FAMILIES)}; known are {known}"
            )
        sizes = Sizes(values, Faults(f"configuration of a {family} model"))
        found = FAMILIES[family](family, sizes)
        sizes.faults.raise_as(ModelError)
        return found


def known_families() -> list[str]:
    """Return the model types that can be counted, sorted."""
    from taskfit.costs.families import FAMILIES

    return sorted(FAMILIES)
