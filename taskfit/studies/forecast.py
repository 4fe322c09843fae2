"""What a trial is expected to take, before it runs: a rough figure, so that nobody starts a week by mistake."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from taskfit.models.service import read_service_name
from taskfit.studies.costing import architecture_of, priced_machine, priced_service
from taskfit.studies.needs import learned_rows, shots, usage

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.costs.prices import Machine
    from taskfit.strategy.contract import Strategy
    from taskfit.studies.spec import ModelFacts, StudyConfig
    from taskfit.tasks.task import Task

__all__ = ["Forecaster", "forecaster"]

_CHARACTERS_PER_TOKEN = 4.0
_SAMPLE = 200
_WHOLE_MODEL = frozenset({"full", "encoder", "continued-pretraining"})


@dataclass(frozen=True)
class Forecaster:
    """Prices the trials of one task.

    Attributes:
        speed: FLOP/s measured on this machine; 0 when no strategy needs a model.
        question_tokens, answer_tokens: means of a sample of rows, from their characters.
        prices: the user's own price table.
    """

    task: Task
    machine: Machine
    speed: float
    question_tokens: float
    answer_tokens: float
    prices: Path | None = None

    def of(
        self, strategy: Strategy, facts: ModelFacts | None, train_rows: int | None
    ) -> tuple[float | None, float] | None:
        """Return expected seconds and US dollars; None where the model's family cannot be counted.

        Nobody knows a service's seconds: they are None.
        """
        from taskfit.costs.price_trial import TrialFacts, forecast

        if facts is not None and facts.architecture == "service":
            return None, self._service_usd(strategy, facts)
        architecture = architecture_of(None if facts is None else facts.config)
        if facts is not None and architecture is None:
            return None
        definition = self.task.definition
        asked = usage(strategy, definition, len(self.task.validation))
        rows = len(self.task.train) if train_rows is None else train_rows
        characters = (self.question_tokens + self.answer_tokens) * _CHARACTERS_PER_TOKEN
        is_scored = definition.kind == "classification" and not asked.is_generated
        expected = forecast(
            architecture,
            TrialFacts(
                rows_train=learned_rows(strategy, self.task, rows, characters),
                rows_test=len(self.task.test),
                rows_validation=len(self.task.validation),
                row_tokens=self.question_tokens,
                answer_tokens=self.answer_tokens,
                options=len(definition.labels) if is_scored else 0,
                shots=shots(strategy),
                trains=_trains(strategy),
                epochs=_epochs(strategy),
                labels=len(definition.labels),
                requests=asked.requests,
                thinking_tokens=asked.generated_tokens,
                fit_requests=asked.fit_requests,
                are_shots_shared=asked.are_shots_shared,
            ),
            speed=max(self.speed, 1.0),
            machine=self.machine,
        )
        return expected.wall_s, expected.usd

    def _service_usd(self, strategy: Strategy, facts: ModelFacts) -> float:
        """What all its requests read and write; where prompts are echoed to score labels, one request a label."""
        service, price = read_service_name(facts.name), priced_service(facts.name, self.prices)
        definition, examples = self.task.definition, shots(strategy)
        asked = usage(strategy, definition, len(self.task.validation))
        requests = len(self.task.test) * asked.requests + asked.fit_requests
        if service.style == "completions" and service.scores in ("auto", "echo") and not asked.is_generated:
            requests *= max(1, len(definition.labels))
        read = examples * (self.question_tokens + self.answer_tokens) + self.question_tokens
        written = self.answer_tokens + asked.generated_tokens / max(1.0, asked.requests)
        return 0.0 if price is None else price.usd(requests * read, requests * written)


def forecaster(task: Task, config: StudyConfig, speed: float) -> Forecaster:
    """Return what prices the trials of this task.

    Raises:
        ConfigError: unknown hardware, or a faulty price table.
    """
    definition, rows = task.definition, task.train[:_SAMPLE] or task.test[:_SAMPLE]
    return Forecaster(
        task,
        priced_machine(config.hardware, config.prices),
        speed,
        _tokens([definition.prompt_text(row) for row in rows]),
        _tokens([definition.target_text(row) for row in rows]),
        config.prices,
    )


def _tokens(texts: list[str]) -> float:
    return max(1.0, fmean(len(text) for text in texts) / _CHARACTERS_PER_TOKEN)


def _trains(strategy: Strategy) -> Literal["nothing", "adapter", "all"]:
    heads = {part.partition("(")[0] for part in strategy.name.split("+")}
    if heads & _WHOLE_MODEL:
        return "all"
    return "adapter" if getattr(strategy, "weights", None) is not None else "nothing"


def _epochs(strategy: Strategy) -> float:
    part = getattr(strategy, "weights", None) or strategy
    epochs = getattr(part, "epochs", 3.0)
    return float(epochs) if isinstance(epochs, int | float) else 3.0
