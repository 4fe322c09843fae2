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

__all__ = ["Normalise", "Unit", "default_unit", "likeliest_option", "option_scores", "shares"]

Unit = Literal["sum", "mean", "byte"]
Normalise = Literal["auto", "byte", "mean", "sum"]


def default_unit(kind: Kind, normalise: Normalise) -> Unit:
    """Return what ``auto`` means where nothing is chosen: ``sum`` for classification, ``mean`` for choice."""
    if normalise != "auto":
        return normalise
    return "mean" if kind == "choice" else "sum"


def option_scores(options: Sequence[Option], scored: Scored, unit: Unit) -> tuple[float, ...]:
    """Return one score an option.

    Args:
        options: what may be answered.
        scored: their log-probabilities and numbers of tokens, in the same order.
        unit: ``sum``: the log-probability, so that the softmax is the model's own probability of each label, given
            that it answers with one of them. ``mean``: per token; ``byte``: per byte of the option's text in utf-8,
            which does not depend on the tokenizer. The sum falls with every token, so among options that are sentences
            of different lengths it prefers the shortest; labels are chosen by the user to be short and alike, and
            their sum needs no correction. One case to avoid: the end of the answer is not scored, so by the sum a
            label whose text begins another's ("card", "card payment") never scores below it.

    Raises:
        EngineError: a log-probability is NaN, or all are minus infinity.

    Source: Brown et al. 2020, section 2.4 (per token); Gao et al. 2021, the harness's ``acc_norm`` (per byte).
    """
    if any(math.isnan(value) for value in scored.logprobs) or math.isinf(max(scored.logprobs)):
        raise EngineError(f"log-probabilities of options must be finite (got {list(scored.logprobs)})")
    if unit == "sum":
        return tuple(scored.logprobs)
    if unit == "mean":
        lengths: Sequence[int] = scored.tokens
    else:
        lengths = [len(option.text.encode()) for option in options]
    return tuple(value / length for value, length in zip(scored.logprobs, lengths, strict=True))


def shares(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the softmax of scores: one probability an option, summing to 1."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def likeliest_option(options: Sequence[Option], scores: Sequence[float], scored: Scored | None = None) -> Answer:
    """Return the option with the highest score, the first one of equals, and the probabilities of all.

    Args:
        options: what may be answered.
        scores: what decides, an option each.
        scored: for a choice: what the model said of the options, from which the answer also tells the choices by
            log-probability and by log-probability a byte.
    """
    found = shares(scores)
    values = {option.value: share for option, share in zip(options, found, strict=True)}
    choices: dict[str, str] | None = None
    if scored is not None:
        units: dict[str, Unit] = {"raw": "sum", "normalised": "byte"}
        choices = {name: _best(options, option_scores(options, scored, unit)) for name, unit in units.items()}
    return Answer(_best(options, found), values, choices=choices)


def _best(options: Sequence[Option], scores: Sequence[float]) -> str:
    return options[max(range(len(options)), key=scores.__getitem__)].value
