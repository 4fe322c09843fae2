"""A strategy made of parts: a change of the weights, a program, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from taskfit.errors import ConfigError
from taskfit.models.work import Work
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Program, WeightsChange
from taskfit.strategy.grammar import part_name
from taskfit.strategy.manifest import new_manifest
from taskfit.strategy.predictor import ProgramPredictor, example_text
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
    """

    weights: WeightsChange | None
    program: Program

    @property
    def name(self) -> str:
        """The canonical name; the default program is left out beside a change of weights."""
        if self.weights is None:
            return part_name(self.program)
        if self.program == default_program():
            return part_name(self.weights)
        return f"{part_name(self.weights)}+{part_name(self.program)}"

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Models that generate, as far as the change of weights can use them."""
        generating: frozenset[Architecture] = frozenset({"decoder", "encoder-decoder"})
        return generating if self.weights is None else generating & self.weights.architectures

    @property
    def kinds(self) -> frozenset[Kind]:
        """All kinds."""
        return frozenset({"classification", "choice", "generation"})

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> ProgramPredictor:
        """Make the program's choices, then train the weights on its prompts.

        Raises:
            ConfigError: the model or the task does not suit.
            TrainingError: training failed.
        """
        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        model = _given(model, self.name)
        prepared = self.program.prepare(task, seed=seed)
        work = Work()
        if self.weights is not None:
            work = self.weights.change(model, task, prepared, seed=seed, budget=budget)
        manifest = new_manifest(
            self, task, seed=seed, model=model, needs_base=True, state=prepared.to_json(), fit_work=work
        )
        shown = (task.validation or task.train)[0]
        return ProgramPredictor(manifest, model, prepared, self.weights, example_text(task.definition, prepared, shown))

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> ProgramPredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        prepared = self.program.restore(manifest.state)
        if self.weights is not None:
            model = self.weights.load(model, folder)
        return ProgramPredictor.from_folder(folder, manifest, _given(model, self.name), prepared, self.weights)


def _given(model: LanguageModel | None, name: str) -> LanguageModel:
    if model is None:
        raise ConfigError(f"strategy {name!r} needs a model (got none)")
    return model
