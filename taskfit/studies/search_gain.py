"""What the search of a strategy's parameters bought, over all seeds of a candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from taskfit.errors import StudyError
from taskfit.studies.folder import read_json

if TYPE_CHECKING:
    from taskfit.studies.result import TrialResult
    from taskfit.tasks.task import Value

__all__ = ["Gain", "found_by_search", "gain_of"]


@dataclass(frozen=True)
class Gain:
    """Chosen points less defaults, on validation rows, as means over seeds.

    Attributes:
        value: of the deciding metric. The best of several flatters: it is at most what the test figure gained.
        low, high: means of the seeds' own 95 % intervals, which is wider than that of their mean.
        tries: trainings, short ones counted whole.
    """

    value: float
    low: float
    high: float
    tries: float


def found_by_search(predictor: Path) -> dict[str, Value]:
    """Return the finding of a saved predictor's search, by its name; nothing where none was searched."""
    path = predictor / "predictor.json"
    record = read_json(path).get("search") if path.exists() else None
    if not isinstance(record, dict):
        return {}
    tries = record.get("tries")
    kept: dict[str, Value] = {name: record.get(name) for name in ("chosen", "bought", "validation_rows", "wall_s")}
    return {"search": {**kept, "tries": len(tries) if isinstance(tries, list) else 0}}


def gain_of(results: Iterable[TrialResult]) -> Gain | None:
    """Return what the search bought a candidate; None where it was not searched, or its defaults failed.

    Raises:
        StudyError: a finding is damaged.
    """
    found = [result.findings.get("search") for result in results]
    records = [record for record in found if isinstance(record, dict) and record.get("bought") is not None]
    if not records or len(records) < len(found):
        return None
    try:
        bought = [cast("dict[str, Any]", record["bought"]) for record in records]
        return Gain(
            fmean(float(one["best"]) - float(one["default"]) for one in bought),
            fmean(float(one["low"]) for one in bought),
            fmean(float(one["high"]) for one in bought),
            fmean(float(str(record["tries"])) for record in records),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"a trial's finding of its search is damaged ({type(error).__name__}: {error})") from error
