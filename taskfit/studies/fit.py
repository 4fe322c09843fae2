"""Fit one strategy, outside any study: the way to a predictor when the choice is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, PredictorError

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Predictor, Strategy

__all__ = ["fit", "model_for", "preview"]


def _ignore(line: str) -> None:
    """Drop a line."""


def fit(
    task_path: str | Path,
    strategy: str,
    *,
    model: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    train_rows: int | None = None,
    retain: Sequence[str] = (),
    say: Callable[[str], None] = _ignore,
) -> Predictor:
    """Fit one strategy on a task's training rows and return the predictor, saved if ``out`` is given.

    Args:
        task_path: the task file.
        strategy: a name such as ``lora(rank=8)+few-shot(k=2)``.
        model: a known name, a folder or a hub name; None: the default of the strategy's architecture.
        out: the predictor folder to write; it must not exist. A fit that is killed goes on from
            ``<out>.scratch`` when the same call is made again.
        seed: of everything random in the fit.
        train_rows: size of a stratified training subset; None: all rows.
        retain: files that forgetting is measured on, ``suite`` or ``none``; empty: what the task file names, or the
            shipped suite. What was forgotten is said, and stands in ``predictor.json`` under ``findings.forgetting``.
        say: takes lines of progress and findings.

    Where a launcher has started several processes, the first one measures, says and saves.

    Raises:
        TaskfitError: the task, strategy or model cannot be used; ``out`` exists; training failed.
    """
    import shutil

    from taskfit.strategy.contract import Budget
    from taskfit.strategy.grammar import parse
    from taskfit.strategy.manifest import FILE, add_findings
    from taskfit.studies.memory import remember
    from taskfit.tasks import load_task, take_train
    from taskfit.tuning.launched import is_first_process

    folder = None if out is None else Path(out)
    if folder is not None and folder.exists():
        raise PredictorError(f"{folder} exists already", "give another folder with --out, or move this one away")
    chosen = parse(strategy)
    task = take_train(load_task(task_path), train_rows, seed)
    scratch = None if folder is None else folder.with_name(folder.name + ".scratch")
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    loaded = model_for(chosen, model)
    if not is_first_process():
        return chosen.fit(loaded, task, seed=seed, budget=Budget(folder=scratch))
    budget = Budget(folder=scratch, say=say)
    memory = remember(chosen, loaded, retain or task.retain, say)
    predictor = chosen.fit(loaded, task, seed=seed, budget=budget)
    forgetting = memory.compared_with(predictor, say)
    for sentence in forgetting.sentences:
        say(sentence)
    if folder is not None:
        predictor.save(folder)
        if (folder / FILE).is_file():
            add_findings(folder, {"forgetting": forgetting.to_json()})
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    return predictor


def preview(
    task_path: str | Path,
    strategy: str,
    *,
    model: str | None = None,
    seed: int = 0,
    train_rows: int | None = None,
) -> list[str]:
    """Return lines that show what a strategy would learn, without training: arguments as for :func:`fit`.

    Raises:
        ConfigError: the strategy learns nothing that can be shown.
        TaskfitError: what :func:`fit` would raise before its first step.
    """
    from taskfit.strategy.grammar import parse
    from taskfit.tasks import load_task, take_train

    chosen = parse(strategy)
    show: Callable[..., list[str]] | None = getattr(chosen, "preview", None)
    if show is None:
        raise ConfigError(f"strategy {chosen.name!r} has no tokens to preview", "preview tunings, such as lora")
    task = take_train(load_task(task_path), train_rows, seed)
    return show(model_for(chosen, model), task, seed=seed)


def model_for(strategy: Strategy, name: str | None) -> LanguageModel | None:
    """Load the named model, or the default of the strategy's architectures; None for a strategy without a model.

    Raises:
        ConfigError: a model is named and the strategy needs none. ModelError: it cannot be used.
    """
    from taskfit.models import load
    from taskfit.models.table import default_model

    if not strategy.architectures:
        if name is not None:
            raise ConfigError(f"strategy {strategy.name!r} needs no model (got {name!r})", "leave out --model")
        return None
    return load(name if name is not None else default_model(strategy.architectures))
