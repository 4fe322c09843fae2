"""Floating-point operations from counted work: a multiplication and an addition are two."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture
    from taskfit.models.work import Work

__all__ = ["flops", "forward_flops"]


def flops(architecture: Architecture | None, work: Work) -> float:
    """Return the operations of the matrix products that ``work`` stands for, forward and backward.

    A backward pass costs two forward passes; through a frozen base one (the gradient of activations only), except in
    attention's own products, which have no weights and always cost two. Attended pairs and output positions go
    backward in the same share as computed tokens do. Left out, a few per cent together: norms, activations, softmax,
    the optimiser, adapters' own products, an encoder's classification head. No model: 0.

    Source: Kaplan et al. 2020, section 2.1, with attention over the pairs really attended.
    """
    if architecture is None or work.computed_tokens == 0:
        return 0.0
    layers, attention, head = forward_flops(architecture, work)
    trained = work.trained_tokens / work.computed_tokens
    frozen = work.trained_frozen_tokens / work.computed_tokens
    return (layers + head) * (1 + 2 * trained + frozen) + attention * (1 + 2 * trained + 2 * frozen)


def forward_flops(architecture: Architecture, work: Work) -> tuple[float, float, float]:
    """Return the operations of one forward pass over ``work``: in layers' weights, in attention, in the output layer.

    For encoder-decoders whose stacks differ in depth, attention is counted at their mean depth, because ``work`` holds
    the pairs of both stacks together.
    """
    encoder_side = architecture.layers * architecture.layer_weights
    encoder_side += architecture.decoder_layers * architecture.cross_weights
    decoder_side = architecture.decoder_layers * architecture.decoder_layer_weights
    layers = 2.0 * (encoder_side * work.computed_tokens + decoder_side * work.decoder_tokens)
    stacks = [depth for depth in (architecture.layers, architecture.decoder_layers) if depth]
    depth = sum(stacks) / len(stacks)
    attention = 4.0 * architecture.attention_width * depth * work.attended_pairs
    head = 2.0 * architecture.hidden * architecture.vocabulary * work.head_tokens
    return layers, attention, head
