"""Prompt ensemble: ask in several wordings and put the answers together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from taskfit.errors import ConfigError, DataError, Faults, PredictorError
from taskfit.inference.requests import Score, Scored
from taskfit.prompting.asking import AnswerBy, ask, check_at_least, generated_text, read_answer, vote
from taskfit.prompting.calibration import Calibration
from taskfit.prompting.demonstrations import Select
from taskfit.prompting.examples import Examples, draw_examples
from taskfit.prompting.options import Normalise, default_unit, likeliest_option, shares
from taskfit.prompting.reading import AnswerForm
from taskfit.prompting.shots import PreparedShots, shots_from_json
from taskfit.prompting.spread import spread_line
from taskfit.prompting.validating import row_scores, validation_rows
from taskfit.strategy.contract import Usage
from taskfit.strategy.parameters import check_types

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.strategy.contract import Answer, Budget, PreparedProgram, Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.prompt import Prompt
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["PreparedEnsemble", "PromptEnsemble"]

SPREAD_ROWS = 100
"""Validation rows that each wording is scored on at the fit, to say how much they differ."""


@dataclass(frozen=True)
class PromptEnsemble:
    """Ask in all wordings of the task: log-probabilities are averaged; where texts are generated, they vote.

    Source: Jiang et al. 2020, section 4 (ensembles of prompts); Schick and Schuetze 2021, section 3.3.
    """

    wordings: int = 0
    """How many of the task's wordings to ask in, from the first on; 0: all of them."""
    k: int = 0
    """Worked examples in every prompt, the same ones in all wordings."""
    select: Select = "balanced"
    """How they are chosen: see ``few-shot``."""
    normalise: Normalise = "auto"
    """How options are scored: ``sum``, ``mean``, ``byte``; ``auto``: sum for classification, mean for choice."""
    answer: AnswerBy = "score"
    """How an option is asked for: ``score`` all of them, or ``generate`` a text and read it."""

    is_trainable = False

    def __post_init__(self) -> None:
        faults = Faults("prompt-ensemble")
        check_types(self, faults)
        check_at_least("k", self.k, 0, faults)
        if isinstance(self.wordings, int) and (self.wordings < 0 or self.wordings == 1):
            faults.add(f"wordings must be 0 for all, or at least 2 (got {self.wordings})")
        faults.raise_as(ConfigError)

    @property
    def uses_seed(self) -> bool:
        """Whether examples are drawn."""
        return self.k > 0

    uses_train = uses_seed

    def check(self, task: Task) -> None:
        """Refuse a task with too few wordings.

        Raises:
            ConfigError: it has fewer.
        """
        count = len(task.definition.wordings)
        if max(2, self.wordings) > count:
            raise ConfigError(
                f"prompt-ensemble asks in {max(2, self.wordings)} wordings or more (the task has {count})",
                "write more wordings into the task file, or take few-shot",
            )

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes: one request a wording."""
        count = float(self.wordings or len(definition.wordings))
        is_generated = definition.kind == "generation" or self.answer == "generate"
        drafts = (count - 1) * definition.max_answer_tokens if is_generated else 0.0
        return Usage(count, drafts, is_generated, count * min(rows, SPREAD_ROWS))

    def prepare(self, task: Task, *, seed: int) -> PreparedEnsemble:
        """Draw the examples, the same rows for every wording.

        Raises:
            ConfigError: the task has fewer wordings, or too few training rows.
        """
        self.check(task)
        most = self.wordings or len(task.definition.wordings)
        unit = default_unit(task.definition.kind, self.normalise)
        return PreparedEnsemble(
            tuple(
                PreparedShots(wording, self._examples(task, wording, seed), Calibration(unit), self.answer)
                for wording in range(most)
            )
        )

    def choose(
        self, prepared: PreparedProgram, task: Task, engine: Engine, *, seed: int, budget: Budget
    ) -> PreparedProgram:
        """Choose nothing, and say how much the wordings differ on validation."""
        rows = validation_rows(task, SPREAD_ROWS, seed)
        if not rows:
            return prepared
        members = cast("PreparedEnsemble", prepared).members
        scores = [sum(row_scores(task.definition, member, rows, engine)) / len(rows) for member in members]
        budget.say(spread_line("wordings", scores, len(rows)))
        return prepared

    def restore(self, values: Mapping[str, Value]) -> PreparedEnsemble:
        """Build what ``to_json`` gave."""
        members = values.get("members")
        if not isinstance(members, list) or not members:
            raise PredictorError(f"members of the ensemble must be a list (got {members!r})")
        return PreparedEnsemble(tuple(shots_from_json(one if isinstance(one, dict) else {}) for one in members))

    def _examples(self, task: Task, wording: int, seed: int) -> Examples:
        return draw_examples(task, self.k, self.select, wording=wording, seed=seed, program="prompt-ensemble")


@dataclass(frozen=True)
class PreparedEnsemble:
    """One prepared prompt a wording."""

    members: tuple[PreparedShots, ...]

    @property
    def wording(self) -> int:
        """The first member's."""
        return self.members[0].wording

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the first member's prompt, for people to read."""
        return self.members[0].prompt(definition, row)

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Ask in all wordings at once; average, or count votes."""
        prompts = [member.prompt(definition, row) for member in self.members]
        if definition.kind == "generation" or self.members[0].answer_by == "generate":
            wave = tuple(ask(prompt, definition.max_answer_tokens) for prompt in prompts)
            texts = [generated_text(one) for one in cast("tuple[object, ...]", (yield wave))]
            return self._voted(definition, row, texts)
        options = [definition.options(row, member.wording) for member in self.members]
        asked = tuple(
            Score(prompt, tuple(option.text for option in own)) for prompt, own in zip(prompts, options, strict=True)
        )
        given = cast("tuple[Scored, ...]", (yield asked))
        logs = [
            {
                option.value: math.log(max(share, 1e-300))
                for option, share in zip(own, shares(member.calibration.scores(own, scored)), strict=True)
            }
            for member, own, scored in zip(self.members, options, given, strict=True)
        ]
        if any(one.keys() != logs[0].keys() for one in logs):
            raise DataError("prompt-ensemble: the wordings' options must have the same values, in whatever order")
        means = [math.fsum(one[option.value] for one in logs) / len(logs) for option in options[0]]
        return likeliest_option(options[0], means)

    def _voted(self, definition: TaskDefinition, row: Row, texts: list[str]) -> Answer:
        form: AnswerForm = "text" if definition.kind == "generation" else "option"
        read = [
            read_answer(definition, row, text, form, member.wording)
            for member, text in zip(self.members, texts, strict=True)
        ]
        return vote(read, [option.value for option in definition.options(row)])

    def to_json(self) -> dict[str, Value]:
        """Return the members as plain JSON values."""
        members: list[Value] = [member.to_json() for member in self.members]
        return {"members": members}
