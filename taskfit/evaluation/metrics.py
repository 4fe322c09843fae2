"""The table of metrics, and their one door: ``score``.

Every metric here is a function of *sums over rows*: a row contributes a few numbers (for accuracy: is it right, and 1;
for macro F1: which class it is, which was predicted, whether they meet), and the metric is computed from their sums.
That makes a bootstrap resample, a deleted row or a swap of two systems one weighted sum, never a copy of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError, DataError, nearest
from taskfit.evaluation import classification, overlap
from taskfit.evaluation.outcomes import Outcomes

if TYPE_CHECKING:
    from taskfit.tasks.task import Kind

__all__ = ["METRICS", "Metric", "columns", "metric", "notes", "per_row", "score", "unit_columns"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        name: as task files and reports write it.
        kinds: kinds of tasks it can score.
        columns: what rows contribute, shape (rows, m), dense or sparse, from outcomes.
        value: the metric from sums, shape (..., m) to (...). It never raises and never gives NaN.
        summary: one line, with the convention where there are several.
        is_per_row: whether the metric is the mean of one value a row.
        higher_is_better: true for all metrics so far.
        note: a sentence about outcomes for which the figure needs a word of warning, or None.
    """

    name: str
    kinds: frozenset[Kind]
    columns: Callable[[Outcomes], Any]  # numpy array or scipy sparse array; scipy has no types
    value: Callable[[FloatArray], FloatArray]
    summary: str
    is_per_row: bool
    higher_is_better: bool = True
    note: Callable[[Outcomes], str | None] = lambda _: None


def _mean(name: str, kinds: set[Kind], row_values: Callable[[Outcomes], FloatArray], summary: str) -> Metric:
    """Return a metric that is the mean of one value a row."""

    def pairs(found: Outcomes) -> FloatArray:
        values = row_values(found)
        return np.stack([values, np.ones_like(values)], axis=1)

    return Metric(name, frozenset(kinds), pairs, _ratio, summary, is_per_row=True, note=overlap.script_note(name))


def _ratio(sums: FloatArray) -> FloatArray:
    total: FloatArray = sums[..., 1]
    ratio: FloatArray = np.divide(sums[..., 0], total, out=np.zeros_like(total), where=total > 0)
    return ratio


def _counted(name: str, value: Callable[[FloatArray], FloatArray], summary: str) -> Metric:
    """Return a metric of the classes' counts."""
    kinds: frozenset[Kind] = frozenset({"classification"})
    note = classification.undefined_note(name)
    return Metric(name, kinds, classification.count_columns, value, summary, is_per_row=False, note=note)


METRICS: dict[str, Metric] = {
    entry.name: entry
    for entry in (
        _mean("accuracy", {"classification", "choice"}, overlap.is_right, "share of rows answered rightly"),
        _counted("macro_f1", classification.macro_f1, "mean F1 over the labels that occur or were predicted"),
        _counted("micro_f1", classification.micro_f1, "F1 of all labels' counts together; accuracy if all parsed"),
        _counted("mcc", classification.mcc, "Matthews correlation, several classes; 0 where it is undefined"),
        _counted("balanced_accuracy", classification.balanced_accuracy, "mean recall over the labels that occur"),
        _mean("exact_match", {"generation"}, overlap.exact_match, "equal after SQuAD normalisation; best reference"),
        _mean("token_f1", {"generation"}, overlap.token_f1, "F1 of words after SQuAD normalisation; best reference"),
        _mean("rouge1", {"generation"}, overlap.rouge("rouge1"), "F1 of stemmed words; best reference"),
        _mean("rouge2", {"generation"}, overlap.rouge("rouge2"), "F1 of stemmed word pairs; best reference"),
        _mean(
            "rouge_l", {"generation"}, overlap.rouge("rougeL"), "F1 of the longest common subsequence; best reference"
        ),
    )
}
"""Every metric by its name."""


def metric(name: str) -> Metric:
    """Return the table's row of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in METRICS:
        raise ConfigError(f"unknown metric {name!r}{nearest(name, METRICS)}; known are {', '.join(METRICS)}")
    return METRICS[name]


def score(name: str, outcomes: Outcomes, weights: FloatArray | None = None) -> float:
    """Return the metric of one run, mostly between 0 and 1 (mcc: -1 and 1), higher is better.

    Answers that could not be parsed are wrong. Where a metric is undefined it has a stated value, see ``notes``.

    Args:
        name: one of ``METRICS``.
        outcomes: of one run.
        weights: how often each row counts, shape (rows,), in the order of ``outcomes.row_ids``; default: once.

    Raises:
        ConfigError: no such metric, or it cannot score this kind of task.
        DataError: weights of another shape, negative, or all zero.
    """
    entry = metric(name)
    rows = columns(name, outcomes)
    counts = np.ones(len(outcomes)) if weights is None else np.asarray(weights, dtype=np.float64)
    if counts.shape != (len(outcomes),) or (counts < 0).any() or not counts.any():
        raise DataError(f"weights must be {len(outcomes)} numbers of at least 0, not all 0 (got shape {counts.shape})")
    return float(entry.value(np.asarray(rows.T @ counts)))


def per_row(name: str, outcomes: Outcomes) -> FloatArray:
    """Return one value a row, shape (rows,), in the order of ``outcomes.row_ids``; their mean is the metric.

    Raises:
        ConfigError: the metric is not a mean over rows (macro F1, for example).
    """
    if not metric(name).is_per_row:
        raise ConfigError(f"{name} has no value per row; it is computed from counts over all rows")
    dense: FloatArray = columns(name, outcomes).toarray()[:, 0]
    return dense


def notes(name: str, outcomes: Outcomes) -> list[str]:
    """Return what a reader must know to read the figure rightly; often nothing."""
    found = metric(name).note(outcomes)
    unparsed = int((~outcomes.is_parsed).sum())
    parts = [found] if found else []
    if unparsed:
        parts.append(f"{unparsed} of {len(outcomes)} answers could not be parsed and count as wrong")
    return parts


def columns(name: str, outcomes: Outcomes) -> Any:  # a scipy sparse array; scipy has no types
    """Return what every row contributes, a sparse array of shape (rows, m); computed once for each run."""
    entry = metric(name)
    if outcomes.kind not in entry.kinds:
        fitting = [other.name for other in METRICS.values() if outcomes.kind in other.kinds]
        raise ConfigError(f"{name} cannot score a {outcomes.kind} task; {', '.join(fitting)} can")

    def compute() -> Any:
        from scipy.sparse import csr_array

        return csr_array(entry.columns(outcomes))

    key = "counts" if entry.columns is classification.count_columns else name
    return outcomes.once(key, compute)


def unit_columns(name: str, outcomes: Outcomes) -> Any:  # a scipy sparse array; scipy has no types
    """Return ``columns`` summed within groups, shape (units, m): what resampling draws from."""
    rows = columns(name, outcomes)
    groups = outcomes.groups
    if groups is None:
        return rows
    from scipy.sparse import csr_array

    shape = (outcomes.units, len(outcomes))
    membership = csr_array((np.ones(len(outcomes)), (groups, np.arange(len(outcomes)))), shape=shape)
    return csr_array(membership @ rows)
