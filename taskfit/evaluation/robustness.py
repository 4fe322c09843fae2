"""Answers to changed inputs beside those to the inputs as they are: change by change, and the worst of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from taskfit.errors import ConfigError
from taskfit.evaluation.intervals import metric_interval, wilson
from taskfit.evaluation.metrics import METRICS
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.paired import compare_paired
from taskfit.evaluation.perturb import worst_case
from taskfit.evaluation.sides import Figure, Side, SideName, figure_of, not_measured

__all__ = ["changed_side", "row_metric"]


def row_metric(metrics: Sequence[str]) -> str:
    """Return the first metric that has a value per row, which a worst case needs.

    Where a task names none, the usual one of its kind: accuracy, or ROUGE-L.

    Raises:
        ConfigError: no metrics are named.
    """
    if not metrics:
        raise ConfigError("expected at least one metric, got none")
    found = next((name for name in metrics if METRICS[name].is_per_row), None)
    if found is not None:
        return found
    return "rouge_l" if "generation" in METRICS[metrics[0]].kinds else "accuracy"


def changed_side(
    side: SideName,
    name: str,
    original: Outcomes,
    changed: Mapping[str, Outcomes],
    touched: Mapping[str, Sequence[str]],
) -> Side:
    """Return what changes of the input do to a metric: for each, its figure, its fall, and how many answers changed.

    Args:
        side: ``robustness`` or ``fairness``.
        name: a metric with a value per row.
        original: of the rows as they are.
        changed: name of a change to the outcomes of the changed rows.
        touched: name of a change to the ids of the rows that it changed at all; a change of no row is left out.

    Returns:
        The worst case as headline; the figures are, for each change, the metric over all rows, its difference over the
        rows that were changed, and the share of those whose answer became another.

    Raises:
        DataError: the runs are not over the same rows.
    Source: Liang et al. 2023, sections 4.5 and 4.6 (worst case over changes).
    """
    kept = {change: run for change, run in changed.items() if touched[change]}
    silent = [change for change in changed if change not in kept]
    notes = [f"no row holds a word that {', '.join(silent)} would change"] if silent else []
    if not kept:
        return not_measured(side, notes[0] if notes else "no change was tried")
    worst = worst_case(name, original, kept)
    headline = figure_of(
        f"{name}, worst of {len(kept)} change{'s' * (len(kept) > 1)} and the input as it is",
        metric_interval(name, [worst]),
        len(original),
    )
    fall = _difference(f"{name}, worst case less as it is", name, worst, original)
    figures = [figure_of(f"{name}, as it is", metric_interval(name, [original]), len(original)), fall]
    for change, run in kept.items():
        figures.extend(_of_change(change, name, original, run, touched[change]))
    return Side(side, headline, tuple(figures), tuple(notes))


def _of_change(change: str, name: str, original: Outcomes, run: Outcomes, touched: Sequence[str]) -> list[Figure]:
    wanted = set(touched)
    keep = np.array([row_id in wanted for row_id in original.row_ids])
    before, after = original.only(keep), run.only(keep)
    moved = sum(
        one != other or bool(a) != bool(b)
        for one, other, a, b in zip(before.answers, after.answers, before.is_parsed, after.is_parsed, strict=True)
    )
    return [
        figure_of(f"{name}, {change}", metric_interval(name, [run]), len(run)),
        _difference(f"{name}, {change} less as it is, changed rows only", name, after, before),
        figure_of(f"answers that {change} changes", wilson(moved, len(before)), len(before)),
    ]


def _difference(what: str, name: str, run: Outcomes, than: Outcomes) -> Figure:
    if run.units < 2:
        gap = compare_paired(name, [run], [than], permutations=1).difference
        return Figure(what, gap, None, None, len(run), "a single row or group tells nothing of others")
    found = compare_paired(name, [run], [than], permutations=1)
    return Figure(what, found.difference, found.low, found.high, found.rows)
