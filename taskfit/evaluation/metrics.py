"""The table of metrics, and their one door: ``score``.

Every metric here is a function of *sums over rows*: a row contributes a few numbers (for accuracy: is it right, and 1;
for macro F1: which class it is, which was predicted, whether they meet), and the metric is computed from their sums.
That makes a bootstrap resample, a deleted row or a swap of two systems one weighted sum, never a copy of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError, DataError, nearest
from taskfit.evaluation import calibration, classification, label_sets, numeric, overlap, translation
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
        higher_is_better: false for the errors of calibration.
        needs_probabilities: true for calibration: it has a value only where a run gave probabilities for every row,
            so it stands beside a task's metrics, and no task file can name it as one.
        is_shared: whether the columns mean the same in all runs, so that rows can be swapped between two of them;
            false where they stand for bins or ranks of the run's own confidences.
        lowest, highest: the range of the metric.
        by_chance: at most so much of the figure is owed to chance, not to what is measured; 0 for most.
        note: a sentence about outcomes for which the figure needs a word of warning, or None.
    """

    name: str
    kinds: frozenset[Kind]
    columns: Callable[[Outcomes], Any]  # numpy array or scipy sparse array; scipy has no types
    value: Callable[[FloatArray], FloatArray]
    summary: str
    is_per_row: bool
    higher_is_better: bool = True
    needs_probabilities: bool = False
    is_shared: bool = True
    lowest: float = 0.0
    highest: float = 1.0
    by_chance: Callable[[Outcomes], float] = lambda _: 0.0
    note: Callable[[Outcomes], str | None] = lambda _: None


Rows = Callable[[Outcomes], FloatArray]

_GENERATION: frozenset[Kind] = frozenset({"generation"})
_CLASSIFICATION: frozenset[Kind] = frozenset({"classification"})
_CHOICE: frozenset[Kind] = frozenset({"choice"})
_OPTIONS: frozenset[Kind] = frozenset({"classification", "choice"})


def _pairs(row_values: Rows) -> Rows:
    """Return the columns of a mean: the row's value, and 1."""

    def pairs(found: Outcomes) -> FloatArray:
        values = row_values(found)
        return np.stack([values, np.ones_like(values)], axis=1)

    return pairs


def _ratio(sums: FloatArray) -> FloatArray:
    total: FloatArray = sums[..., 1]
    ratio: FloatArray = np.divide(sums[..., 0], total, out=np.zeros_like(total), where=total > 0)
    return ratio


def _mean(name: str, kinds: frozenset[Kind], row_values: Rows, summary: str) -> Metric:
    """Return a metric that is the mean of one value a row."""
    note = numeric.numeric_note if name == "numeric_match" else overlap.script_note(name)
    return Metric(name, kinds, _pairs(row_values), _ratio, summary, is_per_row=True, note=note)


def _rouge(name: str, kind: str, what: str) -> list[Metric]:
    """Return the two forms of a ROUGE metric, with and without stemming."""
    bare = f"{name}_unstemmed"
    return [
        _mean(name, _GENERATION, overlap.rouge(kind), f"F1 of {what}, stemmed; best reference"),
        _mean(bare, _GENERATION, overlap.rouge(kind, is_stemmed=False), f"F1 of {what}, as they are; best reference"),
    ]


def _counted(name: str, value: Callable[[FloatArray], FloatArray], summary: str) -> Metric:
    """Return a metric of the classes' counts."""
    return Metric(
        name,
        _CLASSIFICATION,
        classification.count_columns,
        value,
        summary,
        is_per_row=False,
        lowest=-1.0 if name == "mcc" else 0.0,
        note=classification.undefined_note(name),
    )


def _loss(name: str, row_values: Rows, summary: str, *, highest: float) -> Metric:
    """Return a mean of one value a row that looks at probabilities; lower is better."""
    return Metric(
        name,
        _OPTIONS,
        _pairs(row_values),
        _ratio,
        summary,
        is_per_row=True,
        higher_is_better=False,
        needs_probabilities=True,
        highest=highest,
    )


def _binned(name: str, edges: Rows, summary: str, *, is_shared: bool) -> Metric:
    """Return an expected calibration error over some bins."""
    chance = calibration.error_by_chance(edges)

    def note(outcomes: Outcomes) -> str:
        return f"a perfectly calibrated run over {len(outcomes)} rows would show about {chance(outcomes):.3f} by chance"

    return Metric(
        name,
        _OPTIONS,
        calibration.bin_columns(edges),
        calibration.expected_calibration_error,
        summary,
        is_per_row=False,
        higher_is_better=False,
        needs_probabilities=True,
        is_shared=is_shared,
        by_chance=chance,
        note=note,
    )


def _ranked(name: str, value: Callable[[FloatArray], FloatArray], summary: str, *, higher_is_better: bool) -> Metric:
    """Return a metric of the rows' order by confidence."""
    return Metric(
        name,
        _OPTIONS,
        calibration.rank_columns,
        value,
        summary,
        is_per_row=False,
        higher_is_better=higher_is_better,
        needs_probabilities=True,
        is_shared=False,
    )


METRICS: dict[str, Metric] = {
    entry.name: entry
    for entry in (
        _mean("accuracy", _OPTIONS, overlap.is_right, "share of rows answered rightly"),
        _mean("accuracy_raw", _CHOICE, overlap.is_right_by("raw"), "of the options of the highest log-probability"),
        _mean(
            "accuracy_normalised",
            _CHOICE,
            overlap.is_right_by("normalised"),
            "of the options of the highest log-probability a byte",
        ),
        _counted("macro_f1", classification.macro_f1, "mean F1 over the labels that occur or were predicted"),
        _counted("micro_f1", classification.micro_f1, "F1 of all labels' counts together; accuracy if all parsed"),
        _counted("mcc", classification.mcc, "Matthews correlation, several classes; 0 where it is undefined"),
        _counted("balanced_accuracy", classification.balanced_accuracy, "mean recall over the labels that occur"),
        _mean("exact_match", _GENERATION, overlap.exact_match, "equal after SQuAD normalisation; best reference"),
        _mean("numeric_match", _GENERATION, numeric.numeric_match, "last number equal; texts where gold has no number"),
        _mean("token_f1", _GENERATION, overlap.token_f1, "F1 of words after SQuAD normalisation; best reference"),
        *_rouge("rouge1", "rouge1", "words"),
        *_rouge("rouge2", "rouge2", "word pairs"),
        *_rouge("rouge_l", "rougeL", "the words of the longest common subsequence"),
        *_rouge("rouge_lsum", "rougeLsum", "the longest common subsequences of lines"),
        _mean("labels_f1", _GENERATION, label_sets.label_sets_f1, "F1 of a row's listed labels; several at once"),
        Metric(
            "labels_micro_f1",
            _GENERATION,
            label_sets.micro_columns,
            label_sets.micro_labels_f1,
            "F1 of the counts of all listed labels together",
            is_per_row=False,
        ),
        Metric(
            "labels_macro_f1",
            _GENERATION,
            label_sets.macro_columns,
            label_sets.macro_labels_f1,
            "mean F1 over the listed labels that are right somewhere",
            is_per_row=False,
        ),
        Metric(
            "bleu",
            _GENERATION,
            translation.bleu_columns,
            translation.bleu,
            "BLEU-4 of all rows together, sacrebleu's defaults, divided by 100",
            is_per_row=False,
            note=translation.bleu_note,
        ),
        Metric(
            "chrf",
            _GENERATION,
            translation.chrf_columns,
            translation.chrf,
            "chrF2 of all rows together, sacrebleu's defaults, divided by 100",
            is_per_row=False,
        ),
        _loss(
            "nll",
            calibration.negative_log_likelihood,
            "mean -ln of the right answer's probability, nats",
            highest=math.inf,
        ),
        _loss(
            "brier",
            calibration.brier,
            "mean squared distance of probabilities from the right answer, 0 to 2",
            highest=2.0,
        ),
        _binned("ece_10", calibration.equal_width_edges(10), "calibration error, 10 bins of one width", is_shared=True),
        _binned("ece_15", calibration.equal_width_edges(15), "calibration error, 15 bins of one width", is_shared=True),
        _binned(
            "ece_adaptive",
            calibration.adaptive_edges(10),
            "calibration error, 10 bins of as many rows",
            is_shared=False,
        ),
        _ranked(
            "aurc",
            calibration.area_under_risk_coverage,
            "mean error of the most confident rows, over all coverages",
            higher_is_better=False,
        ),
        _ranked(
            "selective_accuracy",
            calibration.accuracy_at_coverage(0.1),
            "accuracy of the tenth of rows with the highest confidence",
            higher_is_better=True,
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
    """Return the metric of one run, mostly between 0 and 1 (mcc: -1 and 1; nll and brier: from 0 up).

    Higher is better but for calibration errors, see ``Metric.higher_is_better``. Answers that could not be parsed are
    wrong. Where a metric is undefined it has a stated value, see ``notes``.

    Args:
        name: one of ``METRICS``.
        outcomes: of one run.
        weights: how often each row counts, shape (rows,), in the order of ``outcomes.row_ids``; default: once.

    Raises:
        ConfigError: no such metric, it cannot score this kind of task, or it needs probabilities that are missing.
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
        fitting = [
            other.name for other in METRICS.values() if outcomes.kind in other.kinds and not other.needs_probabilities
        ]
        raise ConfigError(f"{name} cannot score a {outcomes.kind} task; {', '.join(fitting)} can")

    def compute() -> Any:
        from scipy.sparse import csr_array

        return csr_array(entry.columns(outcomes))

    shared: dict[Any, str] = {classification.count_columns: "counts", calibration.rank_columns: "ranks"}
    key = shared.get(entry.columns, name)
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
