"""How well a point of a search does on validation rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from taskfit.studies.scoring import outcomes_of_trial

if TYPE_CHECKING:
    from taskfit.studies.predictions import StoredPrediction
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task

__all__ = ["Bought", "better_is_higher", "bought", "judged", "rows_to_judge"]

MOST_ROWS = 256
"""Most validation rows that judge a try: more would cost more than they tell of points that differ much."""

_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Bought:
    """What the chosen point has over the default, both trained whole, on the same validation rows.

    Attributes:
        metric: the deciding one.
        default, best: its values.
        low, high: 95 % interval of best less default. It takes no account of the best having been picked.
    """

    metric: str
    default: float
    best: float
    low: float
    high: float


def rows_to_judge(task: Task) -> list[Row]:
    """Return at most ``MOST_ROWS`` validation rows, spread evenly over the split."""
    rows = task.validation
    if len(rows) <= MOST_ROWS:
        return list(rows)
    return [rows[index * len(rows) // MOST_ROWS] for index in range(MOST_ROWS)]


def judged(definition: TaskDefinition, rows: Sequence[StoredPrediction]) -> tuple[float, float]:
    """Return the deciding metric, and the mean log-probability of the right answers (0 where there are none)."""
    from taskfit.evaluation.metrics import score

    value = score(definition.metrics[0], outcomes_of_trial(definition, rows))
    return value, fmean(_log_likelihood(row) for row in rows)


def better_is_higher(definition: TaskDefinition) -> float:
    """Return 1 where a higher value of the deciding metric is better, else -1."""
    from taskfit.evaluation.metrics import metric

    return 1.0 if metric(definition.metrics[0]).higher_is_better else -1.0


def bought(definition: TaskDefinition, best: Sequence[StoredPrediction], default: Sequence[StoredPrediction]) -> Bought:
    """Compare the answers of two points on the same rows."""
    from taskfit.evaluation.paired import compare_paired

    name = definition.metrics[0]
    found = compare_paired(name, [outcomes_of_trial(definition, best)], [outcomes_of_trial(definition, default)])
    return Bought(name, found.value_b, found.value_a, found.low, found.high)


def _log_likelihood(row: StoredPrediction) -> float:
    if row.probabilities is None:
        return 0.0
    right = sum(row.probabilities.get(answer, 0.0) for answer in set(row.gold))
    return math.log(min(1.0, max(_LEAST_PROBABILITY, right)))
