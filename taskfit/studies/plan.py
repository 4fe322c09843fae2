"""Plans a study: crosses models, strategies, seeds and training sizes, and checks everything before anything runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, Faults, MissingExtraError, TaskfitError
from taskfit.models.service import is_service_name
from taskfit.studies.costing import priced_service
from taskfit.studies.elsewhere import check_machines
from taskfit.studies.events import ignore_line
from taskfit.studies.forecast import Forecaster, Measured, forecaster
from taskfit.studies.jobs import threads_and_jobs, usable_cores
from taskfit.studies.needs import check_task, labels_used, other_data, uses_seed, uses_train
from taskfit.studies.plan_checks import check_config
from taskfit.studies.process import call, start_server
from taskfit.studies.ranking import FEWEST_ROWS
from taskfit.studies.rooms import ROOMS, Rooms
from taskfit.studies.spec import Limits, ModelFacts, Plan, Price, Skipped, StudyConfig, TrialSpec, trial_id
from taskfit.studies.words import count, points

if TYPE_CHECKING:
    from taskfit.costs.prices import Machine
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.task import Task, Value

__all__ = ["EMBEDDED_MODELS", "Limits", "StudyConfig", "plan"]

EMBEDDED_MODELS = ("taskfit-tiny", "minilm")
"""What is compared when no model is named: one that generates and, where it is installed, one that encodes."""

_PROBE_S = 1.0


def plan(task: Task, config: StudyConfig, *, rooms: Rooms = ROOMS) -> Plan:
    """Check everything and list the trials of a study, priced; nothing is written.

    Models are loaded once each, in a process of their own, so that a model that cannot be used is found now.

    Raises:
        ConfigError: an option, a strategy or a limit is wrong, or nothing is left to run; all faults together.
        ModelError, MissingExtraError: a named model cannot be used.
    """
    faults = Faults("study")
    strategies = _parse_all(config, rooms, faults)
    check_config(task, config, strategies, faults)
    faults.raise_as(ConfigError)
    check_machines(config.machines, config.prices)
    notes: list[str] = []
    models, speed, absent = _models(strategies, config, rooms, notes)
    skipped = list(absent)
    pairs = _pairs(strategies, models, task, skipped)
    if not pairs:
        reasons = "; ".join(f"{s.strategy}{f' on {s.model}' if s.model else ''}: {s.reason}" for s in skipped)
        raise ConfigError(f"no strategy is left to run: {reasons}", "name other strategies or models")
    price = forecaster(task, config, speed)
    trials = _trials(task, config, pairs, price, range(config.seeds))
    extra = _trials(task, config, pairs, price, range(config.seeds, config.most_seeds))
    threads, jobs = _threads_and_jobs(trials, config, speed, notes)
    return Plan(
        task_path=_path_of(task),
        task_fingerprint=task.fingerprint,
        definition=task.definition.to_json(),
        data=_data(task),
        config=replace(config, strategies=tuple(strategy.name for strategy in strategies)),
        models=models,
        trials=trials,
        extra_trials=extra,
        skipped=_grouped(skipped),
        price=Price(price.machine.name, price.machine.price_usd_per_hour, price.machine.date.isoformat()),
        detectable_difference=_detectable(task),
        notes=(*notes, *_price_notes(price.machine), *_service_notes(models, config), *_size_notes(task)),
        threads=threads,
        jobs=jobs,
    )


def check_disk(plan: Plan, folder: Path) -> None:
    """Check that the study will fit on the disk.

    Raises:
        ConfigError: less is free than the trials are expected to write.
    """
    weights = {facts.name: facts.weight_bytes for facts in plan.models}
    writing = [
        weights[s.model]
        for s in plan.trials
        if s.model is not None and s.strategy.removeprefix(_SEARCHED).startswith(_WHOLE_MODELS)
    ]
    # Saved weights in fp32 may be twice the stored ones; one trial at a time also keeps weights, best weights and
    # two moments of the optimiser in its checkpoint.
    needed = 2 * sum(writing) + 8 * max(writing, default=0) * plan.jobs + 10_000_000
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ConfigError(
            f"the study will write about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free at {existing}",
            "free some space, or give a folder on another disk with --out",
        )


_LARGE_GAP = 0.2  # a difference that no decision hangs on
_WHOLE_MODELS = ("full", "encoder", "continued-pretraining")
_SEARCHED = "tune(strategy="


def _parse_all(config: StudyConfig, rooms: Rooms, faults: Faults) -> list[Strategy]:
    found: dict[str, Strategy] = {}
    for name in config.strategies:
        try:
            strategy = rooms.parse(name)
        except TaskfitError as error:
            faults.add(error.message)
            continue
        found.setdefault(strategy.name, strategy)
    if not config.strategies:
        faults.add("strategies must name at least one (got none)")
    return list(found.values())


def _threads_and_jobs(
    trials: Sequence[TrialSpec], config: StudyConfig, measured: Measured | None, notes: list[str]
) -> tuple[int, int]:
    import psutil

    has_gpu = measured is not None and measured.is_gpu
    threads, jobs = threads_and_jobs(
        trials, cores=usable_cores(), memory_bytes=psutil.virtual_memory().total, has_gpu=has_gpu
    )
    if config.jobs is None:
        return threads, jobs
    if has_gpu and config.jobs > 1:
        notes.append(f"one trial at a time instead of {config.jobs}: they would share the GPU's memory")
        return threads, 1
    return threads, config.jobs


def _models(
    strategies: Iterable[Strategy], config: StudyConfig, rooms: Rooms, notes: list[str]
) -> tuple[tuple[ModelFacts, ...], Measured | None, list[Skipped]]:
    needy = [strategy for strategy in strategies if strategy.architectures]
    if not needy:
        if config.models:
            notes.append(f"models {', '.join(config.models)} are not used: no strategy needs one")
        return (), None, []
    found: list[ModelFacts] = []
    machine: Measured | None = None
    absent: list[Skipped] = []
    names = [*dict.fromkeys(config.models or EMBEDDED_MODELS)]
    start_server(has_models=not all(map(is_service_name, names)))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            job = (name, rooms)
            try:
                facts, measured = call(_describe, job, Path(folder) / "log.txt", ignore_line)
            except MissingExtraError as error:
                if config.models:
                    raise
                absent.append(Skipped("every strategy", name, error.message))
            else:
                found.append(facts)
                machine = measured or machine
    if machine is not None:
        notes.append(f"models compute in {machine.number_format}")
    return tuple(found), machine, absent


def _describe(job: tuple[str, Rooms], say: object) -> tuple[ModelFacts, Measured | None]:
    """Return a model's facts, and this machine's rates and number format; runs in a process of its own."""
    name, rooms = job
    facts = rooms.describe_model(name)
    if facts.architecture == "service":
        return facts, None
    import torch

    from taskfit.costs.probe import probe_machine
    from taskfit.models.dtype import fast_dtype

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_gpu = device.type == "cuda"
    return facts, Measured(probe_machine(_PROBE_S).as_accelerator(), fast_dtype(device)[1], is_gpu)


def _pairs(
    strategies: Iterable[Strategy], models: Iterable[ModelFacts], task: Task, skipped: list[Skipped]
) -> list[tuple[Strategy, ModelFacts | None]]:
    from taskfit.strategy.check import check_fit

    pairs: list[tuple[Strategy, ModelFacts | None]] = []
    for strategy in strategies:
        candidates: list[ModelFacts | None] = [*models] if strategy.architectures else [None]
        for facts in candidates:
            try:
                check_fit(
                    strategy,
                    task.definition.kind,
                    None if facts is None else facts.architecture,
                    has_masked_head=facts is not None and facts.has_masked_head,
                )
                check_task(strategy, task)
            except ConfigError as error:
                first, *listed = error.message.removeprefix(f"strategy {strategy.name!r}: ").split("\n  - ")
                reason = "; ".join(listed) if listed else first
                skipped.append(Skipped(strategy.name, None if facts is None else facts.name, reason))
            else:
                pairs.append((strategy, facts))
    return pairs


def _grouped(skipped: Iterable[Skipped]) -> tuple[Skipped, ...]:
    """Tell once what several strategies share: the same model left out for the same reason."""
    names: dict[tuple[str | None, str], list[str]] = {}
    for one in skipped:
        names.setdefault((one.model, one.reason), []).append(one.strategy)
    return tuple(Skipped(", ".join(strategies), model, reason) for (model, reason), strategies in names.items())


def _trials(
    task: Task,
    config: StudyConfig,
    pairs: Sequence[tuple[Strategy, ModelFacts | None]],
    price: Forecaster,
    seeds: range,
) -> tuple[TrialSpec, ...]:
    trials: dict[str, TrialSpec] = {}
    factors_at = 0.0 if price.calibration is None else price.calibration.at
    data = {strategy.name: other_data(strategy, task) for strategy, _ in pairs}
    for seed in seeds:
        for size in config.train_sizes:
            for strategy, facts in pairs:
                rows = None if size == len(task.train) or not uses_train(strategy) else size
                if seed > 0 and rows is None and not uses_seed(strategy):
                    continue
                model, fingerprint = (None, None) if facts is None else (facts.name, facts.fingerprint)
                other = data[strategy.name]
                key = trial_id(task.fingerprint, strategy.name, model, fingerprint, seed, rows, other)
                told = price.of(strategy, facts, rows)
                given = labels_used(strategy, task, rows)
                spec = TrialSpec(key, strategy.name, model, fingerprint, seed, rows, *told, factors_at, given)
                trials.setdefault(key, spec)
    return tuple(trials.values())


def _path_of(task: Task) -> Path:
    if task.path is None:
        raise ConfigError(
            "a study needs a task that was read from a file, for each trial reads it again (got one made in memory)",
            "write the task file and load it with load_task",
        )
    return task.path


def _data(task: Task) -> Mapping[str, Value]:
    report = task.report
    return {
        "rows": {split: len(rows) for split, rows in task.splits.items()},
        "files": dict(report.files),
        "duplicate_rows": len(report.duplicate_rows),
        "conflicting_rows": len(report.conflicting_rows),
        "moved_rows": len(report.moved_rows),
        "made_splits": list(report.made_splits),
        "notes": list(report.notes),
    }


def _detectable(task: Task) -> float | None:
    if task.definition.kind == "generation":  # its metrics are no shares of right rows
        return None
    from taskfit.evaluation.paired import minimum_detectable_difference

    return minimum_detectable_difference(len(task.test))


def _price_notes(priced: Machine) -> list[str]:
    from taskfit.costs.prices import age_warning

    warning = age_warning(priced)
    return [] if warning is None else [warning]


def _service_notes(models: Iterable[ModelFacts], config: StudyConfig) -> list[str]:
    from taskfit.costs.service_prices import service_note
    from taskfit.models.service import read_service_name

    prices = {facts.name: priced_service(facts.name, config.prices) for facts in models}
    return [service_note(read_service_name(name), price) for name, price in prices.items() if price is not None]


def _size_notes(task: Task) -> list[str]:
    from taskfit.evaluation.paired import rows_needed

    rows, gap = len(task.test), _detectable(task)
    notes = []
    if rows < FEWEST_ROWS:
        notes.append(
            f"nothing will be ranked: the test set has {count(rows, 'row')}, and at least {FEWEST_ROWS} are needed"
        )
    if gap is not None:
        wanted = gap / 2 if gap <= _LARGE_GAP else _LARGE_GAP / 2
        notes.append(
            f"{count(rows, 'test row')} can show differences in accuracy of about {points(gap)} or more; "
            f"{points(wanted)} would need about {rows_needed(wanted):,} rows"
        )
    return notes
