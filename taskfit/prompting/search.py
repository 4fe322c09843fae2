"""Prompt search: which wording, instruction and worked examples do best on validation, by successive halving."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, log2
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, cast

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.prompting.asking import AnswerBy, check_at_least
from taskfit.prompting.calibration import Calibration
from taskfit.prompting.demonstrations import Select
from taskfit.prompting.examples import draw_examples
from taskfit.prompting.options import default_unit
from taskfit.prompting.shots import PreparedShots, shots_from_json
from taskfit.prompting.spread import spread_line
from taskfit.prompting.validating import row_scores, validation_rows
from taskfit.strategy.contract import Usage
from taskfit.strategy.parameters import check_types, type_fits

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.strategy.contract import Budget, PreparedProgram, Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.prompt import Prompt
    from taskfit.tasks.task import Kind, Row, Task, Value

__all__ = ["INSTRUCTIONS", "Candidate", "PreparedSearch", "PromptSearch"]

INSTRUCTIONS: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("Answer with one of the labels and nothing else.", "Read carefully; choose what fits best."),
    "choice": ("Answer with one of the options and nothing else.", "Compare all options before you choose one."),
    "generation": ("Answer shortly and exactly, in the form asked for.", "Keep to what the text says."),
}
"""Instructions that are tried besides none and the task's own."""

_FIRST_ROWS = 4
"""Rows that every candidate is tried on at least, before half of them go."""


@dataclass(frozen=True)
class PromptSearch:
    """Try wordings x instructions x draws of examples on validation rows; half of them go, until one is left.

    Every round gives the remaining prompts further rows, so most of the budget goes to the good ones. Only validation
    rows are asked, and what is asked counts as work of the fit. The winner's validation score is the best of many and
    flatters; the test score is the one to believe.

    Source: Jamieson and Talwalkar 2016, section 2 (successive halving).
    """

    budget: int = 500
    """Validation rows asked in all, over all prompts and rounds."""
    k: int = 4
    """Worked examples in those prompts that have some; 0: none is tried with examples."""
    draws: int = 3
    """Draws of examples; prompts without any are tried, too."""
    select: Select = "balanced"
    """How examples are chosen: see ``few-shot``."""
    answer: AnswerBy = "score"
    """How an option is asked for: ``score`` all of them, or ``generate`` a text and read it."""

    is_trainable = False

    def __post_init__(self) -> None:
        faults = Faults("prompt-search")
        check_types(self, faults)
        for name, least in (("budget", 2 * _FIRST_ROWS), ("k", 0), ("draws", 1)):
            check_at_least(name, getattr(self, name), least, faults)
        faults.raise_as(ConfigError)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes, and the search."""
        is_generated = definition.kind == "generation" or self.answer == "generate"
        return Usage(1.0, is_generated=is_generated, fit_requests=float(self.budget))

    def prepare(self, task: Task, *, seed: int) -> PreparedSearch:
        """Draw the examples and list the candidates, the plainest first.

        Where they are more than the budget can try on four rows each, the seed draws which stay; the first does.

        Raises:
            ConfigError: there are fewer than k training rows.
        """
        definition = task.definition
        unit = Calibration(default_unit(definition.kind, "auto"))
        found: list[Candidate] = []
        for draw in range(self.draws + 1 if self.k else 1):
            for wording in range(len(definition.wordings)):
                examples = draw_examples(
                    task, self.k if draw else 0, self.select, wording=wording, seed=seed + draw, program="prompt-search"
                )
                shots = PreparedShots(wording, examples, unit, self.answer)
                found += [Candidate(replace(shots, system=system), draw) for system in _instructions(task, wording)]
        most = _most_candidates(self.budget)
        if len(found) > most:
            kept = sorted(Random(f"search {seed}").sample(range(1, len(found)), most - 1))
            found = [found[0], *(found[place] for place in kept)]
        return PreparedSearch(found[0].shots, (), tuple(found))

    def choose(
        self, prepared: PreparedProgram, task: Task, engine: Engine, *, seed: int, budget: Budget
    ) -> PreparedSearch:
        """Halve the candidates on validation rows until one is left, the budget is spent or time is up."""
        search = cast("PreparedSearch", prepared)
        rows = validation_rows(task, len(task.validation) or self.budget, seed)
        started, alive = time.monotonic(), list(search.candidates)
        scores: dict[int, list[float]] = {id(one): [] for one in alive}
        rounds = _rounds(len(alive))
        for turn in range(rounds):
            fresh = max(1, self.budget // (rounds * len(alive)))
            for one in alive:
                done = len(scores[id(one)])
                scores[id(one)] += row_scores(task.definition, one.shots, rows[done : done + fresh], engine)
            if turn == 0:
                asked = len(scores[id(alive[0])])
                budget.say(spread_line("prompts", [fmean(scores[id(one)]) for one in alive], asked))
            alive.sort(key=lambda one: -fmean(scores[id(one)]))  # stable: of equals the plainer one stays in front
            if budget.wall_s is not None and time.monotonic() - started > budget.wall_s:
                break
            alive = alive[: ceil(len(alive) / 2)]
        tried = [_tried(one, scores[id(one)]) for one in search.candidates]
        tried.sort(key=lambda one: (-one.rows, -one.score))
        budget.say(f"of {len(tried)} prompts, found on validation: {tried[0].line()}; {_runner_up(tried)}")
        return PreparedSearch(alive[0].shots, tuple(tried))

    def restore(self, values: Mapping[str, Value]) -> PreparedSearch:
        """Build what ``to_json`` gave."""
        found, tried = values.get("found"), values.get("tried")
        if not isinstance(found, dict) or not isinstance(tried, list):
            raise PredictorError("a searched prompt must have the values found and tried")
        return PreparedSearch(shots_from_json(found), tuple(_tried_from(one) for one in tried))


@dataclass(frozen=True)
class Candidate:
    """A prompt that may be chosen.

    Attributes:
        draw: number of the draw of its examples; 0: it has none.
    """

    shots: PreparedShots
    draw: int


@dataclass(frozen=True)
class TriedPrompt:
    """What a candidate was, and its mean score on the rows it was tried on."""

    wording: int
    instruction: str
    draw: int
    rows: int
    score: float

    def line(self) -> str:
        """Return the candidate in words."""
        system = f"instruction {self.instruction!r}" if self.instruction else "no instruction"
        shots = f"draw {self.draw} of examples" if self.draw else "no examples"
        return f"wording {self.wording}, {system}, {shots}: {self.score:.3f} on {self.rows} rows"


@dataclass(frozen=True)
class PreparedSearch:
    """The prompt that was found, and what each candidate gave.

    Attributes:
        found: before :meth:`PromptSearch.choose`: the plainest candidate.
        tried: of all candidates, those that stayed longest first.
        candidates: before the choice; none after it.
    """

    found: PreparedShots
    tried: tuple[TriedPrompt, ...]
    candidates: tuple[Candidate, ...] = ()

    @property
    def wording(self) -> int:
        """The found prompt's."""
        return self.found.wording

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the found prompt."""
        return self.found.prompt(definition, row)

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Ask with the found prompt."""
        return self.found.answer(definition, row)

    def to_json(self) -> dict[str, Value]:
        """Return the found prompt and the table as plain JSON values."""
        tried: list[Value] = [asdict(one) for one in self.tried]
        return {"found": self.found.to_json(), "tried": tried}


def _rounds(candidates: int) -> int:
    return max(1, ceil(log2(max(2, candidates))))


def _most_candidates(budget: int) -> int:
    """Return how many candidates the budget can give the least number of rows in the first round, and no less later."""
    return max(count for count in range(2, budget) if count == 2 or count * _rounds(count) * _FIRST_ROWS <= budget)


def _instructions(task: Task, wording: int) -> list[str | None]:
    """Return none, the task's own where the wording does not hold it already, and the general ones."""
    definition = task.definition
    row = (task.validation or task.train)[0]
    own = definition.instruction
    is_new = own is not None and own not in definition.prompt_text(row, wording)
    return [None, *([own] if is_new else []), *INSTRUCTIONS[definition.kind]]


def _tried(one: Candidate, scores: Sequence[float]) -> TriedPrompt:
    return TriedPrompt(one.shots.wording, one.shots.system or "", one.draw, len(scores), fmean(scores))


def _runner_up(tried: Sequence[TriedPrompt]) -> str:
    return f"next {tried[1].line()}" if len(tried) > 1 else "there was no other"


def _tried_from(values: object) -> TriedPrompt:
    hints = {"wording": int, "instruction": str, "draw": int, "rows": int, "score": float}
    if not isinstance(values, dict) or not all(type_fits(values.get(name), hint) for name, hint in hints.items()):
        raise PredictorError(f"every tried prompt must have {', '.join(hints)} (got {values!r})")
    return TriedPrompt(**{name: values[name] for name in hints})
