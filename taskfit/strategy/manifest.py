"""``predictor.json``: what a predictor folder says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from taskfit.errors import Faults, PredictorError, TaskfitError
from taskfit.models.work import Work
from taskfit.strategy.folder import write_file
from taskfit.strategy.grammar import full_name
from taskfit.versions import versions

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Strategy
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Task, Value

__all__ = [
    "BaseModel",
    "Manifest",
    "add_cost",
    "add_findings",
    "new_manifest",
    "read_json",
    "read_manifest",
    "write_manifest",
]

FORMAT = 1
FILE = "predictor.json"
_T = TypeVar("_T")
_LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class BaseModel:
    """The model a predictor was fitted on.

    Attributes:
        name: as the user gave it.
        folder: where its files lay; empty for a service.
        fingerprint: of its files; another model is refused.
        dtype: number format it predicted in, such as ``float32``; ``service`` for a service.
    """

    name: str
    folder: str
    fingerprint: str
    architecture: str
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """A predictor folder without its weights.

    Attributes:
        strategy: canonical name.
        strategy_in_full: the name with every parameter spelled out; this one is loaded, so that a later change of a
            default changes no saved predictor.
        seed: of the fit.
        definition: the task without its rows.
        task_fingerprint: of the task with its rows.
        base: the model; None where the strategy uses none.
        needs_base: whether loading needs the base model's own files; false where the folder holds all weights.
        state: what the strategy needs back, in its own terms (demonstrations, class shares).
        fit_work: what fitting computed.
        versions: of the packages that shape predictions.
        cost: what was measured, in the caller's terms; None: nothing was.
        findings: what else was found of the fit, by name (``forgetting``), in the caller's terms.
        search: how the parameters were found, every try with its score; None: they were not searched.
    """

    strategy: str
    strategy_in_full: str
    seed: int
    definition: TaskDefinition
    task_fingerprint: str
    base: BaseModel | None
    needs_base: bool
    state: Mapping[str, Value]
    fit_work: Work
    versions: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, Value] | None = None
    findings: Mapping[str, Value] = field(default_factory=dict)
    search: Mapping[str, Value] | None = None


def new_manifest(
    strategy: Strategy,
    task: Task,
    *,
    seed: int,
    model: LanguageModel | None,
    needs_base: bool,
    state: Mapping[str, Value],
    fit_work: Work,
) -> Manifest:
    """Return the manifest of a predictor just fitted.

    Args:
        strategy: the fitted strategy.
        task: what it was fitted on; only its definition and fingerprint are kept.
        seed: of the fit.
        model: the model it was fitted on, or None.
        needs_base: whether loading will need that model's own files.
        state: JSON values that ``strategy.restore`` needs.
        fit_work: what fitting computed.
    """
    return Manifest(
        strategy=strategy.name,
        strategy_in_full=full_name(strategy),
        seed=seed,
        definition=task.definition,
        task_fingerprint=task.fingerprint,
        base=None if model is None else _base_of(model),
        needs_base=needs_base,
        state=state,
        fit_work=fit_work,
        versions=versions(),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``predictor.json`` into an existing folder, whole or not at all.

    Raises:
        ResourceError: the disk is full.
    """
    values = {
        "format": FORMAT,
        "strategy": manifest.strategy,
        "strategy_in_full": manifest.strategy_in_full,
        "seed": manifest.seed,
        "base": None if manifest.base is None else asdict(manifest.base),
        "needs_base": manifest.needs_base,
        "task_fingerprint": manifest.task_fingerprint,
        "definition": manifest.definition.to_json(),
        "state": manifest.state,
        "fit_work": asdict(manifest.fit_work),
        "versions": manifest.versions,
        "cost": manifest.cost,
        "findings": dict(manifest.findings),
        "search": manifest.search,
    }
    write_file(folder / FILE, json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def add_cost(folder: Path, cost: Mapping[str, Value]) -> None:
    """Write the measured cost into a saved predictor's ``predictor.json``; what is known only after it was saved."""
    write_manifest(folder, replace(read_manifest(folder), cost=cost))


def add_findings(folder: Path, findings: Mapping[str, Value]) -> None:
    """Write what was found of the fit into a saved predictor's ``predictor.json``, beside what stands there."""
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, findings={**manifest.findings, **findings}))


def read_manifest(folder: Path) -> Manifest:
    """Return what ``predictor.json`` says, checked.

    Raises:
        PredictorError: no such file, another format, or values of the wrong kind; all faults together.
    """
    if not (folder / FILE).is_file():
        raise PredictorError(f"{folder} is no predictor folder: it has no {FILE}")
    values = read_json(folder / FILE)
    if values.get("format") != FORMAT:
        raise PredictorError(
            f"{folder / FILE}: expected format {FORMAT} (got {values.get('format')!r})",
            "a later version of taskfit may have written it: upgrade taskfit, or fit again",
        )
    return _checked(folder / FILE, values)


def read_json(path: Path) -> dict[str, Value]:
    """Return the JSON object of a file of a predictor folder.

    Raises:
        PredictorError: the file is missing, larger than 64 MiB, not utf-8, no JSON object, or holds NaN.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise PredictorError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB")
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise PredictorError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise PredictorError(f"{path}: expected a JSON object (got {type(values).__name__})")
    return values


def _checked(path: Path, values: dict[str, Value]) -> Manifest:
    faults = Faults(str(path))
    texts = {name: _take(values, name, str, faults) for name in ("strategy", "strategy_in_full", "task_fingerprint")}
    seed = _take(values, "seed", int, faults)
    needs_base = _take(values, "needs_base", bool, faults)
    tables = {name: _take(values, name, dict, faults) for name in ("definition", "state", "fit_work", "versions")}
    base = None if values.get("base") is None else _base_from(_take(values, "base", dict, faults), faults)
    cost, search = (
        None if values.get(name) is None else _take(values, name, dict, faults) for name in ("cost", "search")
    )
    findings = {} if values.get("findings") is None else _take(values, "findings", dict, faults)
    work = _work_from(tables["fit_work"], faults)
    if needs_base and base is None:
        faults.add("needs_base is true, but no base model is named")
    faults.raise_as(PredictorError)
    return Manifest(
        **texts,
        seed=seed,
        definition=_definition_from(path, tables["definition"]),
        base=base,
        needs_base=needs_base,
        state=tables["state"],
        fit_work=work,
        versions={name: str(value) for name, value in tables["versions"].items()},
        cost=cost,
        findings=findings,
        search=search,
    )


def _take(values: Mapping[str, Value], name: str, kind: type[_T], faults: Faults) -> _T:
    value = values.get(name)
    if type(value) is kind:
        return value
    faults.add(f"{name} must be {kind.__name__} (got {type(value).__name__})")
    return kind()


def _definition_from(path: Path, values: Mapping[str, Value]) -> TaskDefinition:
    from taskfit.tasks.definition import TaskDefinition

    try:
        return TaskDefinition.from_json(values)
    except TaskfitError as error:
        raise PredictorError(f"{path}: definition: {error.message}", error.hint) from error


def _base_from(values: Mapping[str, Value], faults: Faults) -> BaseModel:
    return BaseModel(**{f.name: _take(values, f.name, str, faults) for f in fields(BaseModel)})


def _work_from(values: Mapping[str, Value], faults: Faults) -> Work:
    return Work(**{f.name: _take(values, f.name, int, faults) for f in fields(Work) if f.name in values})


def _base_of(model: LanguageModel) -> BaseModel:
    if model.architecture == "service":
        return BaseModel(model.name, "", model.fingerprint, model.architecture, "service")
    dtype = str(model.dtype).removeprefix("torch.")
    return BaseModel(model.name, str(model.folder.resolve()), model.fingerprint, model.architecture, dtype)


def _refuse_constant(text: str) -> Value:
    raise ValueError(f"{text} is no JSON number")
