"""taskfit fits a pre-trained language model to your task, and shows with evidence which way to choose.

>>> import taskfit
>>> task = taskfit.load_task("examples/support/task.yaml")                      # doctest: +SKIP
>>> study = taskfit.compare("examples/support/task.yaml", out="studies/one")    # doctest: +SKIP
>>> predictor = taskfit.load_predictor(study.folder / "trials/.../predictor")   # doctest: +SKIP

Importing this package loads neither torch nor transformers; each name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_NAMES = {
    "Budget": "taskfit.strategy.contract",
    "Need": "taskfit.costs.need",
    "Prediction": "taskfit.strategy.contract",
    "StudyConfig": "taskfit.studies.plan",
    "TaskfitError": "taskfit.errors",
    "compare": "taskfit.studies.compare_study",
    "estimate": "taskfit.costs.estimate",
    "evaluate": "taskfit.studies.evaluate",
    "fit": "taskfit.studies.fit",
    "holistic": "taskfit.studies.holistic",
    "load_model": "taskfit.models.load",
    "load_predictor": "taskfit.strategy.predictor",
    "load_task": "taskfit.tasks.load",
    "parse_strategy": "taskfit.strategy.grammar",
    "prompts": "taskfit.studies.prompt_workshop",
}
_RENAMED = {"load_model": "load", "parse_strategy": "parse"}

__all__ = [
    "Budget",
    "Need",
    "Prediction",
    "StudyConfig",
    "TaskfitError",
    "__version__",
    "compare",
    "estimate",
    "evaluate",
    "fit",
    "holistic",
    "load_model",
    "load_predictor",
    "load_task",
    "parse_strategy",
    "prompts",
]

if TYPE_CHECKING:
    from taskfit.costs.estimate import estimate
    from taskfit.costs.need import Need
    from taskfit.errors import TaskfitError
    from taskfit.models.load import load as load_model
    from taskfit.strategy.contract import Budget, Prediction
    from taskfit.strategy.grammar import parse as parse_strategy
    from taskfit.strategy.predictor import load_predictor
    from taskfit.studies.compare_study import compare
    from taskfit.studies.evaluate import evaluate
    from taskfit.studies.fit import fit
    from taskfit.studies.holistic import holistic
    from taskfit.studies.plan import StudyConfig
    from taskfit.studies.prompt_workshop import prompts
    from taskfit.tasks.load import load_task


def __getattr__(name: str) -> object:
    """Fetch a public name on first use."""
    if name not in _NAMES:
        raise AttributeError(f"module 'taskfit' has no attribute {name!r}")
    value: object = getattr(import_module(_NAMES[name]), _RENAMED.get(name, name))
    globals()[name] = value
    return value
