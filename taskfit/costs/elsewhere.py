"""What measured work would take on another machine: the work is counted, its seconds there are a forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from taskfit.costs.own_engine import seconds
from taskfit.costs.price_trial import read_amounts, trained_amounts
from taskfit.costs.trial_facts import TrialFacts

if TYPE_CHECKING:
    from taskfit.costs.accelerator import Accelerator
    from taskfit.costs.architecture import Architecture
    from taskfit.models.work import Work

__all__ = ["number_format_on", "seconds_on"]

_FORMATS = ("bfloat16", "float16", "float32")


def number_format_on(device: Accelerator) -> str:
    """Return the format that models compute in on a device: the fastest of those that the engine uses."""
    known = [name for name in _FORMATS if name in device.flops_per_s]
    return max(known, key=device.peak)  # of equals the first


def seconds_on(
    device: Accelerator,
    architecture: Architecture,
    fit: Work,
    predict: Work,
    *,
    rows: int,
    is_generated: bool,
    trains: Literal["nothing", "adapter", "all"],
    method: str = "",
) -> tuple[float, float]:
    """Return the seconds that fitting and predicting would take there.

    The tokens are those that were counted; how many steps they were taken in is told from the mean length of a row.

    Args:
        device: there; its rates count as reached at most.
        architecture: of the model.
        fit: what went through the model while fitting.
        predict: the same while predicting.
        rows: predicted, at least 1.
        is_generated: answers are written token by token.
        trains: as in :class:`taskfit.costs.trial_facts.TrialFacts`.
        method: likewise.

    Raises:
        ConfigError: the device has none of the engine's number formats.
    """
    number_format = number_format_on(device)
    answer = max(1.0, predict.answer_tokens / rows)
    length = max(2.0, predict.prompt_tokens / rows + answer)
    seen = max(1, round((fit.trained_tokens + fit.trained_frozen_tokens) / length))
    facts = TrialFacts(
        rows_train=seen,
        rows_test=rows,
        row_tokens=length - answer,
        answer_tokens=answer,
        options=0 if is_generated else 1,
        trains=trains,
        epochs=1.0,
        method=method,
    )
    if fit.trained_tokens + fit.trained_frozen_tokens:
        fitting = trained_amounts(architecture, facts, fit, number_format)
    else:
        fitting = read_amounts(architecture, facts, fit, fit.prompt_tokens / length, number_format)
    predicting = read_amounts(architecture, facts, predict, float(rows), number_format)
    has_fit = fit.computed_tokens > 0
    return seconds(fitting, device, number_format) if has_fit else 0.0, seconds(predicting, device, number_format)
