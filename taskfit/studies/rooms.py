"""What a study needs from the rooms below, as plain functions: a test hands over fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.studies.spec import ModelFacts

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.task import Task

__all__ = ["ROOMS", "Rooms", "describe_model", "load_model", "load_task", "parse", "take_train"]


def load_task(path: Path) -> Task:
    """Read a task file with its rows."""
    from taskfit.tasks import load_task as load

    return load(path)


def take_train(task: Task, size: int | None, seed: int) -> Task:
    """Return the task with a training subset of ``size`` rows; None: all."""
    from taskfit.tasks import take_train as take

    return take(task, size, seed)


def parse(name: str) -> Strategy:
    """Read a strategy's name."""
    from taskfit.strategy.grammar import parse as read

    return read(name)


def load_model(name: str) -> LanguageModel:
    """Load a language model."""
    from taskfit.models import load

    return load(name)


def describe_model(name: str) -> ModelFacts:
    """Load a model and say what planning needs to know of it. A service is asked whether it is there and has the model.

    Loading it whole is what shows that it can be used: a missing weight is found before anything runs.
    """
    from taskfit.inference.http_check import check_service
    from taskfit.models.service import ServiceModel

    model = load_model(name)
    if isinstance(model, ServiceModel):
        check_service(model.service)
        return ModelFacts(name, model.architecture, model.fingerprint, model.context, 0)
    weights = sum(path.stat().st_size for path in model.folder.glob("*.safetensors"))
    config = getattr(model.module, "config", None)
    values = config.to_dict() if config is not None else {}
    return ModelFacts(name, model.architecture, model.fingerprint, model.context, weights, values)


@dataclass(frozen=True)
class Rooms:
    """The functions a study calls; each must be importable by name, for it is sent to the trials' processes."""

    load_task: Callable[[Path], Task] = load_task
    take_train: Callable[[Task, int | None, int], Task] = take_train
    parse: Callable[[str], Strategy] = parse
    load_model: Callable[[str], LanguageModel] = load_model
    describe_model: Callable[[str], ModelFacts] = describe_model


ROOMS = Rooms()
