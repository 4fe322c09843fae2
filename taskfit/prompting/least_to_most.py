"""Least-to-most prompting: break a question into smaller ones, then answer them in order, each with those before it."""

from __future__ import annotations

import re
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

__all__ = ["LeastToMost", "PreparedLeastToMost", "parts_of"]

DECOMPOSE = "To answer this, which simpler questions must be answered first? List them one a line, the simplest first."

_NEXT = ("\n\n", "\nQ:")
_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):]|Q\d*[.:])\s*")


@dataclass(frozen=True)
class LeastToMost:
    """Break the question into simpler ones, answer them in order, then the question itself.

    Source: Zhou et al. 2023, section 2 (decomposition, then sequential solving).
    """

    parts: int = 5
    """Most simpler questions; further ones are not asked."""
    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    max_tokens: int = 128
    """Most tokens of the list, and of the answer to each part."""
    answer: AnswerBy = "generate"
    """How options are asked for at the end: ``generate`` and read, or ``score``."""

    is_trainable = uses_seed = uses_train = False

    def __post_init__(self) -> None:
        faults = Faults("least-to-most")
        check_types(self, faults)
        for name, least in (("parts", 1), ("wording", 0), ("max_tokens", 1)):
            check_at_least(name, getattr(self, name), least, faults)
        faults.raise_as(ConfigError)

    def check(self, task: Task) -> None:
        """Refuse a task without this wording.

        Raises:
            ConfigError: it has fewer.
        """
        check_wording(task.definition, self.wording)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes: the list, about half the parts that are allowed, the answer."""
        asked = 1 + self.parts / 2
        return Usage(asked + 1, asked * self.max_tokens / 2, is_generated=self.answer == "generate")

    def prepare(self, task: Task, *, seed: int) -> PreparedLeastToMost:
        """Check the wording; there is nothing to draw."""
        check_wording(task.definition, self.wording)
        return PreparedLeastToMost(self.wording, answer_form(task), self.answer, self.parts, self.max_tokens)

    def restore(self, values: Mapping[str, Value]) -> PreparedLeastToMost:
        """Build what ``to_json`` gave."""
        return flat_from_json(PreparedLeastToMost, values)


@dataclass(frozen=True)
class PreparedLeastToMost:
    """The parameters, and what answers look like."""

    wording: int
    form: AnswerForm
    answer_by: AnswerBy
    parts: int
    max_tokens: int

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the first request's prompt: the question, to be broken up."""
        return Prompt(f"{stem(definition.prompt_text(row, self.wording))}\n\n{DECOMPOSE}")

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Break up, solve in order, answer."""
        question = definition.prompt_text(row, self.wording)
        listed = generated_text((yield ask(self.prompt(definition, row), self.max_tokens)))
        solved = stem(question)
        for part in parts_of(listed, self.parts):
            solved += f"\n\nQ: {part}\nA:"
            solved += f" {generated_text((yield ask(Prompt(solved), self.max_tokens, stop=_NEXT)))}"
        last = solved.removeprefix(stem(question)).strip()
        prompt = Prompt(f"{last}\n\n{question}" if last else question)
        return (
            yield from last_step(definition, row, prompt, answer=self.answer_by, form=self.form, wording=self.wording)
        )

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values."""
        return asdict(self)


def parts_of(text: str, most: int) -> list[str]:
    r"""Return the simpler questions that a model has listed: one a line, or in quotes on a single line.

    >>> parts_of("1. How many are red?\n2. How many are blue?", 5)
    ['How many are red?', 'How many are blue?']
    """
    lines = [line for line in (_BULLET.sub("", line).strip() for line in text.splitlines()) if line]
    quoted = re.findall(r'"([^"]+)"', lines[0]) if len(lines) == 1 else []
    return list(dict.fromkeys(quoted or lines))[:most]
