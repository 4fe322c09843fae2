"""Joins the trials of a study: figures with intervals, costs, and a paired comparison of each with the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import StudyError
from taskfit.studies.candidate import Candidate
from taskfit.studies.candidates import candidates_of
from taskfit.studies.left_out import in_words, read_left_out
from taskfit.studies.ranking import FEWEST_ROWS, by_figure, looks_of, rank
from taskfit.studies.result import TrialResult, read_result
from taskfit.studies.schedule import next_trials
from taskfit.studies.spent import Spent, read_spent
from taskfit.studies.study_file import Study, read_study
from taskfit.studies.test_rows import read_test_rows
from taskfit.tasks.definition import TaskDefinition

if TYPE_CHECKING:
    from taskfit.evaluation.winner import Winner

__all__ = ["Comparison", "compare_study"]


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
        missing: trials that are still to run.
        left_out: what the budget had no room for, a line for each strategy, model and training size.
        spent: by all runs of the study.
    """

    study: Study
    definition: TaskDefinition
    metric: str
    rows: int
    candidates: tuple[Candidate, ...]
    winner: Winner | None
    failures: tuple[TrialResult, ...]
    missing: int
    left_out: tuple[str, ...] = ()
    spent: Spent = field(default_factory=Spent)

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
    plan, metric, test = study.plan, definition.metrics[0], read_test_rows(folder)
    specs = (*plan.trials, *plan.extra_trials)
    results = [result for spec in specs if (result := read_result(folder, spec)) is not None]
    found = {result.spec.id: result for result in results}
    left_out = {trial: why for trial, why in read_left_out(folder).items() if trial not in found}
    schedule = next_trials(plan, folder, found, left_out)
    candidates = [replace(c, stopped=schedule.stopped.get(c.key, "")) for c in candidates_of(folder, plan, results)]
    has_enough = len(test) >= FEWEST_ROWS
    ranked = rank(candidates, metric, looks_of(plan)) if has_enough else by_figure(candidates, metric)
    return Comparison(
        study=study,
        definition=definition,
        metric=metric,
        rows=len(test),
        candidates=tuple(_with_pareto(ranked, metric, plan.config.volume)),
        winner=_winner(ranked, metric) if has_enough else None,
        failures=tuple(result for result in results if not result.is_done),
        missing=schedule.open_trials,
        left_out=in_words(plan, left_out),
        spent=read_spent(folder),
    )


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
