"""From the results of trials to candidates: a strategy, a model and a training size, over their seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from taskfit.studies.candidate import Candidate, Key, mean_cost
from taskfit.studies.result import TrialResult, read_trial_predictions
from taskfit.studies.scoring import outcomes_of_trial
from taskfit.studies.spec import Plan, TrialSpec, short_names
from taskfit.studies.test_rows import read_test_rows
from taskfit.tasks.definition import TaskDefinition

__all__ = ["candidates_of", "key_of", "with_intervals"]


def key_of(spec: TrialSpec) -> Key:
    """Return what a trial shares with those of its other seeds."""
    return spec.strategy, spec.model, spec.train_rows


def candidates_of(folder: Path, plan: Plan, results: Iterable[TrialResult]) -> list[Candidate]:
    """Return one candidate for each strategy, model and training size with a finished trial among ``results``.

    Raises:
        StudyError: predictions or test rows are missing or broken.
    """
    definition = TaskDefinition.from_json(plan.definition)
    groups = _groups(folder) if definition.group is not None else None
    members: dict[Key, list[TrialResult]] = {}
    for result in results:
        members.setdefault(key_of(result.spec), []).append(result)
    lucky = {key_of(spec) for spec in (*plan.trials, *plan.extra_trials) if spec.seed > 0}
    shown = short_names(facts.name for facts in plan.models)
    found = []
    for key, trials in members.items():
        done = [result for result in trials if result.is_done]
        if not done:
            continue
        strategy, model, train_rows = key
        runs = tuple(
            outcomes_of_trial(definition, read_trial_predictions(folder, result.spec.id), groups) for result in done
        )
        found.append(
            Candidate(
                strategy=strategy,
                model=model,
                train_rows=train_rows,
                model_shown=None if model is None else shown[model],
                results=tuple(done),
                failed=len(trials) - len(done),
                metrics={},
                cost=mean_cost(done, plan.price.usd_per_hour, plan.config.usd_per_label),
                runs=runs,
                has_luck=key in lucky or len(done) > 1,
            )
        )
    return with_intervals(found, definition.metrics)


def with_intervals(candidates: Sequence[Candidate], names: Sequence[str]) -> list[Candidate]:
    """Give candidates their figures with intervals, in which each knows what all of them show of the luck of seeds."""
    from taskfit.evaluation.intervals import metric_interval
    from taskfit.evaluation.paired import pooled_seed_noise

    noises = {name: pooled_seed_noise(name, [candidate.runs for candidate in candidates]) for name in names}
    return [
        replace(
            candidate,
            metrics={
                name: metric_interval(name, candidate.runs, seed_noise=noises[name] if candidate.has_luck else None)
                for name in names
            },
        )
        for candidate in candidates
    ]


def _groups(folder: Path) -> Mapping[str, str]:
    return {row.row_id: str(row.group) for row in read_test_rows(folder)}
