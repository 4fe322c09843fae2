"""Mixtures: several tasks in one training set, and how much of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from taskfit.errors import DataError, Faults, TaskError, TaskfitError, nearest
from taskfit.files import named_path
from taskfit.tasks.definition import TaskDefinition
from taskfit.tasks.sources import FileSource, source_files
from taskfit.tasks.yaml_file import read_yaml

if TYPE_CHECKING:
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["FLAN_CAP", "Mixture", "allot", "load_mixture", "mixing_rates", "read_mixture"]

Sampling = Literal["proportional", "equal", "temperature"]

FLAN_CAP = 3_000
"""Rows above this give a task no further weight. Source: Wei et al. 2022 (FLAN), section 2.1."""

_KEYS = ("tasks", "sampling", "cap", "temperature")


@dataclass(frozen=True)
class Mixture:
    """Which other tasks are mixed with one, and how.

    Attributes:
        tasks: task files, without the task's own.
        sampling: ``proportional`` to the rows of each task, ``equal``, or ``temperature``: in between.
        cap: rows above this give a task no further weight; None: all count. ``equal`` does not look at it.
        temperature: of ``temperature``: 1 is proportional, infinity would be equal.
        weights: rates given for single tasks, by file, the task's own too; they go before everything else.
        own: the task's own file.
    """

    tasks: tuple[Path, ...]
    sampling: Sampling = "proportional"
    cap: int | None = FLAN_CAP
    temperature: float = 2.0
    weights: Mapping[Path, float] | None = None
    own: Path | None = None


def mixing_rates(sizes: Sequence[int], mixture: Mixture, files: Sequence[Path | None] = ()) -> tuple[float, ...]:
    """Return the share of each task in the training set; they add up to 1.

    Args:
        sizes: training rows of each task, at least 1.
        mixture: the rule.
        files: the task files in the same order; looked at where the mixture gives weights.

    With e_m rows and cap K: proportional r_m = min(e_m, K) / sum of min(e_n, K); temperature T: those numbers to the
    power 1/T, divided by their sum. Source: Raffel et al. 2020, section 3.5.2.
    """
    if mixture.weights is not None:
        rates = [mixture.weights.get(file, 1.0) if file is not None else 1.0 for file in files]
    elif mixture.sampling == "equal":
        rates = [1.0] * len(sizes)
    else:
        capped = [float(min(size, mixture.cap or size)) for size in sizes]
        exponent = 1.0 / mixture.temperature if mixture.sampling == "temperature" else 1.0
        rates = [size**exponent for size in capped]
    return tuple(rate / sum(rates) for rate in rates)


def allot(rates: Sequence[float], total: int) -> tuple[int, ...]:
    """Part ``total`` rows by rates: whole numbers that add up to it, each within 1 of its exact share.

    What is left after rounding down goes to the largest remainders, the first of equal ones first.
    """
    exact = [rate * total for rate in rates]
    shares = [math.floor(share + 1e-9) for share in exact]
    order = sorted(range(len(rates)), key=lambda place: (-(exact[place] - shares[place]), place))
    for place in order[: total - sum(shares)]:
        shares[place] += 1
    return tuple(shares)


def read_mixture(value: Value, task_file: Path, faults: Faults) -> Mixture | None:
    """Read the key ``mixture`` of a task file: a mapping, or the name of a YAML file that holds one.

    Task files in it are named relative to the file that names them. The task's own file may be among them, so that
    the tasks of one mixture can share one file; it counts once.

    Args:
        value: as it stands in the task file.
        task_file: where.
        faults: takes what is wrong.
    """
    where, beside = "mixture", task_file
    if isinstance(value, str) and value.strip():
        beside = task_file.parent / named_path(value)
        where = str(beside)
        try:
            value = read_yaml(beside)
        except TaskfitError as error:
            faults.add(f"mixture: {error.message}")
            return None
    if not isinstance(value, dict):
        faults.add(f"{where} must be a mapping with {', '.join(_KEYS)}, or a file that holds one (got {value!r})")
        return None
    for key in value:
        if key not in _KEYS:
            faults.add(f"{where}: unknown key '{key}'{nearest(key, _KEYS)}; it takes {', '.join(_KEYS)}")
    tasks, weights = _tasks(value.get("tasks"), beside, where, faults)
    if weights is not None and "sampling" in value:
        faults.add(f"{where}: give weights to the tasks, or `sampling`, not both")
    own = task_file.resolve()
    others = tuple(dict.fromkeys(path for path in tasks if path != own))
    if tasks and not others:
        faults.add(f"{where}.tasks names no task but this one")
    return Mixture(
        others,
        _sampling(value.get("sampling", "proportional"), where, faults),
        _cap(value.get("cap", FLAN_CAP), where, faults),
        _temperature(value, where, faults),
        weights,
        own,
    )


def load_mixture(task: Task) -> tuple[Task, ...]:
    """Load the other tasks of a task's mixture, without training rows whose input stands in its test or validation.

    The notes of each one's report say how many rows that left out, and nothing else.

    Raises:
        TaskError: the task has no mixture, or one of the files is wrong; the message names it.
        DataError: rows of one are wrong, or none of its training rows is left.
    """
    from dataclasses import replace

    from taskfit.tasks.load import load_task

    if task.mixture is None:
        raise TaskError(f"the task {task.definition.name!r} has no mixture", "List other task files under `mixture`.")
    found: list[Task] = []
    for path in task.mixture.tasks:
        other = load_task(path)
        kept = _not_held_out(task, other)
        if not kept:
            raise DataError(f"{path}: all training rows stand in validation or test of {task.definition.name}")
        left_out = len(other.train) - len(kept)
        note = f"{left_out} training rows of {other.definition.name} stand in validation or test and are left out"
        report = replace(other.report, notes=(note,) if left_out else ())
        found.append(replace(other, splits={**other.splits, "train": kept}, report=report))
    return tuple(found)


def _not_held_out(task: Task, other: Task) -> tuple[Row, ...]:
    """Return the other's training rows whose question stands in no test or validation row of the task.

    Options tell two questions of choice tasks apart; a task of another kind may ask the same without listing them.
    """
    of = TaskDefinition.question_text if task.definition.kind == other.definition.kind else TaskDefinition.input_text
    held_out = {of(task.definition, row) for row in (*task.test, *task.validation)}
    return tuple(row for row in other.train if of(other.definition, row) not in held_out)


def _tasks(
    value: Value, beside: Path, where: str, faults: Faults
) -> tuple[tuple[Path, ...], Mapping[Path, float] | None]:
    """The task files, and their weights where they are given."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, list | dict) else []
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        faults.add(f"{where}.tasks must list task files, or map each to a weight (got {value!r})")
        return (), None
    files = {name: _files(name, beside, where, faults) for name in cast("list[str]", names)}
    paths = tuple(path for found in files.values() for path in found)
    if not isinstance(value, dict):
        return paths, None
    weights: dict[Path, float] = {}
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            faults.add(f"{where}.tasks: the weight of {name} must be a number above 0 (got {weight!r})")
        else:
            weights.update(dict.fromkeys(files[name], float(weight)))
    return paths, weights


def _files(name: str, beside: Path, where: str, faults: Faults) -> tuple[Path, ...]:
    try:
        found = source_files(FileSource(str(beside.parent / named_path(name))))
    except TaskfitError as error:
        faults.add(f"{where}.tasks: {error.message}")
        return ()
    missing = [path for path in found if not path.is_file()]
    if missing:
        faults.add(f"{where}.tasks: no file {missing[0]}")
    return tuple(path.resolve() for path in found)


def _sampling(value: Value, where: str, faults: Faults) -> Sampling:
    if value not in get_args(Sampling):
        faults.add(f"{where}.sampling must be one of {', '.join(get_args(Sampling))} (got {value!r})")
        return "proportional"
    return cast("Sampling", value)


def _cap(value: Value, where: str, faults: Faults) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        faults.add(f"{where}.cap must be a whole number of at least 1, or null for none (got {value!r})")
        return None
    return value


def _temperature(values: Mapping[str, Value], where: str, faults: Faults) -> float:
    value = values.get("temperature", 2.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        faults.add(f"{where}.temperature must be a number of at least 1 (got {value!r})")
        return 2.0
    if "temperature" in values and values.get("sampling") != "temperature":
        faults.add(f"{where}.temperature is used with `sampling: temperature` only")
    return float(value)
