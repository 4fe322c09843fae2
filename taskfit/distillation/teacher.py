"""The teacher: any strategy or saved predictor, fitted once, and asked so that no answer is paid for twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from taskfit.distillation.digests import folder_digest
from taskfit.distillation.purse import LedgerSpending
from taskfit.errors import ConfigError
from taskfit.strategy.grammar import full_name, parse
from taskfit.strategy.manifest import read_manifest
from taskfit.strategy.predictor import ProgramPredictor, load_predictor
from taskfit.tasks.identity import fingerprint

if TYPE_CHECKING:
    from taskfit.distillation.ledger import Ledger
    from taskfit.inference.http_limits import RateLimit, Spending
    from taskfit.models.language_model import LanguageModel
    from taskfit.models.service import ServiceModel
    from taskfit.strategy.contract import Budget, Predictor, Strategy
    from taskfit.tasks.task import Row, Task

__all__ = ["Teacher", "human_rows", "load_teacher", "name_teacher", "only_prompts", "usd_of"]


@dataclass(frozen=True)
class Teacher:
    """Who labels.

    Attributes:
        strategy: None where a folder is given.
        folder: of a saved predictor; None where a strategy is given.
        model: that the strategy is fitted on, or that the folder's predictor needs; None: none, or the folder's own.
    """

    strategy: Strategy | None
    folder: Path | None
    model: LanguageModel | None

    @property
    def identity(self) -> Mapping[str, str]:
        """What its labels depend on besides the task and the seed."""
        model = {} if self.model is None else {"model": self.model.fingerprint}
        if self.strategy is not None:
            return {"teacher": full_name(self.strategy), **model}
        assert self.folder is not None
        return {
            "teacher": f"{read_manifest(self.folder).strategy} in a folder {folder_digest(self.folder)[:16]}",
            **model,
        }

    @property
    def may_have_learnt(self) -> bool:
        """Whether labelled rows may have had a say in a saved predictor: not in one that only asks."""
        if self.folder is None:
            return True
        name = read_manifest(self.folder).strategy
        return not name.startswith("zero-shot") or replace(self, strategy=parse(name)).chooses_on_validation

    @property
    def chooses_on_validation(self) -> bool:
        """Whether validation rows had a say in what it answers."""
        weights = getattr(self.strategy, "weights", True)
        program = getattr(self.strategy, "program", None)
        settled = (
            weights is None and getattr(program, "calibrate", None) == "none" and not getattr(program, "spread", 1)
        )
        return not settled


def name_teacher(text: str, model: Callable[[Strategy], LanguageModel | None], given: LanguageModel | None) -> Teacher:
    """Return the teacher that a user names: the folder of a saved predictor, or a strategy.

    Args:
        text: path or name.
        model: loads the model for a strategy.
        given: the model to take for a folder's predictor; None: the one it names.

    Raises:
        ConfigError: it is neither.
    """
    folder = Path(text)
    if (folder / "predictor.json").is_file():
        return Teacher(None, folder, given)
    if folder.is_dir():
        raise ConfigError(f"{folder} is a folder without predictor.json: no saved predictor")
    strategy = parse(text)
    return Teacher(strategy, None, model(strategy))


def load_teacher(
    teacher: Teacher,
    task: Task,
    ledger: Ledger,
    folder: Path,
    *,
    seed: int,
    max_usd: float | None,
    budget: Budget,
    answers: Path | None = None,
) -> Predictor:
    """Fit the teacher and save it in ``folder``, or load what an earlier run saved there.

    Caps are kept in the ledger, across runs and processes. A teacher that changes its model's weights gets the base
    model afresh when it is loaded.

    Args:
        teacher: who labels.
        task: what it is fitted on, but for the rows that judge it.
        ledger: counts what is spent.
        folder: where it is saved.
        seed: of its fit.
        max_usd: most that all runs may spend; None: no cap of ours.
        budget: takes lines of progress, and the model that a saved teacher brings.
        answers: a file that keeps a service's answers across runs; None: the user's cache, where the service's name
            asks for one.

    Raises:
        ConfigError: a cap on a teacher that costs nothing, or whose price is not known. TaskfitError: it cannot be
            fitted or loaded.
    """
    _give_purse(teacher, ledger, max_usd)
    saved = teacher.folder or folder / "teacher"
    if not (saved / "predictor.json").is_file():
        assert teacher.strategy is not None
        if not any(task.splits.values()) and getattr(teacher.strategy, "uses_train", True):
            raise ConfigError(
                f"teacher {teacher.strategy.name!r} learns from labelled rows, and the task has none",
                "take zero-shot, or a predictor fitted elsewhere",
            )
        fitted_on = _for_fitting(teacher, task, seed)
        teacher.strategy.fit(teacher.model, fitted_on, seed=seed, budget=replace(budget, folder=None)).save(saved)
    is_as_it_was = teacher.strategy is None or only_prompts(teacher.strategy)
    predictor = load_predictor(saved, model=teacher.model if is_as_it_was else None)
    if predictor.definition.kind != task.definition.kind or predictor.definition.labels != task.definition.labels:
        raise ConfigError(
            f"the teacher was made for task {predictor.definition.name!r}, whose kind or labels are others than those "
            f"of {task.definition.name!r}",
            "give a predictor that was fitted on this task, or a strategy",
        )
    if isinstance(predictor, ProgramPredictor) and predictor.model.architecture == "service":
        from taskfit.strategy.service import service_engine

        if teacher.model is None:
            budget.count(predictor.model)
            _give_purse(replace(teacher, model=predictor.model), ledger, max_usd)
        predictor.engine = service_engine(predictor.model, cache=answers)
    return predictor


def only_prompts(part: Strategy) -> bool:
    """Return whether a strategy leaves its model as it is: a program without a change of weights."""
    return hasattr(part, "program") and getattr(part, "weights", None) is None


def human_rows(teacher: Teacher, task: Task, most: int, seed: int) -> tuple[Row, ...]:
    """Return up to ``most`` rows with right answers that the teacher did not see when it was fitted.

    They come from validation; of a teacher that chooses on validation, from the half that it is not given.
    """
    from taskfit.distillation.choosing import shuffled

    rows = shuffled(task.validation, seed)
    if teacher.strategy is not None and teacher.chooses_on_validation:
        rows = rows[len(rows) // 2 :]
    return tuple(rows[:most])


def usd_of(predictor: Predictor, tokens_in: int, tokens_out: int) -> float | None:
    """Return the price of some tokens of a teacher behind a service; None where there is none, or it is not known."""
    price = getattr(getattr(predictor, "model", None), "usd_per_mtok", None)
    return None if price is None else float(tokens_in * price[0] + tokens_out * price[1]) / 1e6


def _for_fitting(teacher: Teacher, task: Task, seed: int) -> Task:
    """Return the task without the validation rows that will judge the teacher."""
    if not teacher.chooses_on_validation:
        return task
    held = {row.id for row in human_rows(teacher, task, len(task.validation), seed)}
    splits = {**task.splits, "validation": tuple(row for row in task.validation if row.id not in held)}
    return replace(task, splits=splits, fingerprint=fingerprint(task.definition, splits))


def _give_purse(teacher: Teacher, ledger: Ledger, max_usd: float | None) -> None:
    """Let all engines of a service's model count in the ledger, and in whatever they counted in before."""
    model = teacher.model
    if model is None or model.architecture != "service":
        if max_usd is not None and not (model is None and teacher.folder is not None):
            raise ConfigError(
                "a cap in money is for teachers behind a service; this one costs none", "leave out max_usd"
            )
        return
    from taskfit.costs.prices import load_prices
    from taskfit.costs.service_prices import find_service_price
    from taskfit.inference.http_limits import RateLimit

    of_service: ServiceModel = model  # type: ignore[assignment]
    service = of_service.service
    if of_service.usd_per_mtok is None:
        price = find_service_price(service, load_prices())
        of_service.usd_per_mtok = None if price is None else (price.usd_per_mtok_in, price.usd_per_mtok_out)
    caps = [cap for cap in (max_usd, service.max_usd) if cap is not None]
    if caps and of_service.usd_per_mtok is None:
        raise ConfigError(
            f"a cap in money needs the price of {service.host}",
            "Give usd_in and usd_out in the model's name, in US dollars per million tokens.",
        )
    usd_in, usd_out = of_service.usd_per_mtok or (0.0, 0.0)
    outer = None if of_service.limits is None else cast("tuple[Spending, RateLimit]", of_service.limits)[0]
    if isinstance(outer, LedgerSpending):  # of an earlier run in this process, whose ledger may be closed
        outer = outer.outer
    spending = LedgerSpending(ledger.connection, usd_in, usd_out, min(caps, default=None), service.max_tokens, outer)
    of_service.limits = (spending, RateLimit(service.requests_per_minute, service.tokens_per_minute))
