"""Zero-shot and few-shot prompting: one question a row, after no or k worked examples.

Labels and options are scored by default: every row gets a valid answer, with probabilities, from one pass. Engines
without log-probabilities need ``answer=generate``, which reads the answer out of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, cast, get_args

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.inference.requests import Score, Scored
from taskfit.prompting.asking import AnswerBy, ask, check_at_least, check_wording, generated_text, read_answer
from taskfit.prompting.calibration import (
    Calibrate,
    Calibration,
    Method,
    calibration_from_json,
    content_free_rows,
)
from taskfit.prompting.demonstrations import Select
from taskfit.prompting.examples import Examples, Order, draw_examples, examples_from_json
from taskfit.prompting.options import Normalise, default_unit, likeliest_option
from taskfit.prompting.reading import AnswerForm
from taskfit.strategy.contract import Usage
from taskfit.strategy.parameters import check_types
from taskfit.strategy.space import OneOf, Space
from taskfit.tasks.chat import asked
from taskfit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.strategy.contract import Budget, PreparedProgram, Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Kind, Row, Task, Value

__all__ = ["FewShot", "PreparedShots", "ZeroShot", "shots_from_json"]

_ALL_KINDS: frozenset[Kind] = frozenset({"classification", "choice", "generation"})
_WITH_OPTIONS: frozenset[Kind] = frozenset({"classification", "choice"})
_WITH_LABELS: frozenset[Kind] = frozenset({"classification"})
_SPREAD_DRAWS = 3


@dataclass(frozen=True)
class ZeroShot:
    """Ask with the task's wording alone.

    Source: Brown et al. 2020, section 2.
    """

    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    normalise: Normalise = "auto"
    """How options are scored: ``sum``, or ``mean`` over tokens, or by ``byte``; ``auto``: with ``calibrate=auto``
    chosen on validation, else sum for classification and mean for choice."""
    calibrate: Calibrate = "none"
    """What is taken off the scores: ``none``, ``pmi``, ``contextual``, ``batch``; ``auto``: chosen on validation."""
    answer: AnswerBy = "score"
    """How an option is asked for: ``score`` all of them, or ``generate`` a text and read it."""
    spread: int = 0
    """Validation rows on which each wording, and three draws of examples, are scored, to show beside the score how
    fragile the prompt is; 0: none are, for it multiplies what a fit asks."""

    uses_seed = uses_train = False

    def __post_init__(self) -> None:
        faults = Faults("zero-shot")
        check_types(self, faults)
        check_at_least("wording", self.wording, 0, faults)
        check_at_least("spread", self.spread, 0, faults)
        _check_calibrate(self, faults)
        faults.raise_as(ConfigError)

    @property
    def kinds(self) -> frozenset[Kind]:
        """Kinds of tasks: calibration needs options, and ``batch`` the same ones in every row."""
        return _kinds(self.calibrate)

    @property
    def only_scores(self) -> bool:
        """Whether labels and options are never generated, so that an encoder with a masked-token head can answer."""
        return self.answer == "score"

    def check(self, task: Task) -> None:
        """Refuse a task without this wording, or without rows where some must be asked.

        Raises:
            ConfigError: it has fewer, or none.
        """
        _check_task(self, task)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes."""
        return _usage(self, definition, rows)

    def prepare(self, task: Task, *, seed: int) -> PreparedShots:
        """Check the wording; there is nothing to draw."""
        check_wording(task.definition, self.wording)
        unit = default_unit(task.definition.kind, self.normalise)
        return PreparedShots(self.wording, Examples(), Calibration(unit), self.answer)

    def choose(
        self, prepared: PreparedProgram, task: Task, engine: Engine, *, seed: int, budget: Budget
    ) -> PreparedShots:
        """Calibrate on validation, as far as that is asked for; see :mod:`taskfit.prompting.calibrating`."""
        chosen = _calibrated(self, prepared, task, engine, budget)
        _say_spread(self, task, engine, seed, budget)
        return chosen

    def restore(self, values: Mapping[str, Value]) -> PreparedShots:
        """Build what ``to_json`` gave."""
        return shots_from_json(values)


@dataclass(frozen=True)
class FewShot:
    """Ask after k worked examples from the training rows.

    Source: Brown et al. 2020, section 2. Choice by likeness: Liu et al. 2022, section 3; order: Lu et al. 2022.
    """

    k: int = 4
    """Worked examples in the prompt."""
    select: Select = "balanced"
    """How they are chosen: ``balanced`` over labels or right options, ``random``, ``diverse`` (far apart), or
    ``similar``: for each question the likest ones, which no longer share one beginning and so cost more."""
    wording: int = 0
    """Which of the task's wordings to use, for examples and question alike; 0 is the first."""
    normalise: Normalise = "auto"
    """How options are scored: see ``zero-shot``."""
    order: Order = "fixed"
    """``fixed``: as drawn (``similar``: the likest first); ``shuffled`` for every row; ``similar-last``: the likest
    next to the question."""
    by: str = "bm25"
    """What likeness is measured by: ``bm25`` (words) or the name of an encoder, such as ``minilm``."""
    calibrate: Calibrate = "none"
    """What is taken off the scores: see ``zero-shot``."""
    answer: AnswerBy = "score"
    """How an option is asked for: ``score`` all of them, or ``generate`` a text and read it."""
    spread: int = 0
    """Validation rows on which each wording, and three draws of examples, are scored, to show beside the score how
    fragile the prompt is; 0: none are, for it multiplies what a fit asks."""

    space: ClassVar[Space] = {"k": OneOf((1, 2, 4, 8)), "select": OneOf(("balanced", "random", "similar", "diverse"))}

    def __post_init__(self) -> None:
        faults = Faults("few-shot")
        check_types(self, faults)
        check_at_least("k", self.k, 1, faults)
        check_at_least("wording", self.wording, 0, faults)
        check_at_least("spread", self.spread, 0, faults)
        _check_calibrate(self, faults)
        faults.raise_as(ConfigError)

    @property
    def kinds(self) -> frozenset[Kind]:
        """Kinds of tasks: calibration needs options, and ``batch`` the same ones in every row."""
        return _kinds(self.calibrate)

    @property
    def only_scores(self) -> bool:
        """Whether labels and options are never generated, so that an encoder with a masked-token head can answer."""
        return self.answer == "score"

    def check(self, task: Task) -> None:
        """Refuse a task without this wording, or without rows where some must be asked.

        Raises:
            ConfigError: it has fewer, or none.
        """
        _check_task(self, task)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes."""
        return _usage(self, definition, rows)

    def prepare(self, task: Task, *, seed: int) -> PreparedShots:
        """Draw the examples, or keep the pool that they will be chosen from.

        Raises:
            ConfigError: there are fewer than k training rows, no such wording, or ``by`` is no encoder.
        """
        check_wording(task.definition, self.wording)
        examples = draw_examples(
            task, self.k, self.select, wording=self.wording, seed=seed, order=self.order, by=self.by
        )
        unit = default_unit(task.definition.kind, self.normalise)
        return PreparedShots(self.wording, examples, Calibration(unit), self.answer)

    def choose(
        self, prepared: PreparedProgram, task: Task, engine: Engine, *, seed: int, budget: Budget
    ) -> PreparedShots:
        """Calibrate on validation, as far as that is asked for; see :mod:`taskfit.prompting.calibrating`."""
        chosen = _calibrated(self, prepared, task, engine, budget)
        _say_spread(self, task, engine, seed, budget)
        return chosen

    def restore(self, values: Mapping[str, Value]) -> PreparedShots:
        """Build what ``to_json`` gave."""
        return shots_from_json(values)


@dataclass(frozen=True)
class PreparedShots:
    """A wording, the worked examples before the question, and how scores become an answer.

    Attributes:
        wording: of question and examples.
        examples: none for zero-shot.
        calibration: unit and prior of the scores.
        answer_by: score the options, or generate.
        system: an instruction in front of everything, or None.
    """

    wording: int = 0
    examples: Examples = field(default_factory=Examples)
    calibration: Calibration = field(default_factory=Calibration)
    answer_by: AnswerBy = "score"
    system: str | None = None

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the question after the examples that the row is shown, never itself among them."""
        question = definition.prompt_text(row, self.wording)
        own = asked(definition, row, self.wording)
        shots = (*self.examples.shown(definition, row, question), *own.shots)
        return Prompt(own.text, shots, own.system if self.system is None else self.system)

    def prior_prompts(self, definition: TaskDefinition, row: Row, method: Method) -> tuple[Prompt, ...]:
        """Return the prompts whose scores make a calibration's prior for this row; none for ``none`` and ``batch``."""
        if method == "pmi":
            return (Prompt(self.calibration.premise, system=self.system),)
        if method != "contextual":
            return ()
        own = self.prompt(definition, row)
        shots = self.examples.shots if self.examples.is_shared else own.shots
        rows = content_free_rows(definition, row, self.wording)
        return tuple(replace(own, text=definition.prompt_text(empty, self.wording), shots=shots) for empty in rows)

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Score the options, or generate; the steps of one row."""
        prompt = self.prompt(definition, row)
        if definition.kind == "generation" or self.answer_by == "generate":
            text = generated_text((yield ask(prompt, definition.max_answer_tokens)))
            form: AnswerForm = "text" if definition.kind == "generation" else "option"
            return read_answer(definition, row, text, form, self.wording)
        options = definition.options(row, self.wording)
        texts = tuple(option.text for option in options)
        method: Method = self.calibration.method if self.calibration.asks_rows else "none"
        prompts = (prompt, *self.prior_prompts(definition, row, method))
        own, *free = cast("tuple[Scored, ...]", (yield tuple(Score(one, texts) for one in prompts)))
        is_choice = definition.kind == "choice"
        return likeliest_option(options, self.calibration.scores(options, own, free), own if is_choice else None)

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values; :func:`shots_from_json` gives them back."""
        return {
            "wording": self.wording,
            "examples": self.examples.to_json(),
            "calibration": self.calibration.to_json(),
            "answer": self.answer_by,
            "system": self.system,
        }


def shots_from_json(values: Mapping[str, Value]) -> PreparedShots:
    """Build the prepared program of a folder, checked.

    Raises:
        PredictorError: the values are not what ``to_json`` gives; all faults together.
    """
    faults = Faults("prompt of the predictor")
    wording, answer, system = (values.get(name) for name in ("wording", "answer", "system"))
    if type(wording) is not int or wording < 0:
        faults.add(f"wording must be a whole number from 0 (got {wording!r})")
    if answer not in get_args(AnswerBy):
        faults.add(f"answer must be one of {', '.join(get_args(AnswerBy))} (got {answer!r})")
    if system is not None and not isinstance(system, str):
        faults.add(f"system must be a text or none (got {type(system).__name__})")
    examples = examples_from_json(values.get("examples"), faults)
    calibration = calibration_from_json(values.get("calibration"), faults)
    faults.raise_as(PredictorError)
    return PreparedShots(
        cast("int", wording), examples, calibration, cast("AnswerBy", answer), cast("str | None", system)
    )


def _calibrated(
    program: ZeroShot | FewShot, prepared: PreparedProgram, task: Task, engine: Engine, budget: Budget
) -> PreparedShots:
    from taskfit.prompting.calibrating import choose_calibration

    shots = cast("PreparedShots", prepared)
    if task.definition.kind == "generation" or program.answer == "generate":
        return shots
    return choose_calibration(shots, task, engine, program.normalise, program.calibrate, budget.say)


def _say_spread(program: ZeroShot | FewShot, task: Task, engine: Engine, seed: int, budget: Budget) -> None:
    from taskfit.prompting.spread import prompt_spread

    if program.spread:
        found = prompt_spread(program, task, engine, seed=seed, draws=_SPREAD_DRAWS, rows=program.spread)
        for line in found.lines():
            budget.say(line)


def _check_task(program: ZeroShot | FewShot, task: Task) -> None:
    check_wording(task.definition, program.wording)
    asked = [name for name in ("calibrate", "spread") if getattr(program, name) not in ("none", 0)]
    if asked and not (task.validation or task.train):
        raise ConfigError(
            f"{' and '.join(asked)}: the rows to ask about come from validation, and the task has none",
            "name a file of labelled rows in the task file, or leave this out",
        )


def _check_calibrate(program: ZeroShot | FewShot, faults: Faults) -> None:
    if program.answer == "generate" and (program.calibrate != "none" or program.normalise != "auto"):
        faults.add("calibrate and normalise are about scores; leave them out with answer=generate")


def _kinds(calibrate: Calibrate) -> frozenset[Kind]:
    if calibrate == "batch":
        return _WITH_LABELS
    return _ALL_KINDS if calibrate == "none" else _WITH_OPTIONS


def _usage(program: ZeroShot | FewShot, definition: TaskDefinition, rows: int) -> Usage:
    from taskfit.prompting.calibrating import MOST_ROWS

    asks = 4.0 if definition.kind == "choice" and program.calibrate in ("contextual", "auto") else 1.0
    asks = 2.0 if definition.kind == "choice" and program.calibrate == "pmi" else asks
    fit = float(min(rows, MOST_ROWS)) * asks if program.calibrate in ("auto", "batch") else 0.0
    fit += min(rows, program.spread) * (len(definition.wordings) + (_SPREAD_DRAWS - 1) * isinstance(program, FewShot))
    is_generated = definition.kind == "generation" or program.answer == "generate"
    by_row = getattr(program, "select", "") == "similar" or getattr(program, "order", "fixed") != "fixed"
    return Usage(requests=asks, is_generated=is_generated, fit_requests=fit, are_shots_shared=not by_row)
