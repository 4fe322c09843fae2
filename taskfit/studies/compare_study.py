"""The whole of a study in one call: plan, run, compare, recommend, report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskfit.studies.budget import StudyBudget, read_budget
from taskfit.studies.budget_plan import budget_lines
from taskfit.studies.compare import Comparison, compare_study
from taskfit.studies.events import OnEvent, StudyPlanned, StudySaid, ignore
from taskfit.studies.evidence import evidence_of, write_result
from taskfit.studies.memory import check_retained
from taskfit.studies.plan import check_disk, plan
from taskfit.studies.recommend import Recommendation, recommend
from taskfit.studies.report import write_report
from taskfit.studies.rooms import ROOMS, Rooms
from taskfit.studies.run import run
from taskfit.studies.spec import Limits, StudyConfig
from taskfit.studies.study_file import open_folder
from taskfit.studies.table import TableRow, table_of

__all__ = ["Study", "compare", "open_study", "run_study"]


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        folder: where everything of it lies.
        comparison: all candidates, the best first.
        recommendation: what to choose, in words.
        report_path: the HTML page.
    """

    folder: Path
    comparison: Comparison
    recommendation: Recommendation
    report_path: Path

    @property
    def table(self) -> tuple[TableRow, ...]:
        """One record a candidate, the best first."""
        return table_of(self.comparison, self.recommendation)


def compare(
    task_path: str | Path,
    *,
    models: Sequence[str] = (),
    strategies: Sequence[str] = StudyConfig.strategies,
    seeds: int = StudyConfig.seeds,
    max_seeds: int | None = None,
    runs_all_seeds: bool = False,
    train_sizes: Iterable[int | None] = (None,),
    volume: int = StudyConfig.volume,
    limits: Limits = StudyConfig.limits,
    usd_per_label: float = 0.0,
    timeout_s: float | None = None,
    jobs: int | None = None,
    budget: str | StudyBudget | None = None,
    hardware: str | None = None,
    machines: Sequence[str] = (),
    prices: str | Path | None = None,
    is_retrying_failed: bool = False,
    retain: Sequence[str] = (),
    out: str | Path | None = None,
    on_event: OnEvent = ignore,
) -> Study:
    """Compare strategies on a task, with evidence, and say which to choose.

    The script that calls this needs no ``if __name__ == "__main__"``.

    Args:
        task_path: the task file.
        models: names or folders; none: the embedded ones.
        strategies: names as the grammar of strategies reads them.
        seeds: number of seeds; strategies that can no longer win after their first are stopped.
        max_seeds: most seeds where the decision is still open; None: two more than ``seeds``.
        runs_all_seeds: stop none.
        train_sizes: numbers of training rows for a learning curve; None stands for all rows.
        volume: rows that will ever be predicted; decides what "cheapest" means.
        limits: what a recommended strategy may cost.
        usd_per_label: price of a labelled row.
        timeout_s: seconds after which a trial is stopped; None: never.
        jobs: most trials that run at the same time; None: as many as the machine is made for.
        budget: most that all trials together may take, over all runs, as ``30m`` or ``5usd``; None: no cap. What it
            has no room for is left out and said.
        hardware: name in the hardware price table; None: the table's default.
        machines: names in the price table; what the study would cost there is forecast in the report.
        prices: the user's own price table.
        is_retrying_failed: run failed and timed-out trials again.
        retain: files that forgetting is measured on, ``suite`` or ``none``; none named: the task file's, or the suite.
        out: the study's folder; None: ``studies/`` and the task's name. Run again with the same arguments, it goes
            on where it was stopped.
        on_event: takes what is happening, typed; see ``taskfit.studies.events``.

    Raises:
        TaskError, DataError, ConfigError, ModelError: something is wrong; nothing has run.
        StudyError: the folder belongs to another plan or is in use.
        ResourceError: the disk is full.

    >>> study = compare("examples/support/task.yaml", strategies=["majority", "linear"])  # doctest: +SKIP
    >>> print(study.recommendation.text)  # doctest: +SKIP
    """
    config = StudyConfig(
        strategies=tuple(strategies),
        models=tuple(models),
        seeds=seeds,
        max_seeds=max_seeds,
        runs_all_seeds=runs_all_seeds,
        train_sizes=tuple(train_sizes),
        volume=volume,
        limits=limits,
        usd_per_label=usd_per_label,
        timeout_s=timeout_s,
        jobs=jobs,
        budget=read_budget(budget) if isinstance(budget, str) else budget,
        hardware=hardware,
        machines=tuple(machines),
        prices=None if prices is None else Path(prices),
        is_retrying_failed=is_retrying_failed,
        retain=tuple(retain),
    )
    return run_study(Path(task_path), config, None if out is None else Path(out), on_event=on_event)


def run_study(
    task_path: Path, config: StudyConfig, out: Path | None = None, *, on_event: OnEvent = ignore, rooms: Rooms = ROOMS
) -> Study:
    """Do what :func:`compare` does, from a config."""
    task = rooms.load_task(task_path)
    check_retained(config.retain or task.retain)
    folder = Path("studies") / task.definition.name if out is None else out
    planned = plan(task, config, rooms=rooms)
    check_disk(planned, folder)
    lines = budget_lines(planned, folder)
    planned = open_folder(planned, task, folder, lambda line: on_event(StudySaid(line)))
    on_event(StudyPlanned(planned))
    for line in lines:
        on_event(StudySaid(line))
    run(planned, folder, on_event=on_event, rooms=rooms)
    return open_study(folder)


def open_study(folder: Path) -> Study:
    """Compare, recommend and report from a study's folder, however far it got.

    Raises:
        StudyError: there is no study, or it is damaged.
    """
    comparison = compare_study(folder)
    recommendation = recommend(comparison)
    write_result(comparison, recommendation, evidence_of(comparison))
    return Study(folder, comparison, recommendation, write_report(folder, comparison, recommendation))
