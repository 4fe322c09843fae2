"""Self-refine: the model answers, looks at its answer, and improves it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, Faults
from taskfit.prompting.asking import (
    answer_form,
    ask,
    check_at_least,
    check_wording,
    flat_from_json,
    generated_text,
    read_answer,
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

__all__ = ["PreparedSelfRefine", "SelfRefine"]

ENOUGH = "It is correct."
_IS_ENOUGH = re.compile(r"(?:^|[.!?:\n])[\s\"'*]*it is correct[\"'*]*\s*(?:[.!\n]|$)", re.IGNORECASE)
"""A sentence of its own: who writes "I doubt that it is correct" has found something wrong."""
CRITICISE = f'Look at this answer again. Say what is wrong with it, or write "{ENOUGH}" if nothing is.'


@dataclass(frozen=True)
class SelfRefine:
    """Answer, criticise the answer, and answer again, until nothing is found wrong.

    Source: Madaan et al. 2023, section 2, algorithm 1.
    """

    rounds: int = 2
    """Most rounds of criticism and new answer."""
    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    max_tokens: int = 128
    """Most tokens of a criticism; answers have the task's own limit."""

    is_trainable = uses_seed = uses_train = False

    def __post_init__(self) -> None:
        faults = Faults("self-refine")
        check_types(self, faults)
        for name, least in (("rounds", 1), ("wording", 0), ("max_tokens", 1)):
            check_at_least(name, getattr(self, name), least, faults)
        faults.raise_as(ConfigError)

    def check(self, task: Task) -> None:
        """Refuse a task without this wording.

        Raises:
            ConfigError: it has fewer.
        """
        check_wording(task.definition, self.wording)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes, if every round finds something wrong."""
        drafts = self.rounds * (self.max_tokens / 2 + definition.max_answer_tokens)
        return Usage(1.0 + 2 * self.rounds, drafts, is_generated=True)

    def prepare(self, task: Task, *, seed: int) -> PreparedSelfRefine:
        """Check the wording; there is nothing to draw."""
        check_wording(task.definition, self.wording)
        return PreparedSelfRefine(self.wording, answer_form(task), self.rounds, self.max_tokens)

    def restore(self, values: Mapping[str, Value]) -> PreparedSelfRefine:
        """Build what ``to_json`` gave."""
        return flat_from_json(PreparedSelfRefine, values)


@dataclass(frozen=True)
class PreparedSelfRefine:
    """The parameters, and what answers look like."""

    wording: int
    form: AnswerForm
    rounds: int
    max_tokens: int

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the first request's prompt: the question alone."""
        return Prompt(definition.prompt_text(row, self.wording))

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Answer, then criticise and answer again; the last answer that is not empty counts."""
        prompt = self.prompt(definition, row)
        text = generated_text((yield ask(prompt, definition.max_answer_tokens)))
        for _ in range(self.rounds):
            draft = f"{stem(prompt.text)}\n\nAnswer: {text}\n\n"
            fault = generated_text((yield ask(Prompt(draft + CRITICISE), self.max_tokens)))
            if not fault or _IS_ENOUGH.search(fault):
                break
            better = Prompt(f"{draft}Criticism: {fault}\n\nBetter answer:")
            text = generated_text((yield ask(better, definition.max_answer_tokens))) or text
        return read_answer(definition, row, text, self.form, self.wording)

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values."""
        return asdict(self)
