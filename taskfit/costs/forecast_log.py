"""Forecast and fact of the trials that ran on this machine: one line a trial, for ``taskfit doctor --costs``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from taskfit.costs.probe import probe_file

__all__ = ["Told", "log_file", "note_trial", "read_trials"]

_FORMAT = 2


@dataclass(frozen=True)
class Told:
    """One trial.

    Attributes:
        machine: where it ran: processor and threads.
        strategy, model: names.
        kind: ``all``, ``adapter``, ``nothing`` (what was trained) or ``no model``: what is calibrated together.
        told_fit_s, told_predict_s, told_bytes: the forecast.
        fit_s, predict_s, peak_bytes: the measurement.
        told_with: when the factors of the forecast had been set (``Calibration.at``); 0: there were none.
        at: seconds since 1970 when it ended.
    """

    machine: str
    strategy: str
    model: str
    kind: str
    told_fit_s: float
    told_predict_s: float
    told_bytes: float
    fit_s: float
    predict_s: float
    peak_bytes: float
    told_with: float
    at: float

    @property
    def memory_error(self) -> float:
        """Signed, as a share of the measured peak."""
        return self.told_bytes / self.peak_bytes - 1

    @property
    def time_error(self) -> float:
        """Signed, of both phases together, as a share of the measured seconds."""
        return (self.told_fit_s + self.told_predict_s) / (self.fit_s + self.predict_s) - 1


def log_file() -> Path:
    """Return where the lines are kept, beside the machine's rates."""
    return probe_file().with_name("trials.jsonl")


def note_trial(told: Mapping[str, Any], path: Path | None = None) -> bool:
    """Append one trial (the fields of ``Told`` but ``at``); false where that is not possible.

    Nothing is raised: a trial that is done does not fail for want of a cache folder. A line is written in one go, so
    that trials that end together do not mix theirs.
    """
    path = path or log_file()
    try:
        one = Told(**told, at=time.time())
        line = json.dumps({"format": _FORMAT, **asdict(one)}) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode("utf-8"))
        finally:
            os.close(handle)
    except (OSError, TypeError, ValueError):
        return False
    return True


def read_trials(path: Path | None = None) -> tuple[list[Told], int]:
    """Return the trials in the order in which they ended, and the number of lines that could not be read."""
    path = path or log_file()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [], 0
    read = [_read(line) for line in lines if line.strip()]
    found = [one for one in read if one is not None]
    return found, len(read) - len(found)


def _read(line: str) -> Told | None:
    try:
        values = json.loads(line)
        if values.pop("format") != _FORMAT:
            return None
        found = Told(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    numbers = [getattr(found, one.name) for one in fields(Told) if one.type == "float"]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        return None
    is_usable = all(0 <= value < float("inf") for value in numbers) and found.peak_bytes > 0
    return found if is_usable and found.fit_s + found.predict_s > 0 else None
