"""What was computed, counted where it happens: the raw material of FLOPs and of money."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Work", "take_hidden_work"]


@dataclass(frozen=True)
class Work:
    """Counts of what went through a model; they add up.

    Attributes:
        prompt_tokens: tokens of prompts as a user would be billed for them (no padding; shared parts counted for
            each request).
        answer_tokens: tokens generated or scored as answers.
        computed_tokens: positions that went through the layers, padding included, shared parts once (encoder side
            for encoder-decoders).
        attended_pairs: sum over computed positions of the key positions each one attends to.
        head_tokens: positions that went through the output layer to the vocabulary (or to the classes).
        decoder_tokens: positions through decoder layers of an encoder-decoder; 0 for other architectures.
        trained_tokens: computed tokens that also went backward with every weight's gradient.
        trained_frozen_tokens: computed tokens that went backward through a frozen base (activation gradients only).
        cut_tokens: tokens left out because a text was longer than the model's context.
        cut_rows: rows that lost at least one token.
        dropped_shots: worked examples left out for the same reason.
        service_prompt_tokens, service_answer_tokens: of ``prompt_tokens`` and ``answer_tokens``, those a service
            answered, now or when the answer was put into the cache: what predicting these rows costs.
        paid_prompt_tokens, paid_answer_tokens: of those, the ones billed now; answers from the cache are not.
        cached_answers: answers that came from the cache, so that nothing was computed or waited for.
    """

    prompt_tokens: int = 0
    answer_tokens: int = 0
    computed_tokens: int = 0
    attended_pairs: int = 0
    head_tokens: int = 0
    decoder_tokens: int = 0
    trained_tokens: int = 0
    trained_frozen_tokens: int = 0
    cut_tokens: int = 0
    cut_rows: int = 0
    dropped_shots: int = 0
    service_prompt_tokens: int = 0
    service_answer_tokens: int = 0
    paid_prompt_tokens: int = 0
    paid_answer_tokens: int = 0
    cached_answers: int = 0

    def __add__(self, other: Work) -> Work:
        """Return the sum, field by field."""
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def take_hidden_work(module: Any) -> Work:
    """Return what parts of a torch module computed beyond what they were called with, and start them from nothing.

    A part that does so (trained vectors before every prompt) keeps the count in its attribute ``hidden_work``.
    """
    found = Work()
    for part in module.modules():
        if isinstance(getattr(part, "hidden_work", None), Work):
            found += part.hidden_work
            part.hidden_work = Work()
    return found
