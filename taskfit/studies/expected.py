"""What a trial is expected to take, by what those before it have taken; else by its forecast."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, median
from typing import TYPE_CHECKING

from taskfit.costs.trial_cost import TrialCost
from taskfit.studies.candidates import key_of

if TYPE_CHECKING:
    from taskfit.studies.result import TrialResult
    from taskfit.studies.spec import TrialSpec

__all__ = ["expected_s"]


def expected_s(spec: TrialSpec, ended: Iterable[TrialResult]) -> float | None:
    """Return the seconds on the clock from a trial's start to its end; None where nobody knows.

    The mean of its other seeds; else its forecast, to which is added what trials of the same model have taken beside
    fitting and predicting (loading, asking for what should not be forgotten, saving).
    """
    done = [result for result in ended if result.is_done]
    alike = [result.wall_s for result in done if key_of(result.spec) == key_of(spec)]
    if alike:
        return fmean(alike)
    if spec.forecast_s is None:
        return None
    beside = [_beside_s(result) for result in done if result.spec.model == spec.model]
    return spec.forecast_s + (median(beside) if beside else 0.0)


def _beside_s(result: TrialResult) -> float:
    """Seconds of a trial that are neither of fitting nor of predicting."""
    cost = TrialCost.from_json(result.cost)
    return max(0.0, result.wall_s - cost.fit.wall_s - cost.predict.wall_s)
