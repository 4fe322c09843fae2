"""Search a strategy's parameters on validation rows: equal effort for all that are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from taskfit.errors import ConfigError, Faults, TaskfitError
from taskfit.strategy.contract import Strategy
from taskfit.strategy.grammar import parse, part_name
from taskfit.strategy.parameters import check_positive, check_types
from taskfit.strategy.space import part_of, searchable
from taskfit.studies.search_plan import MOST_TRIES, effort

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.strategy.contract import Budget, Predictor
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.task import Kind, Task

__all__ = ["DEFAULT_TRIES", "Tune", "with_search"]

DEFAULT_TRIES = 8
"""Points that are tried where neither tries nor seconds are given."""


@dataclass(frozen=True)
class Tune:
    """Search the parameters of a strategy on validation rows, by successive halving; test rows are never looked at.

    The defaults are always tried, and trained whole, so that it is known what the search bought. Parameters that the
    strategy's name sets stay as they are. What comes out is the best point's predictor; all tries count as its fit.
    Eight tries cost six trainings: short ones first, and half of the points go on with twice the steps.

    Source: Jamieson and Talwalkar 2016, section 2.
    """

    strategy: Strategy
    """What is searched, such as ``lora`` or ``lora(rank=4)+few-shot(k=2)``."""
    tries: int | None = None
    """Points tried, the defaults among them; none: eight, or as many as ``seconds`` allow."""
    seconds: float | None = None
    """Instead of tries: about how long to search, told from how long the defaults take."""

    def __post_init__(self) -> None:
        faults = Faults("tune")
        check_types(self, faults)
        if self.tries is not None and not 1 <= self.tries <= MOST_TRIES:
            faults.add(f"tries must be between 1 and {MOST_TRIES} (got {self.tries})")
        check_positive("seconds", self.seconds, faults)
        if self.tries is not None and self.seconds is not None:
            faults.add("give tries or seconds, not both")
        if isinstance(self.strategy, Tune):
            faults.add(f"strategy is searched already (got {self.strategy.name})")
        elif isinstance(self.strategy, Strategy) and not searchable(self.strategy):
            faults.add(f"{self.strategy.name} has nothing to search: {_why_not(self.strategy)}")
        faults.raise_as(ConfigError)

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Those of the searched strategy."""
        return self.strategy.architectures

    @property
    def kinds(self) -> frozenset[Kind]:
        """Those of the searched strategy."""
        return self.strategy.kinds

    @property
    def weights(self) -> Any:  # a change of weights, as a composed strategy has it, or None
        """The searched strategy's change of weights, if it has one."""
        return getattr(self.strategy, "weights", None)

    @property
    def program(self) -> Any:  # a program, as a composed strategy has it, or None
        """The searched strategy's program, if it has one."""
        return getattr(self.strategy, "program", None)

    @property
    def learns_from_teacher(self) -> bool:
        """Whether the searched strategy does."""
        return bool(getattr(self.strategy, "learns_from_teacher", False))

    @property
    def effort(self) -> float:
        """What the search costs at most, in trainings of the default; for a forecast."""
        tries = self.tries or DEFAULT_TRIES
        return effort(tries, has_steps=hasattr(part_of(self.strategy), "max_steps"))

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> Predictor:
        """Search, and return the best point's predictor.

        Raises:
            ConfigError: the strategy does not suit the model or the task, or there are no validation rows.
            TrainingError: every try failed.
            StudyError: the budget's folder holds another search.
        """
        from taskfit.studies.search_run import search

        if not task.validation:
            raise ConfigError(
                f"{self.name} chooses on validation rows, and the task has none",
                "let the task file cut some from its training rows, or fit the strategy without tune",
            )
        if budget.folder is not None:
            return search(self, model, task, seed=seed, budget=budget, folder=budget.folder)
        with TemporaryDirectory(prefix="taskfit-") as folder:
            return search(self, model, task, seed=seed, budget=budget, folder=Path(folder))

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> Predictor:
        """Build the saved predictor: it is the chosen point's, whose full name its manifest holds."""
        return parse(manifest.strategy_in_full).restore(model, folder, manifest)


def with_search(name: str, *, tries: int | None, seconds: float | None) -> str:
    """Return the name of the strategy with a search around it, where there is something to search.

    A name that says ``tune`` itself stays as it is, and so does one that cannot be read: whoever fits it says why.

    Raises:
        ConfigError: tries or seconds are out of range, or both are given.
    """
    if tries is None and seconds is None:
        return name
    try:
        strategy = parse(name)
    except TaskfitError:
        return name
    if isinstance(strategy, Tune) or not searchable(strategy):
        return name
    return Tune(strategy, tries, seconds).name


def _why_not(strategy: Strategy) -> str:
    space = getattr(type(part_of(strategy)), "space", {})
    if not space:
        return "no space of parameters is declared for it"
    return f"its name sets all of {', '.join(space)}"
