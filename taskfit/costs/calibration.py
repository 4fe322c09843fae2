"""Factors that bring forecasts to what trials on this machine have taken."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from taskfit.costs.forecast_log import Told
from taskfit.costs.probe import probe_file
from taskfit.errors import ConfigError
from taskfit.files import write_text

__all__ = ["Calibration", "calibrated", "calibration_file", "load_calibration", "save_calibration", "told_with"]

_FEWEST = 3  # trials of a kind, below which chance would be fitted
_SHORTEST_S = 0.2  # of a phase: below, the clock and the first call decide
_LEAST, _MOST = 0.1, 10.0  # beyond, something else is wrong than a constant


@dataclass(frozen=True)
class Calibration:
    """Factors by kind of trial; 1 where nothing is known.

    Attributes:
        machine: that they hold for.
        fit, predict, memory: by kind (see ``Told``).
        at: when they were set, in seconds since 1970; what is told with them says so by it. 0: none were.
    """

    machine: str = ""
    fit: Mapping[str, float] = field(default_factory=dict)
    predict: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0


def calibrated(before: Calibration, trials: Sequence[Told], machine: str) -> Calibration:
    """Return the factors of before, corrected by the trials that were told with them; as they were where none changes.

    Each is the median of measured over told, where three trials or more have a phase long enough to be measured.
    """
    kept = before if before.machine == machine else Calibration(machine)
    fresh = told_with(kept, trials)
    pairs = {
        "fit": [(one.kind, one.told_fit_s, one.fit_s) for one in fresh],
        "predict": [(one.kind, one.told_predict_s, one.predict_s) for one in fresh],
    }
    seconds = {name: _corrected(getattr(kept, name), listed, _SHORTEST_S) for name, listed in pairs.items()}
    memory = _corrected(kept.memory, [(one.kind, one.told_bytes, one.peak_bytes) for one in fresh], 1.0)
    if (seconds["fit"], seconds["predict"], memory) == (kept.fit, kept.predict, kept.memory):
        return kept  # its trials go on counting until they are enough
    return Calibration(machine, seconds["fit"], seconds["predict"], memory, time.time())


def told_with(factors: Calibration, trials: Sequence[Told]) -> list[Told]:
    """Return the trials of the factors' machine whose forecasts were made with them, and not with others."""
    return [one for one in trials if one.machine == factors.machine and one.told_with == factors.at]


def _corrected(
    before: Mapping[str, float], listed: Sequence[tuple[str, float, float]], least: float
) -> dict[str, float]:
    found = dict(before)
    for kind in sorted({kind for kind, _, _ in listed}):
        ratios = [taken / told for one, told, taken in listed if one == kind and told > 0 and taken >= least]
        if len(ratios) >= _FEWEST:
            found[kind] = min(_MOST, max(_LEAST, before.get(kind, 1.0) * median(ratios)))
    return found


def calibration_file() -> Path:
    """Return where the factors are kept, beside the machine's rates."""
    return probe_file().with_name("calibration.json")


def save_calibration(found: Calibration, path: Path | None = None) -> Path:
    """Keep the factors for later forecasts; return where."""
    path = path or calibration_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": 1, **asdict(found)}, indent=1) + "\n")
    return path


def load_calibration(machine: str, path: Path | None = None) -> Calibration:
    """Return this machine's factors; none where there are none, or another machine's.

    Raises:
        ConfigError: the file is damaged.
    """
    path = path or calibration_file()
    if not path.exists():
        return Calibration(machine)
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != 1:
            raise ValueError("format must be 1")
        found = Calibration(**values)
        factors = [*found.fit.values(), *found.predict.values(), *found.memory.values()]
        if not all(_LEAST <= float(value) <= _MOST for value in factors):
            raise ValueError(f"factors must lie between {_LEAST} and {_MOST}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", "remove the file, then run: taskfit doctor --costs"
        ) from error
    return found if found.machine == machine else Calibration(machine)
