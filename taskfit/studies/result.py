"""What came of a trial, and its folder: ``result.json``, ``predictions.parquet``, ``log.txt``, ``predictor/``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from taskfit.errors import StudyError
from taskfit.studies.folder import read_json, staged, write_json
from taskfit.studies.predictions import StoredPrediction, parquet_bytes, read_predictions
from taskfit.studies.spec import FORMAT, TrialSpec

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = [
    "Status",
    "TrialResult",
    "read_result",
    "read_trial_predictions",
    "trial_folder",
    "work_folder",
    "write_trial",
]

Status = Literal["done", "failed", "timed-out", "killed"]
_STATUSES = ("done", "failed", "timed-out", "killed")
_LOG_BYTES = 1_000_000


@dataclass(frozen=True)
class TrialResult:
    """What came of one trial.

    Attributes:
        status: ``done``; ``failed`` (an error, a bug or a crash of its own); ``timed-out``; ``killed`` (from outside,
            most often for want of memory).
        reason: kind of failure (class of the error, or name of the signal); empty when done.
        message: the error's message; empty when done.
        hint: what to do about it; None where nothing is known.
        metrics: name to value on the test rows; empty unless done.
        cost: of fitting and predicting, as JSON values; empty unless done.
        counts: rows and tokens of the test set that need saying (rows, unparsed, cut).
        versions: of Python and the libraries that computed this.
        notes: findings that the strategy reported while fitting.
        findings: what else was measured, by name, as JSON values; ``forgetting`` is of the shape in docs/design.md.
        wall_s: seconds from the start of the trial's process to its end.
        timeout_s: the limit it ran under.
    """

    spec: TrialSpec
    status: Status
    reason: str = ""
    message: str = ""
    hint: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, Value] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    findings: Mapping[str, Value] = field(default_factory=dict)
    wall_s: float = 0.0
    timeout_s: float | None = None

    @property
    def is_done(self) -> bool:
        """True when there are predictions."""
        return self.status == "done"


def trial_folder(study: Path, trial: str) -> Path:
    """Return where a trial's results lie."""
    return study / "trials" / trial


def work_folder(study: Path, trial: str) -> Path:
    """Return a trial's scratch folder: checkpoints and the running log; removed when the trial has ended well."""
    return study / "work" / trial


def write_trial(
    study: Path,
    result: TrialResult,
    predictions: Sequence[StoredPrediction] = (),
    predictor: Path | None = None,
    log: Path | None = None,
) -> None:
    """Write the trial's folder, whole or not at all.

    Args:
        study: the study's folder.
        result: what came of the trial; its folder is named by its spec.
        predictions: one a test row, when it is done.
        predictor: the saved predictor's folder, on the same disk; it is moved.
        log: a file whose last megabyte becomes ``log.txt``.

    Raises:
        ResourceError: the disk is full; nothing is left behind and the trial can be run again.
    """
    payload = parquet_bytes(predictions) if result.is_done else b""
    with staged(trial_folder(study, result.spec.id), len(payload)) as folder:
        if predictor is not None:
            predictor.rename(folder / "predictor")
        if result.is_done:
            (folder / "predictions.parquet").write_bytes(payload)
        if log is not None and log.exists():
            (folder / "log.txt").write_bytes(log.read_bytes()[-_LOG_BYTES:])
        write_json(folder / "result.json", _to_json(result, payload, len(predictions)))


def read_result(study: Path, spec: TrialSpec) -> TrialResult | None:
    """Read a trial's result; None when there is none, or when its folder is damaged: then it must run again.

    A finished trial counts only when its predictions are exactly the bytes that were written.
    """
    folder = trial_folder(study, spec.id)
    try:
        values = read_json(folder / "result.json")
        result = _from_json(values, spec)
        if result.is_done and values.get("predictions_sha256") != _sha256(folder / "predictions.parquet"):
            return None
    except (StudyError, OSError, TypeError, ValueError):
        return None
    return result


def read_trial_predictions(study: Path, trial: str) -> list[StoredPrediction]:
    """Read the predictions of a finished trial.

    Raises:
        StudyError: they are missing or broken.
    """
    return read_predictions(trial_folder(study, trial) / "predictions.parquet")


def _to_json(result: TrialResult, payload: bytes, rows: int) -> dict[str, Value]:
    return {
        "format": FORMAT,
        "spec": result.spec.to_json(),
        "status": result.status,
        "reason": result.reason,
        "message": result.message,
        "hint": result.hint,
        "metrics": dict(result.metrics),
        "cost": dict(result.cost),
        "counts": dict(result.counts),
        "versions": dict(result.versions),
        "notes": list(result.notes),
        "findings": dict(result.findings),
        "wall_s": result.wall_s,
        "timeout_s": result.timeout_s,
        "predictions_sha256": hashlib.sha256(payload).hexdigest() if result.is_done else None,
        "predictions_rows": rows,
    }


def _from_json(values: Mapping[str, Value], spec: TrialSpec) -> TrialResult:
    stored_spec = values.get("spec")
    if values.get("format") != FORMAT or not isinstance(stored_spec, dict) or stored_spec.get("id") != spec.id:
        raise ValueError("another format or another trial")
    if values.get("status") not in _STATUSES:
        raise ValueError("unknown status")
    known = {f.name for f in fields(TrialResult)} - {"spec", "notes"}
    kept = {name: value for name, value in values.items() if name in known}
    kept.setdefault("findings", {})
    for name in ("metrics", "cost", "counts", "versions", "findings"):
        if not isinstance(kept.get(name), dict):
            raise ValueError(f"{name} must be an object")
    notes = values.get("notes")
    lines = tuple(str(note) for note in notes) if isinstance(notes, list) else ()
    return TrialResult(spec=spec, notes=lines, **kept)  # type: ignore[arg-type]


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
