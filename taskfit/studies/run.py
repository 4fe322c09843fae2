"""Runs the trials of a plan that are missing, one process each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from taskfit.errors import ResourceError
from taskfit.files import remove_unfinished
from taskfit.models.service import is_service_name
from taskfit.studies.candidate import Key
from taskfit.studies.candidates import key_of
from taskfit.studies.events import CandidateStopped, OnEvent, TrialEnded, TrialFound, TrialSaid, TrialStarted, ignore
from taskfit.studies.folder import locked
from taskfit.studies.process import Child, Raised, start, start_server, wait_any
from taskfit.studies.result import TrialResult, read_result, work_folder, write_trial
from taskfit.studies.rooms import ROOMS, Rooms
from taskfit.studies.schedule import Schedule, next_trials
from taskfit.studies.spec import Plan, StudyConfig, TrialSpec
from taskfit.studies.trial import TrialJob, run_trial

__all__ = ["must_run", "run", "usable_cores"]

_POLL_S = 0.5
_OUTSIDE_SIGNALS = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})
_MEMORY_HINT = "most often the machine ran out of memory: take fewer --workers, a smaller model, or a larger machine"


def run(plan: Plan, folder: Path, *, on_event: OnEvent = ignore, rooms: Rooms = ROOMS) -> list[TrialResult]:
    """Run what is missing of the plan and return the results of all trials that it came to, in the plan's order.

    Finished trials are kept. Failed and timed-out ones too, unless ``config.is_retrying_failed`` or the time-out has
    been raised since; killed ones and those that lacked disk or memory are run again, for the cause lies outside
    them. A damaged trial folder is run again. ``folder`` is where ``study.json`` of this plan lies.

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


def usable_cores() -> int:
    """Return the number of processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # this system does not say
        return os.cpu_count() or 1


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
    total: int = 0

    def run(self) -> list[TrialResult]:
        """Run all that is missing, step by step, as finished trials decide what comes next."""
        for spec in self._specs:
            earlier = read_result(self.folder, spec)
            if earlier is not None and not must_run(earlier, self.plan.config):
                self.found[spec.id] = earlier
        while True:
            schedule = next_trials(self.plan, self.folder, self.found | self.results)
            self._tell(schedule)
            if not schedule.waiting:
                break
            self._run_all(schedule.waiting)
        found = self.found | self.results
        return [found[spec.id] for spec in self._specs if spec.id in found]

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
        self.waiting = list(specs)
        models = {spec.model for spec in self.plan.trials if spec.model is not None}
        start_server(has_models=not all(map(is_service_name, models)))
        try:
            while self.waiting or self.running:
                self._start_some()
                wait_any([trial.child for trial in self.running], _POLL_S)
                for trial in list(self.running):
                    self._look_at(trial)
        finally:
            for trial in self.running:
                trial.child.kill()

    def _start_some(self) -> None:
        while self.waiting and len(self.running) < self.plan.config.workers:
            left_s = self._left_s()
            spec = self.waiting.pop(0)
            number = len(self.found) + len(self.results) + len(self.running) + 1
            self.on_event(TrialStarted(spec, number, self.total, left_s))
            log = work_folder(self.folder, spec.id).resolve() / "log.txt"
            log.unlink(missing_ok=True)
            self.running.append(_Running(spec, start(run_trial, self._job(spec), log)))

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
        result = self._result(trial, wall_s, is_late=is_late and not has_ended)
        trial.child.close()
        self.running.remove(trial)
        self.results[trial.spec.id] = result
        done = len(self.found) + len(self.results)
        self.on_event(TrialEnded(result, done, self.total, self._left_s()))

    def _result(self, trial: _Running, wall_s: float, is_late: bool) -> TrialResult:
        work = work_folder(self.folder, trial.spec.id)
        found = read_result(self.folder, trial.spec)
        if found is not None and found.is_done:  # even when it was killed a moment after
            shutil.rmtree(work, ignore_errors=True)
            return found
        timeout_s = self.plan.config.timeout_s
        result = _late(trial.spec, wall_s, timeout_s) if is_late else _failure(trial, wall_s, timeout_s)
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
            threads=max(1, usable_cores() // config.workers),
            hardware=config.hardware,
            prices=config.prices,
            timeout_s=config.timeout_s,
            rooms=self.rooms,
        )

    def _left_s(self) -> float | None:
        ended = self.found | self.results
        running = {trial.spec.id for trial in self.running}
        specs = [spec for spec in self.plan.trials if spec.id not in ended and spec.id not in running]
        later = [spec for spec in self.waiting if spec.seed >= self.plan.config.seeds]
        expected = [self._expected_s(spec) for spec in (*specs, *later) if key_of(spec) not in self.stopped]
        for trial in self.running:
            seconds = self._expected_s(trial.spec)
            expected.append(None if seconds is None else max(0.0, seconds - trial.wall_s))
        return _sum_known(expected, self.plan.config.workers)

    def _expected_s(self, spec: TrialSpec) -> float | None:
        alike = [
            r.wall_s for r in self.results.values() if (r.spec.strategy, r.spec.model) == (spec.strategy, spec.model)
        ]
        return sum(alike) / len(alike) if alike else spec.forecast_s


def _sum_known(seconds: Iterable[float | None], workers: int) -> float | None:
    total = 0.0
    for value in seconds:
        if value is None:
            return None
        total += value
    return total / workers


def _late(spec: TrialSpec, wall_s: float, timeout_s: float | None) -> TrialResult:
    message = f"stopped after {wall_s:.0f} s; the limit is {timeout_s:g} s"
    hint = "raise --timeout-s: the trial then goes on from its last checkpoint"
    return TrialResult(spec, "timed-out", "TimeOut", message, hint, wall_s=wall_s, timeout_s=timeout_s)


def _failure(trial: _Running, wall_s: float, timeout_s: float | None) -> TrialResult:
    def result(status: str, reason: str, message: str, hint: str | None) -> TrialResult:
        return TrialResult(trial.spec, status, reason, message, hint, wall_s=wall_s, timeout_s=timeout_s)  # type: ignore[arg-type]

    outcome, name, code = trial.child.outcome, trial.child.signal_name, trial.child.exit_code
    if isinstance(outcome, Raised):
        return result("failed", outcome.reason, outcome.message, outcome.hint)
    if name in _OUTSIDE_SIGNALS:
        return result("killed", name, f"killed from outside by {name} after {wall_s:.0f} s", _MEMORY_HINT)
    if name is not None:
        return result("failed", name, f"crashed with {name} after {wall_s:.0f} s", "log.txt holds the traceback")
    if code == _LOST_EXIT_CODE:
        return result("killed", "lost", f"its process was lost after {wall_s:.0f} s", _MEMORY_HINT)
    return result("failed", "exit", f"its process ended with code {code} and wrote no result", "log.txt may say why")


_LOST_EXIT_CODE = 255
"""What multiprocessing gives when the fork server itself is gone."""
