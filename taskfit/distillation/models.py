"""Models that a part of a strategy names itself, besides the one that the trial is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskfit.distillation.teacher import only_prompts
from taskfit.strategy.contract import Elsewhere

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, Strategy

__all__ = ["elsewhere", "faults_of_sharing", "given_model", "shared_architectures"]


def given_model(
    part: Strategy, named: str | None, trials: LanguageModel | None, budget: Budget
) -> LanguageModel | None:
    """Return the model of one part: the one that it names, else the trial's; None where it needs none.

    Args:
        part: of the strategy.
        named: the model of its own, by name; None: the trial's.
        trials: the trial's model.
        budget: told of a model that is loaded here.

    Raises:
        ModelError, MissingExtraError: the named model cannot be used.
    """
    if not part.architectures:
        return None
    if named is None:
        return trials
    from taskfit.models import load

    model = load(named)
    budget.count(model)
    return model


def shared_architectures(*parts: tuple[Strategy, str | None]) -> frozenset[Architecture]:
    """Return the architectures that the trial's model may have: those that all parts can use that name no other."""
    sets = [part.architectures for part, named in parts if part.architectures and named is None]
    return frozenset.intersection(*sets) if sets else frozenset()


def faults_of_sharing(*parts: tuple[Strategy, str | None], last_may_train: bool = False) -> list[str]:
    """Return why parts cannot do with the models that they name, in sentences; empty where they can.

    Args:
        parts: with the name of a model of their own, or None for the trial's; in the order in which they use it.
        last_may_train: whether the last part may change the trial's model, because no other asks it afterwards.
    """
    faults = [
        f"{part.name} needs no model (got {named!r} for it)"
        for part, named in parts
        if named and not part.architectures
    ]
    sharing = [part for part, named in parts if part.architectures and named is None]
    if len(sharing) < 2:
        return faults
    if not shared_architectures(*parts):
        names = " and ".join(part.name for part in sharing)
        return [*faults, f"no model suits both {names}; name another one for one of them"]
    trained = [part.name for part in (sharing[:-1] if last_may_train else sharing) if not only_prompts(part)]
    if trained:
        faults.append(
            f"{' and '.join(trained)} would change the model that both parts use; take a student without a model "
            "(linear), parts that only prompt, or name another model for one of them"
        )
    return faults


def elsewhere(model: LanguageModel | None, trials: LanguageModel | None, fit: Work, predict: Work) -> Elsewhere | None:
    """Return what was computed on ``model``, where that is not the trial's, whose own counts hold it then."""
    is_trials = model is not None and trials is not None and model.fingerprint == trials.fingerprint
    return None if model is None or is_trials else Elsewhere(model, fit, predict)
