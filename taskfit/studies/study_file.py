"""``study.json``: the resolved plan with versions and machine, and whether a folder belongs to a plan."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import ConfigError, StudyError
from taskfit.studies.budget import StudyBudget
from taskfit.studies.events import ignore_line
from taskfit.studies.folder import locked, read_json, write_json
from taskfit.studies.jobs import usable_cores
from taskfit.studies.leaked_rows import write_leaked_rows
from taskfit.studies.memory import retained_identity
from taskfit.studies.spec import FORMAT, Limits, ModelFacts, Plan, Price, Skipped, StudyConfig, TrialSpec
from taskfit.studies.test_rows import write_test_rows
from taskfit.versions import changed_versions, versions

if TYPE_CHECKING:
    from taskfit.tasks.task import Task, Value

__all__ = ["Study", "machine", "open_folder", "read_study"]

_FILE = "study.json"
_OWN_FILES = frozenset({"study.lock"})


@dataclass(frozen=True)
class Study:
    """What ``study.json`` says.

    Attributes:
        versions: of Python and libraries when the study was made.
        machine: processor, cores, memory and system when the study was made.
    """

    folder: Path
    plan: Plan
    versions: Mapping[str, str]
    machine: Mapping[str, Value]


def open_folder(plan: Plan, task: Task, folder: Path, say: Callable[[str], None] = ignore_line) -> Plan:
    """Make the study's folder, or make sure that an existing one belongs to the same plan.

    Volume, limits, time-out, budget, jobs and prices may differ between runs: no result depends on them. The number of
    threads stays that of the first run, for the last digits of figures may hang on it. Where versions of libraries have
    changed since, a note of the plan says so, and earlier trials are kept. ``say`` takes a line of progress
    where the search for leaks takes long.

    Returns:
        The plan to run, with the threads that the study began with.

    Raises:
        StudyError: the folder belongs to another plan (each difference is named), to something else, or is in use.
        ResourceError: the disk is full.
    """
    identity = _identity(plan, task)
    if folder.exists() and not (folder / _FILE).exists() and {p.name for p in folder.iterdir()} - _OWN_FILES:
        raise StudyError(
            f"{folder} holds files and no {_FILE}: it is no study folder", "give another folder with --out"
        )
    if (folder / _FILE).exists():
        _check_identity(folder, identity)
    with locked(folder):
        if (folder / _FILE).exists():
            _check_identity(folder, identity)
            begun = read_study(folder)
            plan = replace(plan, threads=begun.plan.threads, notes=(*plan.notes, *_newer(begun.versions)))
        else:
            write_test_rows(folder, task)
            write_leaked_rows(folder, task, say)
            begun = Study(folder, plan, versions(), machine())
        write_json(folder / _FILE, _to_json(replace(begun, plan=plan), identity))
    return plan


def read_study(folder: Path) -> Study:
    """Read a study's plan from its folder.

    Raises:
        StudyError: there is no study, it is damaged, or of another format.
    """
    path = folder / _FILE
    if not path.exists():
        raise StudyError(f"{folder} is no study folder: it has no {_FILE}", "give the folder that compare wrote")
    values = read_json(path)
    if values.get("format") != FORMAT:
        raise StudyError(f"{path} has format {values.get('format')!r}; this version reads format {FORMAT}")
    try:
        raw: Any = values["plan"]
        return Study(folder, _plan_from(raw), dict(values["versions"]), dict(values["machine"]))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{path} is damaged ({type(error).__name__}: {error})", "run compare into a new folder"
        ) from error


def machine() -> dict[str, Value]:
    """Return processor, cores, memory (bytes) and system of this machine."""
    import psutil

    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _identity(plan: Plan, task: Task) -> dict[str, Value]:
    """Return what decides the results of a study."""
    retained: list[Value] = [*retained_identity(plan.config.retain or task.retain)]
    return {
        "task": plan.task_fingerprint,
        "strategies": [*sorted({_in_full(spec.strategy) for spec in plan.trials})],
        "models": {facts.name: facts.fingerprint for facts in sorted(plan.models, key=lambda f: f.name)},
        "seeds": plan.config.seeds,
        "most seeds": plan.config.most_seeds,
        "train sizes": [*sorted({str(spec.train_rows or "all") for spec in plan.trials})],
        **({"retained": retained} if retained else {}),
    }


def _in_full(name: str) -> str:
    """Spell out all parameters of a strategy: a later version's defaults are another plan, not more of this one."""
    from taskfit.strategy.grammar import full_name, parse

    try:
        return full_name(parse(name))
    except ConfigError:  # a strategy that stands in no table of this installation
        return name


def _newer(begun: Mapping[str, str]) -> list[str]:
    changed = changed_versions(begun, versions())
    line = "trials of an earlier run are kept, though since then {}; a new folder (--out) runs them all anew"
    return [line.format(", ".join(changed))] if changed else []


def _check_identity(folder: Path, identity: Mapping[str, Value]) -> None:
    stored = read_json(folder / _FILE)
    if stored.get("format") != FORMAT:
        raise StudyError(f"{folder / _FILE} has format {stored.get('format')!r}; this version writes format {FORMAT}")
    theirs = stored.get("identity")
    if not isinstance(theirs, dict):
        raise StudyError(f"{folder / _FILE} is damaged: it has no identity", "give another folder with --out")
    differing = [
        f"{name} was {_short(theirs.get(name))}, now {_short(value)}"
        for name, value in {**dict.fromkeys(theirs), **identity}.items()
        if theirs.get(name) != value
    ]
    if differing:
        raise StudyError(
            f"{folder} belongs to another plan: {'; '.join(differing)}",
            "give another folder with --out, or the same options as before",
        )


def _short(value: Value) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} ({str(fingerprint)[:12]})" for name, fingerprint in value.items()) or "none"
    return value[:12] if isinstance(value, str) else str(value)


def _to_json(study: Study, identity: Mapping[str, Value]) -> dict[str, Value]:
    content = json.dumps(identity, sort_keys=True)
    return {
        "format": FORMAT,
        "fingerprint": hashlib.sha256(content.encode("utf-8")).hexdigest(),
        "identity": dict(identity),
        "plan": _plan_to(study.plan),
        "versions": dict(study.versions),
        "machine": dict(study.machine),
    }


def _plan_to(plan: Plan) -> dict[str, Value]:
    values = asdict(plan)
    values["task_path"] = str(plan.task_path.resolve())
    prices = plan.config.prices
    values["config"]["prices"] = None if prices is None else str(prices)
    found: dict[str, Value] = json.loads(json.dumps(values, default=str))
    return found


def _plan_from(values: dict[str, Any]) -> Plan:
    config = dict(values["config"])
    config["limits"] = Limits(**config["limits"])
    config["prices"] = None if config["prices"] is None else Path(config["prices"])
    config["budget"] = None if config.get("budget") is None else StudyBudget(**config["budget"])
    config.setdefault("jobs", config.pop("workers", None))  # its name in studies of earlier versions
    for name in ("strategies", "models", "train_sizes", "retain", "machines"):
        config[name] = tuple(config.get(name, ()))
    return Plan(
        task_path=Path(values["task_path"]),
        task_fingerprint=values["task_fingerprint"],
        definition=values["definition"],
        data=values["data"],
        config=StudyConfig(**config),
        models=tuple(ModelFacts(**facts) for facts in values["models"]),
        trials=tuple(TrialSpec(**spec) for spec in values["trials"]),
        extra_trials=tuple(TrialSpec(**spec) for spec in values["extra_trials"]),
        price=Price(**values["price"]),
        skipped=tuple(Skipped(**entry) for entry in values["skipped"]),
        detectable_difference=values["detectable_difference"],
        notes=tuple(values["notes"]),
        threads=int(values.get("threads", 0)),
        jobs=int(values.get("jobs", 1)),
    )
