"""Joins the trials of a study: figures with intervals, costs, and a paired comparison of each with the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import StudyError
from taskfit.studies.candidate import Candidate, mean_cost
from taskfit.studies.result import TrialResult, read_result, read_trial_predictions
from taskfit.studies.scoring import outcomes_of_trial
from taskfit.studies.spec import short_names
from taskfit.studies.study_file import Study, read_study
from taskfit.studies.test_rows import read_test_rows
from taskfit.tasks.definition import TaskDefinition

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.evaluation.paired import PairedComparison
    from taskfit.evaluation.winner import Winner

__all__ = ["FEWEST_ROWS", "LEVEL", "Comparison", "Versus", "against_best", "compare_study", "rank"]

LEVEL = 0.05
"""Two candidates are told apart when the p-value is below this and the interval of their difference leaves out 0."""

FEWEST_ROWS = 20
"""With fewer test rows nothing is ranked: even 10 of 10 against 5 of 10 is a toss-up."""


@dataclass(frozen=True)
class Comparison:
    """All that a study found, ready to be recommended from and reported.

    Attributes:
        study: the plan, with versions and machine.
        definition: the task's.
        metric: the one that decides: the task's first.
        rows: number of test rows.
        candidates: the best on the metric first.
        winner: the best one's figure corrected for having been picked; None with fewer than two candidates.
        failures: trials that did not finish.
        missing: trials that have not run.
    """

    study: Study
    definition: TaskDefinition
    metric: str
    rows: int
    candidates: tuple[Candidate, ...]
    winner: Winner | None
    failures: tuple[TrialResult, ...]
    missing: int

    @property
    def volume(self) -> int:
        """Rows that will ever be predicted."""
        return self.study.plan.config.volume

    @property
    def has_enough_rows(self) -> bool:
        """True when there are enough test rows to rank anything."""
        return self.rows >= FEWEST_ROWS


def compare_study(folder: Path) -> Comparison:
    """Compare the finished trials in a study's folder; the same folder always gives the same comparison.

    Raises:
        StudyError: there is no study, or it is damaged.
    """
    study = read_study(folder)
    definition = TaskDefinition.from_json(study.plan.definition)
    results = [result for spec in study.plan.trials if (result := read_result(folder, spec)) is not None]
    test = read_test_rows(folder)
    groups = {row.row_id: str(row.group) for row in test} if definition.group is not None else None
    candidates = _candidates(study, definition, results, groups)
    metric = definition.metrics[0]
    ranked = rank(candidates, metric) if len(test) >= FEWEST_ROWS else _by_figure(candidates, metric)
    return Comparison(
        study=study,
        definition=definition,
        metric=metric,
        rows=len(test),
        candidates=tuple(_with_pareto(ranked, metric, study.plan.config.volume)),
        winner=_winner(ranked, metric) if len(test) >= FEWEST_ROWS else None,
        failures=tuple(result for result in results if not result.is_done),
        missing=len(study.plan.trials) - len(results),
    )


def rank(candidates: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Sort by the metric and compare each with the best one, row by row; the p-values are adjusted together."""
    ordered = _by_figure(candidates, metric)
    if not ordered:
        return []
    others = [
        replace(candidate, versus_best=versus.comparison, p_value=versus.p_value, is_tied=versus.is_tied)
        for candidate, versus in zip(
            ordered[1:], against_best(metric, [candidate.runs for candidate in ordered]), strict=True
        )
    ]
    return [replace(ordered[0], versus_best=None, p_value=None, is_tied=True), *others]


@dataclass(frozen=True)
class Versus:
    """One of several beside the best of them.

    Attributes:
        comparison: this one minus the best, paired by row.
        p_value: of that difference, adjusted by Holm for all comparisons made.
        is_tied: true when it cannot be told apart from the best.
    """

    comparison: PairedComparison
    p_value: float
    is_tied: bool


def against_best(metric: str, runs: Sequence[Sequence[Outcomes]]) -> list[Versus]:
    """Compare all but the first with the first, row by row; the p-values are adjusted together.

    Args:
        metric: what is compared.
        runs: the runs of each, the best first.

    Source: Holm 1979 for the adjustment.
    """
    from taskfit.evaluation.paired import compare_paired, holm, pooled_seed_noise

    noise = pooled_seed_noise(metric, runs)
    compared = [compare_paired(metric, other, runs[0], seed_noise=noise) for other in runs[1:]]
    adjusted = holm([comparison.p_value for comparison in compared])
    return [
        Versus(comparison, p, p >= LEVEL or comparison.low <= 0 <= comparison.high)
        for comparison, p in zip(compared, adjusted, strict=True)
    ]


def _candidates(
    study: Study,
    definition: TaskDefinition,
    results: Sequence[TrialResult],
    groups: Mapping[str, str] | None,
) -> list[Candidate]:
    from taskfit.evaluation.intervals import metric_interval

    members: dict[tuple[str, str | None, int | None], list[TrialResult]] = {}
    for result in results:
        spec = result.spec
        members.setdefault((spec.strategy, spec.model, spec.train_rows), []).append(result)
    shown = short_names(facts.name for facts in study.plan.models)
    candidates = []
    for (strategy, model, train_rows), trials in members.items():
        done = [result for result in trials if result.is_done]
        if not done:
            continue
        predictions = [read_trial_predictions(study.folder, result.spec.id) for result in done]
        runs = tuple(outcomes_of_trial(definition, rows, groups) for rows in predictions)
        metrics = {name: metric_interval(name, runs) for name in definition.metrics}
        failed = len(trials) - len(done)
        cost = mean_cost(done, study.plan.price.usd_per_hour)
        candidates.append(
            Candidate(
                strategy=strategy,
                model=model,
                train_rows=train_rows,
                model_shown=None if model is None else shown[model],
                results=tuple(done),
                failed=failed,
                metrics=metrics,
                cost=cost,
                runs=runs,
            )
        )
    return candidates


def _by_figure(candidates: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Sort the best first; of equal ones the cheaper per row."""
    return sorted(candidates, key=lambda c: (-c.metrics[metric].value, c.cost.usd_per_row, c.label))


def _with_pareto(candidates: Sequence[Candidate], metric: str, volume: int) -> list[Candidate]:
    """Mark those that no other beats in both figure and total cost."""

    def is_beaten(one: Candidate) -> bool:
        value, usd = one.metrics[metric].value, one.cost.total_usd(volume)
        return any(
            other.metrics[metric].value >= value
            and other.cost.total_usd(volume) <= usd
            and (other.metrics[metric].value > value or other.cost.total_usd(volume) < usd)
            for other in candidates
        )

    return [replace(candidate, is_pareto=not is_beaten(candidate)) for candidate in candidates]


def _winner(candidates: Sequence[Candidate], metric: str) -> Winner | None:
    from taskfit.evaluation.winner import corrected_winner

    if len(candidates) < 2:
        return None
    runs = {candidate.label: candidate.runs for candidate in candidates}
    if len(runs) < len(candidates):
        raise StudyError("two candidates of the study have the same name; run compare into a new folder")
    return corrected_winner(metric, runs)
