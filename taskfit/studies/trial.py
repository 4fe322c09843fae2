"""One trial, from data to folder: fit, predict, score, price, write."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from taskfit.costs.meter import Meter, folder_bytes
from taskfit.costs.trial_cost import FurtherModel, trial_cost
from taskfit.errors import StudyError
from taskfit.studies.costing import architecture_of, priced_machine, priced_service
from taskfit.studies.folder import disk_full_named
from taskfit.studies.memory import remember
from taskfit.studies.predictions import StoredPrediction, stored
from taskfit.studies.report_cascade import found_by_cascade
from taskfit.studies.result import TrialResult, trial_folder, work_folder, write_trial
from taskfit.studies.rooms import ROOMS, Rooms
from taskfit.studies.scoring import score_all
from taskfit.studies.search_gain import found_by_search
from taskfit.studies.spec import TrialSpec
from taskfit.versions import versions

if TYPE_CHECKING:
    from taskfit.costs.trial_cost import TrialCost
    from taskfit.models.language_model import LanguageModel
    from taskfit.models.service import ServiceModel
    from taskfit.strategy.contract import Budget, Elsewhere, Prediction, Predictor, Strategy
    from taskfit.tasks.task import Task, Value

__all__ = ["TrialJob", "run_trial"]

_WAIT_S = 30.0


@dataclass(frozen=True)
class TrialJob:
    """Everything a trial's process is given.

    Attributes:
        study: the study's folder.
        task_fingerprint: of the task as planned.
        threads: most threads for computing.
        hardware: name in the price table; None: its default.
        prices: the user's price table.
        retain: what forgetting is measured on; see :func:`taskfit.evaluation.retained.read_retained`.
        shared_cores: of the machine, where other trials may run at the same time; 0: it runs alone.
        budget_usd: of the whole study; None: no cap in money.
        usd_per_hour: of the machine.
    """

    study: Path
    spec: TrialSpec
    task_path: Path
    task_fingerprint: str
    threads: int
    hardware: str | None = None
    prices: Path | None = None
    timeout_s: float | None = None
    retain: tuple[str, ...] = ()
    shared_cores: int = 0
    budget_usd: float | None = None
    usd_per_hour: float = 0.0
    rooms: Rooms = ROOMS


def run_trial(job: TrialJob, say: Callable[[str], None]) -> None:
    """Run the trial and write its folder, whole or not at all.

    Args:
        job: what to run, and where.
        say: takes one line of progress or of a finding.

    Raises:
        StudyError: the data or the model are no longer those of the plan.
        ResourceError: the disk is full.
        TaskfitError: whatever the strategy reports as the user's to mend.
    """
    with _alone(job):
        _run(job, say)


def _run(job: TrialJob, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    spec, notes = job.spec, list[str]()
    task = _task(job)
    strategy = job.rooms.parse(spec.strategy)
    model = _model(job)
    architecture = architecture_of(_config_of(model))  # before fitting wraps the model
    _use_threads(job.threads)
    memory = remember(strategy, model, job.retain or task.retain, say)
    _seed_everything(spec.seed)
    with Meter("fit") as fit:
        predictor = strategy.fit(model, task, seed=spec.seed, budget=_budget(job, say, notes))
    with Meter("predict") as predict:
        predictions = list(predictor.predict(task.test))
    _note_cache(predictor, notes)
    notes.extend(getattr(predictor, "notes", ()))
    findings: dict[str, Value] = {"forgetting": memory.compared_with(predictor, say).to_json()}
    rows = _joined(task, strategy, predictions)
    saved = _save(job, predictor)
    findings |= found_by_search(saved) | found_by_cascade(saved)
    cost = trial_cost(
        fit.measured,
        predict.measured,
        predictor.fit_work,
        predictor.predict_work,
        rows_predicted=len(rows),
        artefact_bytes=folder_bytes(saved),
        architecture=architecture,
        needs_model=model is not None,
        machine=priced_machine(job.hardware, job.prices),
        service=priced_service(spec.model, job.prices),
        shared_cores=job.shared_cores,
        further=[_further(one, job) for one in getattr(predictor, "elsewhere", ())],
    )
    if not job.shared_cores:  # seconds beside others would spoil what forecasts learn from
        _note_forecast(spec, strategy, cost)
    _note_cost(saved, cost.to_json(), findings)
    result = TrialResult(
        spec,
        "done",
        metrics=score_all(task.definition, rows),
        cost=cost.to_json(),
        counts=_counts(rows) | {"dropped_shots": predictor.predict_work.dropped_shots},
        versions=versions(),
        notes=tuple(notes),
        findings=findings,
        wall_s=time.monotonic() - started,
        timeout_s=job.timeout_s,
    )
    sys.stdout.flush()
    write_trial(job.study, result, rows, saved, work_folder(job.study, spec.id) / "log.txt")


def _config_of(model: LanguageModel | None) -> Mapping[str, Value] | None:
    if model is None or model.architecture == "service":
        return None
    config = getattr(model.module, "config", None)
    values: Mapping[str, Value] | None = None if config is None else config.to_dict()
    return values


def _further(one: Elsewhere, job: TrialJob) -> FurtherModel:
    """Price what a strategy did on a model that it named itself."""
    is_service = one.model.architecture == "service"
    price = priced_service(one.model.name, job.prices) if is_service else None
    return FurtherModel(architecture_of(_config_of(one.model)), price, one.fit_work, one.predict_work)


def _note_cache(predictor: Predictor, notes: list[str]) -> None:
    cached = (predictor.fit_work + predictor.predict_work).cached_answers
    if cached:
        notes.append(f"{cached} answers came from the cache: the seconds are not the service's; tokens and money are")


def _save(job: TrialJob, predictor: Predictor) -> Path:
    folder = work_folder(job.study, job.spec.id) / "predictor"
    shutil.rmtree(folder, ignore_errors=True)
    with disk_full_named(trial_folder(job.study, job.spec.id), folder):
        predictor.save(folder)
    return folder


def _note_forecast(spec: TrialSpec, strategy: Strategy, cost: TrialCost) -> None:
    from taskfit.costs.forecast_log import note_trial
    from taskfit.studies.forecast import told, trains

    found = told(spec, "no model" if spec.model is None else trains(strategy), cost)
    if found is not None:
        note_trial(found)


def _note_cost(saved: Path, cost: Mapping[str, Value], findings: Mapping[str, Value]) -> None:
    from taskfit.strategy.manifest import add_cost, add_findings

    if (saved / "predictor.json").exists():
        add_cost(saved, cost)
        add_findings(saved, findings)


@contextmanager
def _alone(job: TrialJob) -> Iterator[None]:
    # A study killed and started again at once may meet its own trial in its last moments.
    folder = work_folder(job.study, job.spec.id)
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _WAIT_S
    with (folder / "lock").open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StudyError(f"trial {job.spec.id} is still being run by another process") from None
                time.sleep(0.05)
        yield


def _task(job: TrialJob) -> Task:
    task = job.rooms.load_task(job.task_path)
    if task.fingerprint != job.task_fingerprint:
        raise StudyError(
            f"{job.task_path} or its data changed since the study was planned "
            f"(fingerprint {task.fingerprint[:12]}, planned {job.task_fingerprint[:12]})",
            "start a new study with another --out",
        )
    return job.rooms.take_train(task, job.spec.train_rows, job.spec.seed)


def _model(job: TrialJob) -> LanguageModel | None:
    if job.spec.model is None:
        return None
    model = job.rooms.load_model(job.spec.model)
    if model.fingerprint != job.spec.model_fingerprint:
        raise StudyError(
            f"model {job.spec.model} changed since the study was planned "
            f"(fingerprint {model.fingerprint[:12]}, planned {str(job.spec.model_fingerprint)[:12]})",
            "start a new study with another --out",
        )
    _count(job, model)
    return model


def _count(job: TrialJob, model: LanguageModel) -> None:
    """Enter what a model behind a service costs into the study's budget."""
    price = priced_service(model.name, job.prices) if model.architecture == "service" else None
    if price is not None:
        from taskfit.studies.spent import give_purse

        rates = (price.usd_per_mtok_in, price.usd_per_mtok_out)
        give_purse(cast("ServiceModel", model), rates, job.study, job.budget_usd, job.usd_per_hour)


def _budget(job: TrialJob, say: Callable[[str], None], notes: list[str]) -> Budget:
    from taskfit.strategy.contract import Budget

    def note(line: str) -> None:
        notes.append(line)
        print(line, flush=True)  # noqa: T201  (the trial's log)
        say(line)

    scratch = work_folder(job.study, job.spec.id) / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return Budget(folder=scratch, say=note, count=partial(_count, job))


def _seed_everything(seed: int) -> None:
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _use_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _joined(task: Task, strategy: Strategy, predictions: Sequence[Prediction]) -> list[StoredPrediction]:
    expected, got = [row.id for row in task.test], [prediction.row_id for prediction in predictions]
    if expected != got:
        at = next(
            (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got))
        )
        raise RuntimeError(
            f"{strategy.name} must predict every test row once and in order: "
            f"{len(expected)} rows, {len(got)} predictions, first difference at position {at}"
        )
    return [stored(p, task.definition.gold(row)) for row, p in zip(task.test, predictions, strict=True)]


def _counts(rows: Sequence[StoredPrediction]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "unparsed_rows": sum(not row.is_parsed for row in rows),
        "cut_rows": sum(row.cut_tokens > 0 for row in rows),
        "cut_tokens": sum(row.cut_tokens for row in rows),
        "tokens_in": sum(row.tokens_in for row in rows),
        "tokens_out": sum(row.tokens_out for row in rows),
    }
