"""What a trial will take, before it runs: amounts of work from sizes, seconds from this machine's measured rates.

The constants of the engine stand in ``own_engine``; ``benchmarks/cost.py`` says how far the forecasts are off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from taskfit.costs.calibration import Calibration
from taskfit.costs.flops import flops
from taskfit.costs.job import Job, trainable_parameters
from taskfit.costs.memory import (
    kept_bytes_per_token,
    layer_kept_bytes,
    logits_bytes_per_token,
    memory,
    opened_bytes_per_token,
    weight_bytes,
)
from taskfit.costs.own_engine import MEMORY, Amounts, seconds
from taskfit.costs.trial_work import asked_work, expected_work

if TYPE_CHECKING:
    from taskfit.costs.accelerator import Accelerator
    from taskfit.costs.architecture import Architecture
    from taskfit.costs.prices import Machine
    from taskfit.costs.trial_facts import TrialFacts
    from taskfit.models.work import Work

__all__ = ["Forecast", "expected_amounts", "forecast", "read_amounts", "trained_amounts"]

_BARE_BYTES = 450e6  # the process before any model
_TRAIN_TOKENS = 4096  # of a micro-batch, at most (tuning.memory_plan.TOKEN_BUDGET)
_PACK_TOKENS = 1024  # of a scored pack on a processor (inference.batches)
_READ_TOKENS = 4096  # of any other batch
_KEPT_PASSES = 3.5  # how often what is kept is written and read again, forward and backward
_OPTIMISER_BYTES = 60.0  # of one trained value and step: weight, gradient (four times), two states


@dataclass(frozen=True)
class Forecast:
    """What a trial will about take.

    Attributes:
        fit_s, predict_s: seconds on the clock.
        memory_bytes: peak of the trial's process (on a GPU: roughly what the GPU must hold).
        usd: at the machine's price.
        basis: a sentence that says how it was estimated and how far to trust it.
    """

    fit_s: float
    predict_s: float
    memory_bytes: int
    usd: float
    basis: str

    @property
    def wall_s(self) -> float:
        """Seconds of both phases."""
        return self.fit_s + self.predict_s


def forecast(
    architecture: Architecture | None,
    facts: TrialFacts,
    *,
    device: Accelerator | None,
    machine: Machine,
    number_format: str = "float32",
    calibration: Calibration | None = None,
) -> Forecast:
    """Estimate one trial.

    Args:
        architecture: of the model; None for a strategy without one.
        facts: sizes of the data and what the strategy does with them.
        device: this machine as it was measured (``probe.Probe.as_accelerator``); only None without a model.
        machine: whose price counts.
        number_format: that the model computes in.
        calibration: factors from trials that ran here.

    Raises:
        ConfigError: the device lacks the number format.
    """
    if architecture is None or device is None:
        return _without_model(facts, machine, calibration or Calibration())
    fit, predict = expected_amounts(architecture, facts, number_format)
    known = calibration or Calibration()
    fit_s = seconds(fit, device, number_format) * known.fit.get(facts.trains, 1.0)
    predict_s = seconds(predict, device, number_format) * known.predict.get(facts.trains, 1.0)
    memory_bytes = int(_memory_bytes(architecture, facts, number_format) * known.memory.get(facts.trains, 1.0))
    basis = (
        f"from {fit.flops + predict.flops:.1e} operations at the {device.peak(number_format) / 1e9:.0f} GFLOP/s "
        "measured here, and what is moved and started beside them"
    )
    usd = (fit_s + predict_s) / 3600 * machine.price_usd_per_hour
    return Forecast(fit_s, predict_s, memory_bytes, usd, basis)


def expected_amounts(
    architecture: Architecture, facts: TrialFacts, number_format: str = "float32"
) -> tuple[Amounts, Amounts]:
    """Return what fitting and predicting will ask of the machine."""
    fit_work, predict_work = expected_work(architecture, facts)
    shot_tokens = facts.shots * (facts.row_tokens + facts.answer_tokens)
    fit = Amounts()
    if facts.trains != "nothing":
        fit = trained_amounts(architecture, facts, fit_work, number_format)
    if facts.fit_requests:
        asked = asked_work(architecture, facts, facts.fit_requests, shot_tokens)
        fit += read_amounts(architecture, facts, asked, facts.fit_requests, number_format)
    return fit, read_amounts(architecture, facts, predict_work, float(facts.rows_test), number_format)


def trained_amounts(architecture: Architecture, facts: TrialFacts, work: Work, number_format: str) -> Amounts:
    """Count the steps and validations of a training whose whole work is known."""
    job = _job(architecture, facts, number_format)
    tokens = work.trained_tokens + work.trained_frozen_tokens
    checked = work.computed_tokens - tokens
    parts = max(1.0, tokens / max(1, facts.steps) / _TRAIN_TOKENS)
    check_parts = facts.validations * math.ceil(checked / max(1, facts.validations) / _TRAIN_TOKENS)
    kept = layer_kept_bytes(job) * architecture.depth
    read = layer_kept_bytes(_job(architecture, facts, number_format, "layer-norm")) * architecture.depth
    logits = 16.0 * architecture.vocabulary * work.head_tokens
    return Amounts(
        flops=flops(architecture, work),
        traffic_bytes=kept * tokens * _KEPT_PASSES + read * checked + logits,
        layer_calls=architecture.depth * (3.0 * facts.steps * parts + check_parts),
        optimiser_bytes=_OPTIMISER_BYTES * facts.steps * trainable_parameters(job),
        allocated_bytes=trainable_parameters(job) * (4.0 * job.trained_bytes + job.state_bytes),
        rows=float(facts.rows_train + facts.rows_checked),
        starts=1.0,
    )


def read_amounts(architecture: Architecture, facts: TrialFacts, work: Work, rows: float, number_format: str) -> Amounts:
    """Count the forward passes of requests, and the tokens that are generated one after the other."""
    is_packed = architecture.kind == "decoder" and facts.generated_tokens == 0
    passes = float(math.ceil(work.computed_tokens / (_PACK_TOKENS if is_packed else _READ_TOKENS)))
    length = max(1.0, work.computed_tokens / max(1.0, rows))
    at_once = max(1.0, min(rows, _READ_TOKENS / length))
    passes += rows / at_once * facts.generated_tokens
    read = layer_kept_bytes(_job(architecture, facts, number_format, "layer-norm")) * architecture.depth
    weights = 4.0 * architecture.parameters.total * rows / at_once * facts.generated_tokens
    return Amounts(
        flops=flops(architecture, work),
        traffic_bytes=read * work.computed_tokens + 8.0 * architecture.vocabulary * work.head_tokens + weights,
        layer_calls=architecture.depth * passes,
        rows=rows,
        starts=1.0,
    )


def _job(architecture: Architecture, facts: TrialFacts, number_format: str, method: str = "") -> Job:
    """Describe a micro-batch of the training as the memory model takes it."""
    length = max(
        1, round(facts.row_tokens + facts.answer_tokens + facts.shots * (facts.row_tokens + facts.answer_tokens))
    )
    return Job(
        architecture,
        method or facts.job_method,
        max(1, min(facts.batch, _TRAIN_TOKENS // length)),
        length,
        weights=number_format,
        trained_weights="float32",
        optimiser="adamw-fused",  # on a processor torch updates tensor by tensor, without copies
        profile="taskfit",
        supervised=min(1.0, max(1.0, facts.answer_tokens) / length),
        virtual_tokens=max(1, facts.virtual_tokens),
    )


def _memory_bytes(architecture: Architecture, facts: TrialFacts, number_format: str) -> float:
    """Resident bytes of the trial's process at its peak."""
    job = _job(architecture, facts, number_format)
    if facts.trains == "nothing":
        at_once = replace(job, batch=1, length=_PACK_TOKENS, attention="flash")
        return MEMORY.process_bytes + memory(at_once).allocated
    trained = trainable_parameters(job)
    own = 0 if job.trains_all and job.trained_bytes == job.value_bytes else 1  # else the weights themselves
    states = trained * ((own + 1 + MEMORY.copies) * job.trained_bytes + job.state_bytes)
    tokens = min(float(job.batch * job.length) * MEMORY.padding, float(_TRAIN_TOKENS))
    slack = MEMORY.slack_of(architecture.family, job.method)
    kept = kept_bytes_per_token(job) + max(opened_bytes_per_token(job), logits_bytes_per_token(job))
    laid_out = MEMORY.laid_out(architecture.family, job.method, weight_bytes(job))
    return MEMORY.process_bytes + weight_bytes(job) + laid_out + states + slack * kept * tokens


def _without_model(facts: TrialFacts, machine: Machine, known: Calibration) -> Forecast:
    """Counting words and fitting linear classifiers: far below what any model takes."""
    fit_s = 0.5 + facts.rows_train * (1e-3 + 2e-6 * facts.row_tokens * max(1, facts.labels))
    fit_s *= known.fit.get("no model", 1.0)
    predict_s = (0.1 + facts.rows_test * 2e-4) * known.predict.get("no model", 1.0)
    memory_bytes = (_BARE_BYTES + 2000.0 * (facts.rows_train + facts.rows_test)) * known.memory.get("no model", 1.0)
    usd = (fit_s + predict_s) / 3600 * machine.price_usd_per_hour
    basis = "from the number of rows alone, for there is no model; within a factor of about 10"
    return Forecast(fit_s, predict_s, int(memory_bytes), usd, basis)
