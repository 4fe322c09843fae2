"""A strategy made of parts: a change of the weights, a program, or both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from taskfit.errors import ConfigError
from taskfit.models.work import Work
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import ChoosingProgram, Program, WeightsChange
from taskfit.strategy.grammar import part_name
from taskfit.strategy.manifest import new_manifest
from taskfit.strategy.predictor import ProgramPredictor, engine_for, example_text
from taskfit.strategy.stages import Stages
from taskfit.strategy.table import load_class

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.strategy.contract import Budget
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.task import Kind, Task

__all__ = ["Composed", "default_program"]

_DEFAULT_PROGRAM = "zero-shot"


def default_program() -> Program:
    """Return the program of a strategy that names none: the task's first wording, without examples."""
    return cast("Program", load_class(_DEFAULT_PROGRAM)())


@dataclass(frozen=True)
class Composed:
    """Weights, if any, trained to answer the program's prompts; then the program asks.

    Attributes:
        weights: None: the base model answers as it is.
        program: what is asked, in training and in prediction alike.
        pretraining: goes before ``weights`` where there is one; alone it is the change of weights.
    """

    weights: WeightsChange | None
    program: Program
    pretraining: WeightsChange | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not getattr(self.program, "is_trainable", True):
            raise ConfigError(
                f"{part_name(self.weights)} cannot be joined with {part_name(self.program)}: what that program asks is "
                "known only while it asks, so there is no prompt to train on",
                "train with zero-shot or few-shot, or use the program without a change of the weights",
            )

    @property
    def name(self) -> str:
        """The canonical name; the default program is left out beside a change of weights."""
        if self.weights is None:
            return part_name(self.program)
        shown = [part_name(part) for part in (self.pretraining, self.weights) if part is not None]
        if self.program != default_program():
            shown.append(part_name(self.program))
        return "+".join(shown)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Models that generate, services among them; encoders for programs that only score.

        A change of weights narrows them to those it can use.
        """
        generating: frozenset[Architecture] = frozenset({"decoder", "encoder-decoder", "service"})
        if (change := self.change) is not None:
            return generating & change.architectures
        return generating | {"encoder"} if getattr(self.program, "only_scores", False) else generating

    @property
    def change(self) -> WeightsChange | None:
        """What is done to the weights, all of it."""
        if self.pretraining is None or self.weights is None:
            return self.weights
        return Stages(self.pretraining, self.weights)

    def check_task(self, task: Task) -> None:
        """Let every part say whether the task has what it needs: wordings, rationales, a mixture, text.

        Raises:
            ConfigError, DataError: it has not.
        """
        for part, name in ((self.program, "check"), (self.pretraining, "check_task"), (self.weights, "check_task")):
            check = getattr(part, name, None)
            if check is not None:
                check(task)

    def preview(self, model: LanguageModel | None, task: Task, *, seed: int) -> list[str]:
        """Return lines that show what would be learned, without training.

        Raises:
            ConfigError: nothing would be learned, or the model or the task does not suit.
            TrainingError: rows cannot be learned from.
        """
        if self.weights is None:
            raise ConfigError(f"strategy {self.name!r} trains nothing, so there is nothing to preview")
        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        self.check_task(task)
        model, prepared = _given(model, self.name), self.program.prepare(task, seed=seed)
        lines: list[str] = []
        for part in (self.pretraining, self.weights):
            show = getattr(part, "preview", None)
            lines += [] if show is None else show(model, task, prepared, seed=seed)
        return lines

    def other_data(self, task: Task) -> str:
        """Return a hash of what is learned from besides the task's own rows; empty where there is nothing."""
        finders = (getattr(part, "other_data", None) for part in (self.pretraining, self.weights))
        return "\n".join(filter(None, (find(task) for find in finders if find is not None)))

    @property
    def kinds(self) -> frozenset[Kind]:
        """Those of the program; all where it does not say."""
        every: frozenset[Kind] = frozenset({"classification", "choice", "generation"})
        return getattr(self.program, "kinds", every)

    @property
    def uses_seed(self) -> bool:
        """Whether two seeds may give different predictors from the same rows."""
        return self.weights is not None or bool(getattr(self.program, "uses_seed", True))

    @property
    def learns_from_teacher(self) -> bool:
        """Whether it learns what a teacher says of training rows: what only prompts reads no shares and no weights."""
        return self.weights is not None

    @property
    def can_go_on(self) -> bool:
        """Whether :meth:`go_on` can train a fitted predictor further: where all weights are its own."""
        return self.pretraining is None and getattr(self.weights, "trains", "") == "all"

    def go_on(self, predictor: ProgramPredictor, task: Task, *, seed: int, budget: Budget) -> ProgramPredictor:
        """Train a fitted predictor further on other training rows, with a schedule of its own; in place.

        Raises:
            TrainingError: training has diverged.
        """
        fitted = self.fit(predictor.model, task, seed=seed, budget=budget)
        fitted.fit_work += predictor.fit_work
        fitted.manifest = replace(fitted.manifest, fit_work=fitted.fit_work)
        return fitted

    @property
    def uses_train(self) -> bool:
        """Whether the training rows matter."""
        return self.weights is not None or bool(getattr(self.program, "uses_train", True))

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> ProgramPredictor:
        """Make the program's choices, train the weights on its prompts, then let the program choose by asking.

        Raises:
            ConfigError: the model or the task does not suit.
            TrainingError: training failed.
        """
        architecture = None if model is None else model.architecture
        fills_masks = model is not None and architecture == "encoder" and model.has_masked_head
        check_fit(self, task.definition.kind, architecture, has_masked_head=fills_masks)
        model = _given(model, self.name)
        self.check_task(task)
        prepared = self.program.prepare(task, seed=seed)
        work, change = Work(), self.change
        if change is not None:
            work = change.change(model, task, prepared, seed=seed, budget=budget)
        if isinstance(self.program, ChoosingProgram):
            engine = engine_for(model)
            prepared = self.program.choose(prepared, task, engine, seed=seed, budget=budget)
            work += engine.work
        manifest = new_manifest(
            self, task, seed=seed, model=model, needs_base=True, state=prepared.to_json(), fit_work=work
        )
        rows = task.validation or task.train  # neither where a program that learns nothing labels a task without rows
        example = example_text(task.definition, prepared, rows[0]) if rows else ""
        return ProgramPredictor(manifest, model, prepared, change, example)

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> ProgramPredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        prepared = self.program.restore(manifest.state)
        change = self.change
        if change is not None:
            model = change.load(model, folder)
        return ProgramPredictor.from_folder(folder, manifest, _given(model, self.name), prepared, change)


def _given(model: LanguageModel | None, name: str) -> LanguageModel:
    if model is None:
        raise ConfigError(f"strategy {name!r} needs a model (got none)")
    return model
