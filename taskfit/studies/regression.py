"""Did a predictor get worse than it was? A one-sided paired test over the rows that it answered then and now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.scoring import outcomes_of_trial

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.strategy.contract import Prediction
    from taskfit.studies.expectation import Expectation
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["ALPHA", "Regression", "compare_with_expected"]

ALPHA = 0.05
"""It got worse when a fall this large or larger would come by chance in fewer than this share of cases."""

_POWER = 0.8


@dataclass(frozen=True)
class Regression:
    """Now against then, over the same rows.

    Attributes:
        metric: what is compared: the one that decided when the expectation was stored.
        expected: its figure then, over these rows.
        found: its figure now.
        difference: found - expected.
        low, high: 95 % interval of the difference, rows resampled together.
        p_value: one-sided: how often swapping then and now of random rows gives a fall at least as large.
        alpha: below this p-value it got worse.
        detectable: the smallest fall that such a test would mostly (80 %) find over so many rows, if rows move as much
            as they did here: in accuracy, or in the metric where it gives parts of a point (generated text).
        is_graded: true where the metric gives parts of a point.
        worse_rows, better_rows: ids of rows that lost or gained on the metric (on right or wrong, where the metric has
            no value per row).
        rows: how many were compared.
    """

    metric: str
    expected: float
    found: float
    difference: float
    low: float
    high: float
    p_value: float
    alpha: float
    detectable: float
    is_graded: bool
    worse_rows: tuple[str, ...]
    better_rows: tuple[str, ...]
    rows: int

    @property
    def is_worse(self) -> bool:
        """True when it fell, beyond noise."""
        return self.difference < 0 and self.p_value < self.alpha


def compare_with_expected(
    definition: TaskDefinition, expectation: Expectation, rows: Sequence[Row], predictions: Sequence[Prediction]
) -> Regression:
    """Compare what is answered now with what was answered then.

    Args:
        definition: of the task.
        expectation: what was answered then, to these rows and perhaps to more.
        rows: what both are compared on; each stands in the expectation, unchanged.
        predictions: what is answered now, one a row.

    Source: Fisher 1935 and Noreen 1989 (swaps); Connor 1987 (the detectable difference of shares). The swaps'
    distribution is symmetric about 0, so the one-sided p-value of a fall is half of the two-sided one.
    """
    from taskfit.evaluation.outcomes import outcomes_of
    from taskfit.evaluation.paired import compare_paired

    now = outcomes_of(definition, rows, predictions)
    then = _then(definition, expectation, rows)
    compared = compare_paired(expectation.metric, [now], [then])
    gaps = _gaps(expectation.metric, now, then)
    worse = tuple(row_id for row_id, gap in gaps.items() if gap < 0)
    better = tuple(row_id for row_id, gap in gaps.items() if gap > 0)
    half = compared.p_rows / 2
    return Regression(
        metric=expectation.metric,
        expected=compared.value_b,
        found=compared.value_a,
        difference=compared.difference,
        low=compared.low,
        high=compared.high,
        p_value=half if compared.difference < 0 else (1 - half if worse or better else 1.0),
        alpha=ALPHA,
        detectable=_detectable(list(gaps.values()), definition.kind == "generation"),
        is_graded=definition.kind == "generation",
        worse_rows=worse,
        better_rows=better,
        rows=len(rows),
    )


def _then(definition: TaskDefinition, expectation: Expectation, rows: Sequence[Row]) -> Outcomes:
    answers = {answer.row_id: answer for answer in expectation.answers}
    group = definition.group
    groups = None if group is None else {row.id: str(row.fields.get(group)) for row in rows}
    return outcomes_of_trial(definition, [answers[row.id] for row in rows], groups)


def _gaps(metric: str, now: Outcomes, then: Outcomes) -> dict[str, float]:
    """Return by how much each row gained; right or wrong, where the metric has no value per row."""
    from taskfit.evaluation.metrics import METRICS, per_row

    name = metric if METRICS[metric].is_per_row else "accuracy"
    gaps = per_row(name, now) - per_row(name, then)
    return dict(zip(now.row_ids, gaps.tolist(), strict=True))


def _detectable(gaps: Sequence[float], is_graded: bool) -> float:
    """Return the smallest fall that is mostly found; at least one row counts as having moved by a whole point."""
    from scipy.stats import norm

    from taskfit.evaluation.paired import minimum_detectable_difference

    moved = max(1.0, math.fsum(gap * gap for gap in gaps)) / len(gaps)
    if is_graded:
        reach = float(norm.isf(ALPHA) + norm.isf(1 - _POWER))
        return min(1.0, reach * math.sqrt(moved / len(gaps)))
    # Two-sided at twice the level is one-sided at the level.
    return minimum_detectable_difference(len(gaps), discordance=moved, power=_POWER, level=2 * ALPHA)
