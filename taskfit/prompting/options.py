"""From log-probabilities of options to an answer with probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from taskfit.errors import EngineError
from taskfit.strategy.contract import Answer

if TYPE_CHECKING:
    from taskfit.inference.requests import Scored
    from taskfit.tasks.task import Kind, Option

__all__ = ["Normalise", "likeliest_option", "option_probabilities"]

Normalise = Literal["auto", "sum", "mean"]


def likeliest_option(options: Sequence[Option], scored: Scored, kind: Kind, normalise: Normalise) -> Answer:
    """Return the option with the highest score, the first one of equals, and the probabilities of all.

    Args:
        options: what may be answered.
        scored: their log-probabilities, in the same order.
        kind: of the task; decides what ``auto`` means.
        normalise: see :func:`option_probabilities`; ``auto``: ``sum`` for classification, ``mean`` for choice.
    """
    how = normalise if normalise != "auto" else ("mean" if kind == "choice" else "sum")
    shares = option_probabilities(scored.logprobs, scored.tokens, how)
    best = max(range(len(options)), key=lambda i: shares[i])
    return Answer(options[best].value, {option.value: share for option, share in zip(options, shares, strict=True)})


def option_probabilities(
    logprobs: Sequence[float], tokens: Sequence[int], normalise: Literal["sum", "mean"]
) -> tuple[float, ...]:
    """Return the softmax of the options' scores: one probability an option, summing to 1.

    Args:
        logprobs: of each option, natural logarithm, summed over its tokens.
        tokens: number of tokens of each option.
        normalise: ``sum``: the score is the log-probability, so the result is the model's own probability of each
            label, given that it answers with one of them. ``mean``: the log-probability per token. The sum falls
            with every token, so among options that are sentences of different lengths it prefers the shortest;
            labels are chosen by the user to be short and alike, and their sum needs no correction. One case to avoid:
            the end of the answer is not scored, so by the sum a label whose text begins another's ("card", "card
            payment") never scores below it; give such labels texts that differ from the start.

    Raises:
        EngineError: a log-probability is NaN, or all are minus infinity.

    Source: Brown et al. 2020, section 2.4 (per token for multiple choice).
    """
    scores = [value / count if normalise == "mean" else value for value, count in zip(logprobs, tokens, strict=True)]
    highest = max(scores)
    if any(math.isnan(score) for score in scores) or math.isinf(highest):
        raise EngineError(f"log-probabilities of options must be finite (got {list(logprobs)})")
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
