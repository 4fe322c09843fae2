"""What a trial will take, before it runs: a rough estimate from sizes and one quick measurement of the machine.

It is meant to tell minutes from days and cents from hundreds, and is right within a factor of about 3 where the
model does most of the work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from taskfit.costs.flops import flops
from taskfit.costs.job import Job
from taskfit.costs.memory import memory
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture
    from taskfit.costs.prices import Machine

__all__ = ["Forecast", "TrialFacts", "expected_work", "forecast", "probe_speed"]

_START_S = 3.0  # loading the model and the first, slow batch
_PASS_S_PER_LAYER = 0.0005  # what the program itself takes per layer and batch, however small the model
_USED_SHARE = 0.4  # of the probed speed, reached by whole models
_OPTIMISER_S_PER_PARAMETER = 4e-9  # AdamW reads and writes about 40 bytes, at 10 GB/s
_PROCESS_BYTES = 600_000_000  # Python with torch and transformers, before any model
_BATCH_TOKENS = 4096
_STEP_ROWS = 16
_PADDING = 1.15  # computed tokens for each real one, batches cut from length buckets


@dataclass(frozen=True)
class TrialFacts:
    """What is known of a trial before it runs.

    Attributes:
        rows_train, rows_validation, rows_test: rows of each split.
        row_tokens: mean tokens of one row's question, without worked examples.
        answer_tokens: mean tokens of one answer.
        options: answers scored for each row; 0 where the answer is generated.
        shots: worked examples before each question.
        trains: ``nothing``, ``adapter`` (frozen base) or ``all`` weights.
        epochs: passes over the training rows.
        least_steps: steps of 16 rows that are taken even where the epochs have fewer.
        labels: of a classification; only strategies without a model need it.
        requests: prompts read for each row; each of them reads its share of what was generated before.
        thinking_tokens: tokens generated for each row besides its answer.
        fit_requests: prompts read while fitting, apart from training, each as costly as one at prediction.
        are_shots_shared: every row has the same worked examples, so that a decoder computes them once.
    """

    rows_train: int
    rows_test: int
    row_tokens: float
    answer_tokens: float = 4.0
    options: int = 0
    shots: int = 0
    trains: Literal["nothing", "adapter", "all"] = "nothing"
    epochs: float = 3.0
    rows_validation: int = 0
    labels: int = 0
    least_steps: int = 0
    requests: float = 1.0
    thinking_tokens: float = 0.0
    fit_requests: float = 0.0
    are_shots_shared: bool = True

    @property
    def generated_tokens(self) -> float:
        """Tokens generated one after the other for each row; 0 where options are scored and nothing else is asked."""
        return self.thinking_tokens + (self.answer_tokens if self.options == 0 else 0.0)

    @property
    def rows_seen(self) -> float:
        """Training rows over all epochs, repetitions included."""
        return max(self.rows_train * self.epochs, float(self.least_steps * _STEP_ROWS))

    @property
    def rows_checked(self) -> float:
        """Validation rows over all validations: two an epoch, ten at most."""
        return self.rows_validation * min(10.0, 2 * self.rows_seen / max(1, self.rows_train))


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


def forecast(architecture: Architecture | None, facts: TrialFacts, *, speed: float, machine: Machine) -> Forecast:
    """Estimate one trial.

    Args:
        architecture: of the model; None for a strategy without one.
        facts: sizes of the data and what the strategy does with them.
        speed: FLOP/s of this machine, from ``probe_speed``.
        machine: whose price counts.
    """
    if architecture is None:
        return _without_model(facts, machine)
    fit_work, predict_work = expected_work(architecture, facts)
    steps = facts.rows_seen / _STEP_ROWS if facts.trains != "nothing" else 0.0
    fit_s = _START_S + _seconds(architecture, fit_work, speed, passes=2 * steps)
    if facts.trains == "all":
        fit_s += steps * architecture.parameters.total * _OPTIMISER_S_PER_PARAMETER
    predict_s = _seconds(architecture, predict_work, speed, passes=_predict_passes(facts, predict_work))
    basis = (
        f"from {flops(architecture, fit_work) + flops(architecture, predict_work):.1e} operations at "
        f"{_USED_SHARE:.0%} of the {speed / 1e9:.0f} GFLOP/s measured here; within a factor of about 3"
    )
    usd = (fit_s + predict_s) / 3600 * machine.price_usd_per_hour
    return Forecast(fit_s, predict_s, _memory_bytes(architecture, facts), usd, basis)


def expected_work(architecture: Architecture, facts: TrialFacts) -> tuple[Work, Work]:
    """Return what fitting and predicting will about send through the model.

    Worked examples are computed once for all rows that share them when predicting, and with every row when training.
    """
    shot_tokens = facts.shots * (facts.row_tokens + facts.answer_tokens)
    fit = Work()
    if facts.trains != "nothing":
        read = shot_tokens + facts.row_tokens
        trained = _pass(architecture, facts.rows_seen, 0.0, read, facts.answer_tokens)
        tokens = trained.computed_tokens
        is_all = facts.trains == "all"
        trained += Work(trained_tokens=tokens if is_all else 0, trained_frozen_tokens=0 if is_all else tokens)
        fit = trained + _pass(architecture, facts.rows_checked, 0.0, read, facts.answer_tokens)
    if facts.fit_requests:
        fit += _asked(architecture, facts, facts.fit_requests, shot_tokens)
    return fit, _asked(architecture, facts, facts.rows_test * facts.requests, shot_tokens)


def probe_speed(device: str = "cpu", *, seconds: float = 0.3) -> float:
    """Measure how many float32 operations a second this device does in matrix products, with the threads torch has now.

    Returns:
        FLOP/s of the median repetition: where others use the machine too, a trial will be as slow.
    """
    import torch

    size = 1024 if device == "cpu" else 4096
    left, right = torch.rand(size, size, device=device), torch.rand(size, size, device=device)

    def product_s() -> float:
        start = time.perf_counter()
        float((left @ right)[0, 0])  # reading a value waits for the device
        return time.perf_counter() - start

    with torch.inference_mode():
        product_s()  # the first one warms up
        taken, end = [product_s()], time.perf_counter() + seconds
        while time.perf_counter() < end:
            taken.append(product_s())
    return 2.0 * size**3 / median(taken)


def _asked(architecture: Architecture, facts: TrialFacts, requests: float, shot_tokens: float) -> Work:
    """Count so many requests: each reads the question and its share of the earlier text, and answers its share."""
    earlier = facts.thinking_tokens / facts.requests if facts.requests > 1 else 0.0
    answered = (facts.thinking_tokens + max(1, facts.options) * facts.answer_tokens) / facts.requests
    if facts.options:  # scored in every request
        answered = facts.thinking_tokens / facts.requests + facts.options * facts.answer_tokens
    own = 0.0 if facts.are_shots_shared else shot_tokens
    return _pass(architecture, requests, shot_tokens - own, facts.row_tokens + earlier + own, answered)


def _pass(architecture: Architecture, rows: float, shared: float, read: float, answered: float) -> Work:
    """Count one forward pass over ``rows`` texts, of which ``shared`` tokens are the same and computed once."""
    is_decoder, is_paired = architecture.kind == "decoder", architecture.kind == "encoder-decoder"
    before = shared if is_decoder else 0.0  # only decoders can share a beginning
    own = read + answered if is_decoder else read + shared
    computed = rows * own * _PADDING + before
    pairs = rows * own * _PADDING * (before + own * (0.5 if is_decoder else 1.0)) + before * before / 2
    if is_paired:
        pairs += rows * answered * (answered / 2 + own)
    return Work(
        prompt_tokens=round(rows * (read + shared)),
        answer_tokens=round(rows * answered),
        computed_tokens=round(computed),
        attended_pairs=round(pairs),
        head_tokens=round(rows * answered) if architecture.vocabulary else 0,
        decoder_tokens=round(rows * answered) if is_paired else 0,
    )


def _seconds(architecture: Architecture, work: Work, speed: float, *, passes: float) -> float:
    if work.computed_tokens == 0:
        return 0.0
    depth = architecture.layers + architecture.decoder_layers
    return flops(architecture, work) / (speed * _USED_SHARE) + passes * depth * _PASS_S_PER_LAYER


def _predict_passes(facts: TrialFacts, work: Work) -> float:
    """Return the number of times that the whole stack of layers is called."""
    batches = work.computed_tokens / _BATCH_TOKENS + 1
    rows_at_once = max(1.0, _BATCH_TOKENS / max(1.0, facts.row_tokens))
    generated = facts.rows_test / rows_at_once * facts.generated_tokens
    return batches + generated


def _memory_bytes(architecture: Architecture, facts: TrialFacts) -> int:
    """The process and the model's peak, in float32, a batch of the usual number of tokens at a time."""
    own = facts.row_tokens + facts.answer_tokens + facts.shots * (facts.row_tokens + facts.answer_tokens)
    length = max(1, round(own))
    job = Job(
        architecture,
        {"nothing": "prompting", "adapter": "lora", "all": "full"}[facts.trains],
        max(1, _BATCH_TOKENS // length),
        length,
        weights="float32",
        optimiser="adamw-fused",  # on a processor torch updates tensor by tensor, without copies
        profile="taskfit",
        supervised=min(1.0, max(1.0, facts.answer_tokens) / length),
    )
    return int(_PROCESS_BYTES + memory(job).reserved)


def _without_model(facts: TrialFacts, machine: Machine) -> Forecast:
    """Counting words and fitting linear classifiers: far below what any model takes."""
    fit_s = 0.5 + facts.rows_train * (1e-3 + 2e-6 * facts.row_tokens * max(1, facts.labels))
    predict_s = 0.1 + facts.rows_test * 2e-4
    usd = (fit_s + predict_s) / 3600 * machine.price_usd_per_hour
    basis = "from the number of rows alone, for there is no model; within a factor of about 10"
    return Forecast(fit_s, predict_s, _PROCESS_BYTES + 2000 * (facts.rows_train + facts.rows_test), usd, basis)
