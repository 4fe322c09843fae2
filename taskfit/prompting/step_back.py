"""Step-back prompting: ask the general question behind a question first, and answer with its answer at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, Faults
from taskfit.prompting.asking import (
    AnswerBy,
    answer_form,
    ask,
    check_at_least,
    check_wording,
    flat_from_json,
    generated_text,
    last_step,
    stem,
)
from taskfit.prompting.reading import AnswerForm
from taskfit.strategy.contract import Usage
from taskfit.strategy.parameters import check_types
from taskfit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from taskfit.strategy.contract import Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["PreparedStepBack", "StepBack"]

ABSTRACT = "Step back: which more general question, about the idea or rule behind this, would help to answer it?"


@dataclass(frozen=True)
class StepBack:
    """Ask for the general question behind the row's, answer that, then the row's own with it in view.

    Source: Zheng et al. 2024, section 2 (abstraction, then reasoning).
    """

    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    max_tokens: int = 128
    """Most tokens of the general question, and of its answer."""
    answer: AnswerBy = "generate"
    """How options are asked for at the end: ``generate`` and read, or ``score``."""

    is_trainable = uses_seed = uses_train = False

    def __post_init__(self) -> None:
        faults = Faults("step-back")
        check_types(self, faults)
        check_at_least("wording", self.wording, 0, faults)
        check_at_least("max_tokens", self.max_tokens, 1, faults)
        faults.raise_as(ConfigError)

    def check(self, task: Task) -> None:
        """Refuse a task without this wording.

        Raises:
            ConfigError: it has fewer.
        """
        check_wording(task.definition, self.wording)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes: the general question, its answer, the row's answer."""
        return Usage(3.0, float(self.max_tokens), is_generated=self.answer == "generate")

    def prepare(self, task: Task, *, seed: int) -> PreparedStepBack:
        """Check the wording; there is nothing to draw."""
        check_wording(task.definition, self.wording)
        return PreparedStepBack(self.wording, answer_form(task), self.answer, self.max_tokens)

    def restore(self, values: Mapping[str, Value]) -> PreparedStepBack:
        """Build what ``to_json`` gave."""
        return flat_from_json(PreparedStepBack, values)


@dataclass(frozen=True)
class PreparedStepBack:
    """The parameters, and what answers look like."""

    wording: int
    form: AnswerForm
    answer_by: AnswerBy
    max_tokens: int

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the first request's prompt, which asks for the general question."""
        return Prompt(f"{stem(definition.prompt_text(row, self.wording))}\n\n{ABSTRACT}")

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Step back, answer the general question, then the row's."""
        general = generated_text((yield ask(self.prompt(definition, row), self.max_tokens, stop=("\n\n",))))
        question = definition.prompt_text(row, self.wording)
        known = question
        if general:
            principle = generated_text((yield ask(Prompt(f"{general}\nAnswer:"), self.max_tokens, stop=("\n\n",))))
            known = f"{general}\n{principle}\n\n{question}"
        return (
            yield from last_step(
                definition, row, Prompt(known), answer=self.answer_by, form=self.form, wording=self.wording
            )
        )

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values."""
        return asdict(self)
