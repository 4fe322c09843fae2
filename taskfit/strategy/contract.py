"""The contract that every way to adapt a model shares: strategy, predictor, prediction, program, weights change."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine, Request, Response
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.prompt import Prompt
    from taskfit.tasks.task import Kind, Row, Task, Value

__all__ = [
    "Answer",
    "Budget",
    "ChoosingProgram",
    "Elsewhere",
    "Labelling",
    "Prediction",
    "Predictor",
    "PreparedProgram",
    "Program",
    "Steps",
    "Strategy",
    "Usage",
    "WeightsChange",
]


def _say_nothing(line: str) -> None:
    """Drop a line of progress."""


def _count_nothing(model: LanguageModel) -> None:
    """Leave a further model uncounted."""


@dataclass(frozen=True)
class Budget:
    """What a fit may use, and where it may report.

    Attributes:
        wall_s: seconds after which fitting should stop with what it has; None: no limit.
        folder: scratch folder for checkpoints; None: none are written. A fit killed and started again with the same
            folder goes on where it was.
        say: takes one line of progress or of a finding the user must see (cut rows, example of what is supervised).
        count: is given every model that a strategy loads itself, before it is asked anything: a study enters what one
            behind a service costs into its own budget.
    """

    wall_s: float | None = None
    folder: Path | None = None
    say: Callable[[str], None] = _say_nothing
    count: Callable[[LanguageModel], None] = _count_nothing


@dataclass(frozen=True)
class Prediction:
    """What a predictor says about one row.

    Attributes:
        row_id: the row's id.
        answer: label value, option value, or generated text; empty when the answer could not be parsed.
        probabilities: answer value to probability, summing to 1; None where the strategy has none: where it generates
            one text. Shares of votes count as probabilities.
        tokens_in: prompt tokens read for this row.
        tokens_out: tokens generated or scored for this row.
        cut_tokens: tokens of this row's prompt left out because the context is too short.
        is_parsed: false when the model's answer was no valid answer; it is then scored as wrong, never dropped.
        raw: the text the model gave, where it generated one: what was read, or could not be read, as the answer.
        choices: for a task that is a choice and scored: the option of the highest log-probability (``raw``), and of
            the highest one a byte (``normalised``), whatever the strategy itself went by; None elsewhere.
    """

    row_id: str
    answer: str
    probabilities: Mapping[str, float] | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cut_tokens: int = 0
    is_parsed: bool = True
    raw: str = ""
    choices: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Elsewhere:
    """What a predictor computed on another model than the one that its strategy was fitted on.

    Attributes:
        model: the other one, such as a teacher's.
        fit_work: what fitting computed on it; no part of the predictor's own ``fit_work``.
        predict_work: what predicting computed on it so far; no part of the predictor's own ``predict_work``.
    """

    model: LanguageModel
    fit_work: Work
    predict_work: Work


@dataclass(frozen=True)
class Labelling:
    """What a strategy lets a teacher label before anything is learnt: for a forecast.

    Attributes:
        teacher: who labels.
        model: its name; None: the trial's.
        rows: how many, those that calibrate it included; None: as many as there are.
    """

    teacher: Strategy
    model: str | None
    rows: int | None


class Predictor(Protocol):
    """A fitted strategy.

    A predictor that used further models says so in an attribute ``elsewhere``, a tuple of :class:`Elsewhere`.
    """

    strategy: str
    definition: TaskDefinition
    fit_work: Work

    @property
    def predict_work(self) -> Work:
        """Everything computed by ``predict`` so far."""
        ...

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row, in order, in constant memory."""
        ...

    def save(self, folder: Path) -> None:
        """Write the predictor folder, whole or not at all.

        Raises:
            ResourceError: the disk is full; nothing is left behind.
        """
        ...


@runtime_checkable
class Strategy(Protocol):
    """A way to adapt a model to a task.

    A strategy that learns from training rows what a teacher says of them (shares of answers, weights, reasons: see
    :class:`taskfit.tasks.task.TeacherAnswer`) says so with an attribute ``learns_from_teacher``; ``distil`` takes only
    such students. One that lets a teacher label rows says which in an attribute ``labelling`` (:class:`Labelling`).

    Attributes:
        name: the canonical name with parameters; parsing it gives an equal strategy.
        architectures: those of models it can use; empty when it needs no model.
        kinds: kinds of tasks it can solve.
    """

    @property
    def name(self) -> str:
        """The canonical name."""
        ...

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Architectures it can use; empty: it needs no model."""
        ...

    @property
    def kinds(self) -> frozenset[Kind]:
        """Kinds of tasks it can solve."""
        ...

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> Predictor:
        """Fit on ``task.train``; ``task.validation`` may choose; ``task.test`` is never looked at.

        The model may be changed; the caller loads a fresh one for the next fit.

        Raises:
            ConfigError: the strategy cannot solve this task or cannot use this model.
        """
        ...

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> Predictor:
        """Build the predictor that was saved in ``folder``; it predicts the same.

        Args:
            model: the base model the manifest names, freshly loaded; None where ``manifest.needs_base`` is false.
            folder: the predictor folder; what stands in it is hostile until checked.
            manifest: what its ``predictor.json`` says.

        Raises:
            PredictorError: the folder is incomplete or damaged.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """What a program concludes for one row: as in :class:`Prediction`, without the counts."""

    answer: str
    probabilities: Mapping[str, float] | None = None
    is_parsed: bool = True
    raw: str = ""
    choices: Mapping[str, str] | None = None


Steps = Generator["Request | tuple[Request, ...]", "Response | tuple[Response, ...]", Answer]
"""The steps of one row: a request gets its response, a tuple of requests (one wave) the tuple of theirs."""


@dataclass(frozen=True)
class Usage:
    """What a program asks of an engine, roughly: for a forecast, never for a bill.

    Attributes:
        requests: times that a row's question is read with its examples, the text written so far with it.
        generated_tokens: tokens generated for a row besides its answer.
        is_generated: whether the answer is generated, too; otherwise the options are scored.
        fit_requests: requests made while fitting, apart from training.
        are_shots_shared: whether all rows have the same worked examples in the same order.
    """

    requests: float = 1.0
    generated_tokens: float = 0.0
    is_generated: bool = False
    fit_requests: float = 0.0
    are_shots_shared: bool = True


class PreparedProgram(Protocol):
    """A program with its choices made (demonstrations drawn, wording fixed)."""

    @property
    def wording(self) -> int:
        """Which of the task's wordings it asks in; the first of them where it asks in several."""
        ...

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the prompt whose answer is the row's target: what tuning trains on."""
        ...

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Yield a request, or a tuple of requests that do not need each other's answers; return the answer.

        One request gets its response, a tuple the tuple of its responses, in order.
        """
        ...

    def to_json(self) -> dict[str, Value]:
        """Return the choices as plain JSON values; ``Program.restore`` gives them back."""
        ...


@runtime_checkable
class Program(Protocol):
    """A prompting strategy, as a part of a strategy's name.

    A program may say more of itself, in attributes that are read where it has them: ``kinds`` (of tasks; else all),
    ``is_trainable`` (false where nothing can be trained on its prompt; else true), ``uses_seed`` and ``uses_train``
    (false where chance, or the training rows, change nothing; else true), a method ``usage(definition, rows)`` that
    returns a :class:`Usage`, ``rows`` being the number of validation rows (else one request a row), and a method
    ``check(task)`` that raises ConfigError where the task lacks what it needs, so that a plan leaves it out.
    """

    def prepare(self, task: Task, *, seed: int) -> PreparedProgram:
        """Make every choice that needs the training rows."""
        ...

    def restore(self, values: Mapping[str, Value]) -> PreparedProgram:
        """Build the prepared program from what its ``to_json`` gave.

        Raises:
            PredictorError: the values are not what ``to_json`` gives.
        """
        ...


@runtime_checkable
class ChoosingProgram(Program, Protocol):
    """A program with a second step: choices that need the model's own answers, such as calibration or a prompt."""

    def choose(
        self, prepared: PreparedProgram, task: Task, engine: Engine, *, seed: int, budget: Budget
    ) -> PreparedProgram:
        """Ask the model about validation rows, choose, and return the program with its choices made.

        It is called once, after any change of the weights, with what :meth:`Program.prepare` gave. ``task.test`` is
        never looked at. What the engine computes counts as work of the fit.
        """
        ...


@runtime_checkable
class WeightsChange(Protocol):
    """A tuning method, as a part of a strategy's name.

    It may say more of itself, in methods that are called where it has them: ``check_task(task)`` raises ConfigError or
    DataError where the task lacks what it needs, so that a plan leaves it out; ``other_data(task)`` returns a hash of
    what it learns from besides the task's own rows, which is part of a trial's id; ``preview(model, task, program, *,
    seed)`` returns lines that show what it would learn.
    """

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Architectures it can change."""
        ...

    def change(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget) -> Work:
        """Train the model's weights, in place, to give the target after the program's prompt.

        Returns:
            What was computed.

        Raises:
            TrainingError: a row set without a supervised token; the loss is not finite.
        """
        ...

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write the changed weights into an existing folder: PEFT's format for adapters, a model folder otherwise."""
        ...

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Give the changed model back.

        Args:
            model: the base model that the predictor names, freshly loaded; None where the folder holds all weights.
            folder: the predictor folder.

        Raises:
            PredictorError: weights are missing, superfluous or of another shape. Nothing is ever skipped silently.
        """
        ...


@dataclass(frozen=True)
class StrategyEntry:
    """A row of the strategy table.

    Attributes:
        target: ``module:Class``, imported on first use: a frozen dataclass whose fields are the parameters.
        part: ``program``, ``weights``, ``pretraining`` (one of each compose with +) or ``whole`` (stands alone).
        summary: one line for ``taskfit strategies``.
        source: paper and section, or "" for a floor.
    """

    target: str
    part: str
    summary: str
    source: str = field(default="")
