"""What is known of a trial before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["TrialFacts"]

_VALIDATION_ROWS = 512  # tuning.answers.VALIDATION_ROWS
_VALIDATIONS = 5  # tuning.settings.VALIDATIONS


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
        method: key of ``job.METHODS`` where known; empty: ``lora`` for an adapter.
        batch: rows of one optimiser step.
        virtual_tokens: trained vectors before every prompt.
        shared_tokens: of ``row_tokens``, those that all questions begin with.
        epochs: passes over the training rows.
        least_steps: optimiser steps that are taken even where the epochs have fewer.
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
    method: str = ""
    batch: int = 16
    virtual_tokens: int = 0
    shared_tokens: float = 0.0

    @property
    def job_method(self) -> str:
        """The method by the name that memory and traffic are counted by."""
        return {"nothing": "prompting", "adapter": self.method or "lora", "all": "full"}[self.trains]

    @property
    def generated_tokens(self) -> float:
        """Tokens generated one after the other for each row; 0 where options are scored and nothing else is asked."""
        return self.thinking_tokens + (self.answer_tokens if self.options == 0 else 0.0)

    @property
    def steps(self) -> int:
        """Optimiser steps, as ``tuning.settings.plan_schedule`` plans them."""
        per_epoch = math.ceil(self.rows_train / self.batch)
        return max(math.ceil(self.epochs * per_epoch), self.least_steps)

    @property
    def rows_seen(self) -> float:
        """Training rows over all epochs, repetitions included."""
        per_epoch = math.ceil(self.rows_train / self.batch)
        return self.rows_train * self.steps / max(1, per_epoch)

    @property
    def validations(self) -> int:
        """Times that the validation rows are read."""
        if self.rows_validation == 0:
            return 0
        per_epoch = math.ceil(self.rows_train / self.batch)
        every = max(math.ceil(per_epoch / 2), math.ceil(self.steps / _VALIDATIONS))
        return math.ceil(self.steps / every)

    @property
    def rows_checked(self) -> float:
        """Validation rows over all validations."""
        return float(min(self.rows_validation, _VALIDATION_ROWS) * self.validations)
