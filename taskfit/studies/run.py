"""Runs the trials of a plan that are missing, one process each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from taskfit.errors import ResourceError
from taskfit.files import remove_unfinished
from taskfit.models.service import is_service_name
from taskfit.studies.candidate import Key
from taskfit.studies.candidates import key_of
from taskfit.studies.events import (
    CandidateStopped,
    OnEvent,
    TrialEnded,
    TrialFound,
    TrialLeftOut,
    TrialSaid,
    TrialStarted,
    ignore,
)
from taskfit.studies.expected import expected_s
from taskfit.studies.folder import locked
from taskfit.studies.jobs import has_room, usable_cores
from taskfit.studies.left_out import cheapest_first, write_left_out
from taskfit.studies.outcome import failed_result, late_result
from taskfit.studies.process import Child, Raised, start, start_server, wait_any
from taskfit.studies.result import TrialResult, read_result, work_folder, write_trial
from taskfit.studies.rooms import ROOMS, Rooms
from taskfit.studies.schedule import Schedule, next_trials
from taskfit.studies.spec import Plan, StudyConfig, TrialSpec
from taskfit.studies.spent import OUT_OF_BUDGET, Purse
from taskfit.studies.trial import TrialJob, run_trial
from taskfit.studies.words import seconds

__all__ = ["must_run", "run"]

_POLL_S = 0.5


def run(plan: Plan, folder: Path, *, on_event: OnEvent = ignore, rooms: Rooms = ROOMS) -> list[TrialResult]:
    """Run what is missing of the plan and return the results of all trials that it came to, in the plan's order.

    Finished trials are kept. Failed and timed-out ones too, unless ``config.is_retrying_failed`` or the time-out has
    been raised since; killed ones and those that lacked disk or memory are run again, for the cause lies outside
    them. A damaged trial folder is run again. ``folder`` is where ``study.json`` of this plan lies.

    Under a budget the first seed of everything runs before any second, the cheapest first; what is expected to take
    more than is left is not started, and what runs when the budget is spent is stopped. Both are kept with the reason
    (``taskfit.studies.left_out``), and run by a later call with a larger budget.

    Raises:
        StudyError: another process works on the folder.
        KeyboardInterrupt: after the running trials were stopped; what is finished stays.
    """
    with locked(folder):
        (folder / "trials").mkdir(exist_ok=True)
        remove_unfinished(folder / "trials")
        return _Session(plan, folder, on_event, rooms).run()


def must_run(result: TrialResult | None, config: StudyConfig) -> bool:
    """True when a trial with this earlier result (None: none, or damaged) has to run."""
    if result is None or result.status == "killed" or result.reason == "ResourceError":
        return True
    if result.is_done:
        return False
    return config.is_retrying_failed or (
        result.status == "timed-out" and _is_longer(config.timeout_s, result.timeout_s)
    )


def _is_longer(timeout_s: float | None, earlier_s: float | None) -> bool:
    return earlier_s is not None and (timeout_s is None or timeout_s > earlier_s)


@dataclass
class _Running:
    spec: TrialSpec
    child: Child[None]

    @property
    def wall_s(self) -> float:
        began_at = self.child.began_at
        return 0.0 if began_at is None else time.monotonic() - began_at


@dataclass
class _Session:
    """One call of :func:`run`: what waits, what runs, what was found finished and what has ended since."""

    plan: Plan
    folder: Path
    on_event: OnEvent
    rooms: Rooms
    waiting: list[TrialSpec] = field(default_factory=list)
    running: list[_Running] = field(default_factory=list)
    found: dict[str, TrialResult] = field(default_factory=dict)
    results: dict[str, TrialResult] = field(default_factory=dict)
    stopped: set[Key] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    purse: Purse | None = None
    total: int = 0

    def run(self) -> list[TrialResult]:
        """Run all that is missing, step by step, as finished trials decide what comes next."""
        for spec in self._specs:
            earlier = read_result(self.folder, spec)
            if earlier is not None and not must_run(earlier, self.plan.config):
                self.found[spec.id] = earlier
        try:
            while True:
                schedule = next_trials(self.plan, self.folder, self._ended, self.left_out.keys())
                self._tell(schedule)
                if not schedule.waiting:
                    break
                self._run_all(schedule.waiting)
        finally:
            if self.purse is not None:
                self.purse.close()
        write_left_out(self.folder, self.left_out)
        return [self._ended[spec.id] for spec in self._specs if spec.id in self._ended]

    @property
    def _ended(self) -> dict[str, TrialResult]:
        return self.found | self.results

    @property
    def _specs(self) -> tuple[TrialSpec, ...]:
        return (*self.plan.trials, *self.plan.extra_trials)

    def _tell(self, schedule: Schedule) -> None:
        """Report what was found of earlier runs, once, and who is stopped."""
        if self.total == 0:
            self.total = len(self.found) + schedule.open_trials
            for number, earlier in enumerate(self.found.values(), 1):
                self.on_event(TrialFound(earlier, number, self.total))
        self.total = len(self.found) + len(self.results) + schedule.open_trials
        for key, why in schedule.stopped.items():
            if key not in self.stopped:
                self.stopped.add(key)
                spec = next(spec for spec in self.plan.trials if key_of(spec) == key)
                self.on_event(CandidateStopped(spec, why))

    def _run_all(self, specs: Sequence[TrialSpec]) -> None:
        config = self.plan.config
        if self.purse is None:
            self.purse = Purse(self.folder, config.budget, self.plan.price.usd_per_hour)
            write_left_out(self.folder, {})  # of an earlier run, for which this one may make up
        self.waiting = list(specs)
        if config.budget is not None:
            self.waiting = cheapest_first(specs, {spec.id: self._expected_s(spec) for spec in specs})
        models = {spec.model for spec in self.plan.trials if spec.model is not None}
        start_server(has_models=not all(map(is_service_name, models)))
        try:
            while self.waiting or self.running:
                self._start_some(self.purse)
                wait_any([trial.child for trial in self.running], min(_POLL_S, max(0.0, self.purse.left_s())))
                self.purse.count(is_working=any(trial.child.began_at is not None for trial in self.running))
                for trial in list(self.running):
                    self._look_at(trial)
                if self.purse.left_s() <= 0:
                    self._stop_running()
        finally:
            for trial in self.running:
                trial.child.kill()

    def _start_some(self, purse: Purse) -> None:
        memory = psutil.virtual_memory().total
        while self.waiting and len(self.running) < self.plan.jobs:
            spec = self.waiting[0]
            why = purse.why_not(self._expected_s(spec), self._promised_usd(spec))
            if not why and not has_room(spec, [trial.spec for trial in self.running], memory):
                return
            self.waiting.pop(0)
            if why:
                self._leave_out(spec, why)
            else:
                self._start(spec)

    def _start(self, spec: TrialSpec) -> None:
        number = len(self.found) + len(self.results) + len(self.running) + 1
        self.on_event(TrialStarted(spec, number, self.total, self._left_s(spec)))
        log = work_folder(self.folder, spec.id).resolve() / "log.txt"
        log.unlink(missing_ok=True)
        self.running.append(_Running(spec, start(run_trial, self._job(spec), log)))

    def _leave_out(self, spec: TrialSpec, why: str) -> None:
        self.left_out[spec.id] = why
        write_left_out(self.folder, self.left_out)
        self.on_event(TrialLeftOut(spec, why))

    def _stop_running(self) -> None:
        """Stop what runs when the budget is spent; it keeps its scratch folder, to go on from."""
        for trial in list(self.running):
            wall_s = trial.wall_s
            trial.child.kill()
            trial.child.close()
            self.running.remove(trial)
            found = read_result(self.folder, trial.spec)
            if found is not None and found.is_done:  # in its last moments
                self._end(found)
            else:
                self._leave_out(trial.spec, f"stopped after {seconds(wall_s)}, when the budget was spent")

    def _look_at(self, trial: _Running) -> None:
        has_ended = trial.child.has_ended  # before the last messages are read, so that none is missed
        for line in trial.child.lines():
            self.on_event(TrialSaid(trial.spec, line))
        timeout_s = self.plan.config.timeout_s
        is_late = timeout_s is not None and trial.wall_s > timeout_s
        if not (has_ended or is_late):
            return
        wall_s = trial.wall_s
        trial.child.kill()
        outcome = trial.child.outcome
        if isinstance(outcome, Raised) and outcome.message.startswith(OUT_OF_BUDGET):
            trial.child.close()
            self.running.remove(trial)
            self._leave_out(trial.spec, f"stopped after {seconds(wall_s)}: {outcome.message}")
            return
        result = self._result(trial, wall_s, is_late=is_late and not has_ended)
        trial.child.close()
        self.running.remove(trial)
        self._end(result)

    def _end(self, result: TrialResult) -> None:
        self.results[result.spec.id] = result
        self.on_event(TrialEnded(result, len(self._ended), self.total, self._left_s()))

    def _result(self, trial: _Running, wall_s: float, is_late: bool) -> TrialResult:
        work = work_folder(self.folder, trial.spec.id)
        found = read_result(self.folder, trial.spec)
        if found is not None and found.is_done:  # even when it was killed a moment after
            shutil.rmtree(work, ignore_errors=True)
            return found
        timeout_s = self.plan.config.timeout_s
        if is_late:
            result = late_result(trial.spec, wall_s, timeout_s)
        else:
            result = failed_result(trial.spec, trial.child, wall_s, timeout_s)
        with suppress(ResourceError):  # a failure that cannot be noted is found again by the next run
            write_trial(self.folder, result, log=work / "log.txt")
        if result.status == "failed":
            shutil.rmtree(work, ignore_errors=True)
        return result

    def _job(self, spec: TrialSpec) -> TrialJob:
        config = self.plan.config
        return TrialJob(
            study=self.folder.resolve(),
            spec=spec,
            task_path=self.plan.task_path.resolve(),
            task_fingerprint=self.plan.task_fingerprint,
            threads=self.plan.threads or usable_cores(),
            hardware=config.hardware,
            shared_cores=0 if self.plan.jobs == 1 else usable_cores(),
            budget_usd=None if config.budget is None else config.budget.usd,
            usd_per_hour=self.plan.price.usd_per_hour,
            retain=config.retain,
            prices=config.prices,
            timeout_s=config.timeout_s,
            rooms=self.rooms,
        )

    def _left_s(self, *starting: TrialSpec) -> float | None:
        known = self._ended.keys() | self.left_out.keys() | {trial.spec.id for trial in self.running}
        specs = [spec for spec in self.plan.trials if spec.id not in known]
        later = [spec for spec in self.waiting if spec.seed >= self.plan.config.seeds]
        ahead = {spec.id: spec for spec in (*specs, *later, *starting) if key_of(spec) not in self.stopped}
        expected = [self._expected_s(spec) for spec in ahead.values()]
        for trial in self.running:
            whole_s = self._expected_s(trial.spec)
            expected.append(None if whole_s is None else max(0.0, whole_s - trial.wall_s))
        left = _sum_known(expected, self.plan.jobs)
        return left if left is None or self.purse is None else min(left, max(0.0, self.purse.left_s()))

    def _expected_s(self, spec: TrialSpec) -> float | None:
        return expected_s(spec, self._ended.values())

    def _promised_usd(self, spec: TrialSpec) -> float:
        """Money to services of a trial to be started, and of those that run."""
        models = [one for one in (spec, *(trial.spec for trial in self.running)) if _is_service(one)]
        return sum(one.forecast_usd or 0.0 for one in models)


def _is_service(spec: TrialSpec) -> bool:
    return spec.model is not None and is_service_name(spec.model)


def _sum_known(seconds: Iterable[float | None], jobs: int) -> float | None:
    total = 0.0
    for value in seconds:
        if value is None:
            return None
        total += value
    return total / jobs
