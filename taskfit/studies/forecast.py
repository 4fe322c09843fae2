"""What a trial is expected to take, before it runs, so that nobody starts a week by mistake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from taskfit.models.service import is_service_name, read_service_name
from taskfit.models.table import known_folder
from taskfit.studies.costing import architecture_of, priced_machine, priced_service
from taskfit.studies.needs import learned_rows, searched, shots, usage

if TYPE_CHECKING:
    from taskfit.costs.accelerator import Accelerator
    from taskfit.costs.calibration import Calibration
    from taskfit.costs.prices import Machine
    from taskfit.costs.trial_cost import TrialCost
    from taskfit.costs.trial_facts import TrialFacts
    from taskfit.strategy.contract import Labelling, Strategy
    from taskfit.studies.spec import ModelFacts, StudyConfig, TrialSpec
    from taskfit.tasks.task import Task

__all__ = ["Expected", "Forecaster", "Measured", "forecaster", "machine_key", "method_of", "told", "trains"]

Expected = tuple[float | None, float | None, float | None, int | None]
"""Seconds, US dollars, seconds of fitting, bytes of memory; None where unknown."""

_CHARACTERS_PER_TOKEN = 4.0
_SAMPLE = 200
_WHOLE_MODEL = frozenset({"full", "encoder", "continued-pretraining"})


@dataclass(frozen=True)
class Measured:
    """This machine.

    Attributes:
        device: what it does in a second.
        number_format: that models compute in, and why, in a sentence that begins with its name.
        is_gpu: models compute on a GPU.
    """

    device: Accelerator
    number_format: str
    is_gpu: bool = False


@dataclass(frozen=True)
class Forecaster:
    """Prices the trials of one task.

    Attributes:
        measured: this machine; None when no strategy needs a model.
        questions, answers, inputs: a sample of rows as decoders, and as encoders, read them.
        prices: the user's own price table.
        calibration: factors from trials that ran on this machine.
    """

    task: Task
    machine: Machine
    measured: Measured | None
    questions: Sequence[str]
    answers: Sequence[str]
    inputs: Sequence[str]
    prices: Path | None = None
    calibration: Calibration | None = None

    def of(self, strategy: Strategy, facts: ModelFacts | None, train_rows: int | None) -> Expected:
        """Return what one trial is expected to take; unknown where the model's family cannot be counted.

        Nobody knows a service's seconds.
        """
        from taskfit.costs.price_trial import forecast

        labelling = getattr(strategy, "labelling", None)
        if labelling is not None:  # how long a student's rows take is known when a teacher has labelled some
            return None, self._labelling_usd(labelling, facts), None, None
        effort = float(getattr(strategy, "effort", 1.0))  # a search, in whole trainings
        strategy = searched(strategy)
        if facts is not None and facts.architecture == "service":
            return None, self._service_usd(strategy, facts.name, len(self.task.test)), None, None
        architecture = architecture_of(None if facts is None else facts.config)
        if facts is not None and (architecture is None or self.measured is None):
            return None, None, None, None
        sizes = self.facts(strategy, facts, train_rows)
        found = forecast(
            architecture,
            replace(sizes, epochs=sizes.epochs * effort, least_steps=round(sizes.least_steps * effort)),
            device=None if self.measured is None else self.measured.device,
            machine=self.machine,
            number_format=_format(self.measured),
            calibration=self.calibration,
        )
        return found.wall_s, found.usd, found.fit_s, found.memory_bytes

    def facts(self, strategy: Strategy, facts: ModelFacts | None, train_rows: int | None) -> TrialFacts:
        """Return sizes of the data and what the strategy does with them."""
        from taskfit.costs.trial_facts import TrialFacts

        definition, model = self.task.definition, "" if facts is None else facts.name
        asked = usage(strategy, definition, len(self.task.validation))
        is_classifier = _head(strategy) == "encoder"
        is_scored = definition.kind != "generation" and not asked.is_generated and not is_classifier
        texts = self.inputs if is_classifier else self.questions
        per_token = characters_per_token(model, tuple(texts))
        part: Any = getattr(strategy, "weights", None) or strategy
        rows = len(self.task.train) if train_rows is None else train_rows
        return TrialFacts(
            rows_train=learned_rows(strategy, self.task, rows, _mean(texts) + _mean(self.answers)),
            rows_test=len(self.task.test),
            rows_validation=len(self.task.validation),
            row_tokens=_mean(texts) / per_token,
            answer_tokens=0.0 if is_classifier else _mean(self.answers) / per_token,
            options=_options(self.task) if is_scored else 0,
            shots=shots(strategy),
            trains=trains(strategy),
            method=method_of(strategy),
            epochs=_number(part, "epochs", 3.0),
            least_steps=part.steps(1, len(definition.labels)) if hasattr(part, "steps") else 0,
            batch=round(_number(part, "batch", 16.0)),
            virtual_tokens=round(_number(part, "tokens", 0.0)),
            labels=len(definition.labels),
            requests=asked.requests,
            thinking_tokens=asked.generated_tokens,
            fit_requests=asked.fit_requests,
            are_shots_shared=asked.are_shots_shared,
            shared_tokens=0.0 if is_classifier else _shared(self.questions) / per_token,
        )

    def _labelling_usd(self, labelling: Labelling, facts: ModelFacts | None) -> float | None:
        """What a teacher behind a service is expected to cost; None where it computes here, or takes all rows."""
        model = labelling.model or (None if facts is None else facts.name)
        if model is None or not is_service_name(model) or labelling.rows is None:
            return None
        return self._service_usd(labelling.teacher, model, labelling.rows)

    def _service_usd(self, strategy: Strategy, model: str, rows: int) -> float:
        """What all its requests read and write; where prompts are echoed to score options, one request each."""
        service, price = read_service_name(model), priced_service(model, self.prices)
        definition, examples = self.task.definition, shots(strategy)
        asked = usage(strategy, definition, len(self.task.validation))
        requests = rows * asked.requests + asked.fit_requests
        is_scored = definition.kind != "generation" and not asked.is_generated
        if is_scored and service.style == "completions" and service.scores in ("auto", "echo"):
            requests *= max(1, _options(self.task))
        question, answer = (_mean(texts) / _CHARACTERS_PER_TOKEN for texts in (self.questions, self.answers))
        read = examples * (question + answer) + question
        written = answer + asked.generated_tokens / max(1.0, asked.requests)
        return 0.0 if price is None else price.usd(requests * read, requests * written)


def forecaster(task: Task, config: StudyConfig, measured: Measured | None) -> Forecaster:
    """Return what prices the trials of this task.

    Raises:
        ConfigError: unknown hardware, or a faulty price table, or damaged factors.
    """
    from taskfit.costs.calibration import load_calibration

    definition, rows = task.definition, task.train[:_SAMPLE] or task.test[:_SAMPLE]
    return Forecaster(
        task,
        priced_machine(config.hardware, config.prices),
        measured,
        [definition.prompt_text(row) for row in rows],
        [definition.target_text(row) for row in rows],
        [definition.input_text(row) for row in rows],
        config.prices,
        load_calibration(machine_key()),
    )


def machine_key() -> str:
    """Return what forecasts on this machine are kept under: its processor and cores."""
    from taskfit.studies.study_file import machine

    found = machine()
    return f"{found['processor']}, {found['cores']} cores"


def told(spec: TrialSpec, kind: str, cost: TrialCost) -> dict[str, Any] | None:
    """Return a trial's forecast beside its measurement, for the log; None where nothing was told."""
    if spec.forecast_s is None or spec.forecast_fit_s is None or spec.forecast_memory_bytes is None:
        return None
    return {
        "machine": machine_key(),
        "strategy": spec.strategy,
        "model": spec.model or "",
        "kind": kind,
        "told_fit_s": spec.forecast_fit_s,
        "told_predict_s": spec.forecast_s - spec.forecast_fit_s,
        "told_bytes": spec.forecast_memory_bytes,
        "fit_s": cost.fit.wall_s,
        "predict_s": cost.predict.wall_s,
        "peak_bytes": cost.peak_memory_bytes,
        "told_with": spec.forecast_factors_at,
    }


@lru_cache(maxsize=64)
def characters_per_token(model: str, texts: tuple[str, ...]) -> float:
    """Return how long a token of a model's tokenizer is in these texts; 4 characters where it cannot be read."""
    folder = known_folder(model) or Path(model)
    path = folder / "tokenizer.json"
    if not model or not path.is_file():
        return _CHARACTERS_PER_TOKEN
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()  # some files pad every text to a fixed length, or cut it
        tokenizer.no_truncation()
        read = tokenizer.encode_batch(list(texts))
    except Exception:  # the library raises Exception itself; a forecast is not worth a failed plan
        return _CHARACTERS_PER_TOKEN
    return max(0.25, sum(map(len, texts)) / max(1, sum(len(one.ids) for one in read)))


def _mean(texts: Sequence[str]) -> float:
    return max(1.0, fmean(len(text) for text in texts))


def _shared(texts: Sequence[str]) -> int:
    """Characters that all texts begin with."""
    first, last = min(texts), max(texts)
    return next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def _format(measured: Measured | None) -> str:
    return "float32" if measured is None else measured.number_format.partition(":")[0]


def _head(strategy: Strategy) -> str:
    return strategy.name.partition("(")[0]


def _options(task: Task) -> int:
    """Answers that are scored for a row: the labels, or as many as the first rows bring."""
    definition = task.definition
    rows = task.test[:_SAMPLE] or task.train[:_SAMPLE]
    return len(definition.labels) or round(fmean(len(definition.options(row)) for row in rows))


def trains(strategy: Strategy) -> Literal["nothing", "adapter", "all"]:
    """Return what a strategy trains: nothing, a part beside a frozen base, or all weights."""
    weights = getattr(strategy, "weights", None)
    heads = {part.partition("(")[0] for part in strategy.name.split("+")}
    if "encoder" in heads and getattr(strategy, "tune", None) is not None:
        return "adapter"
    if heads & _WHOLE_MODEL:
        return "all"
    return "adapter" if weights is not None else "nothing"


def method_of(strategy: Strategy) -> str:
    """The change of weights by the name that costs are counted by; empty where it has none of its own."""
    tune = getattr(strategy, "tune", None)
    return _METHODS.get((strategy if tune is None else tune).name.partition("(")[0].partition("+")[0], "")


_METHODS = {
    "dora": "dora",
    "ia3": "ia3",
    "adapter": "adapters",
    "prompt-tuning": "soft-prompt",
    "p-tuning": "soft-prompt",
    "prefix-tuning": "prefix",
    "p-tuning-v2": "prefix",
    "bitfit": "bitfit",
    "norms": "layer-norm",
}
"""Changes of weights whose costs differ from those of ``lora``."""


def _number(part: object, name: str, default: float) -> float:
    value = getattr(part, name, default)
    return float(value) if isinstance(value, int | float) else default
