"""Is everybody served alike? The metric of each group of rows, and the gap between best and worst."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from taskfit.errors import DataError
from taskfit.evaluation.intervals import metric_interval
from taskfit.evaluation.metrics import columns, metric, notes, score
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.sides import Figure, Side, figure_of

__all__ = ["MOST_GROUPS", "group_gaps"]

MOST_GROUPS = 50
"""Of a field with more values most groups are too small to say anything: it names rows, not groups of people."""

_SHUFFLES = 2000
_AT_ONCE = 50  # shuffles


def group_gaps(name: str, outcomes: Outcomes, groups: Mapping[str, str], *, field: str, seed: int = 0) -> Side:
    """Return the metric of every group, and the gap between the best and the worst.

    The gap of the largest and the smallest of several figures is never 0, were all groups served alike: ``note`` of
    the headline says what gap chance would show, and how often it would show this one, by shuffling rows among groups.

    Args:
        name: a metric of the task.
        outcomes: of one run.
        groups: row id to the name of its group; "" for rows of which it is not known.
        field: where the groups come from, for the words.
        seed: of the shuffles.

    Returns:
        The gap as headline, without an interval of its own. Groups of one row are listed without interval and are no
        part of the gap; where fewer than two are left, the side was not measured, and why.

    Raises:
        DataError: a row is in no group, or there are more than ``MOST_GROUPS``.
    Source: Liang et al. 2023, section 4.6 (performance disparities); Good 2005, chapter 3, for the shuffles.
    """
    missing = [row_id for row_id in outcomes.row_ids if row_id not in groups]
    if missing:
        raise DataError(f"{len(missing)} rows are in no group, the first is {missing[0]!r}")
    labels = np.array([groups[row_id] for row_id in outcomes.row_ids])
    named = sorted(set(labels[labels != ""].tolist()))
    if len(named) > MOST_GROUPS:
        raise DataError(
            f"field {field!r} has {len(named)} values, more than {MOST_GROUPS}: it names rows, not groups",
            "name a field with few values",
        )
    places = {group: np.flatnonzero(labels == group) for group in named}
    figures = tuple(_of_group(name, outcomes, group, rows) for group, rows in places.items())
    large = {group: rows for group, rows in places.items() if len(rows) > 1}
    said = [f"{int((labels == '').sum())} rows have no {field}"] if (labels == "").any() else []
    if len(large) < 2:
        reason = f"{field} has {len(large)} group{'s' * (len(large) != 1)} of two rows or more; a gap needs two"
        return Side("fairness", None, figures, tuple(said), reason)
    values = {group: _score(name, outcomes, rows) for group, rows in large.items()}
    gap = max(values.values()) - min(values.values())
    by_chance, p_value = _by_chance(name, outcomes, large, gap, seed)
    best, worst = (pick(values, key=values.__getitem__) for pick in (max, min))
    if not metric(name).higher_is_better:
        best, worst = worst, best
    note = f"best {best}, worst {worst}; chance alone would show {by_chance:.3f}, and as much with p = {p_value:.2g}"
    rows_in = sum(map(len, large.values()))
    headline = Figure(f"{name}, gap between groups of {field}", gap, None, None, rows_in, note)
    return Side("fairness", headline, figures, tuple(said))


def _of_group(name: str, outcomes: Outcomes, group: str, rows: np.ndarray) -> Figure:
    only = outcomes.only(_mask(len(outcomes), rows))
    what = f"{name}, {group}"
    if len(rows) < 2 or only.units < 2:
        return Figure(what, score(name, only), None, None, len(rows), "a single row or group tells nothing of others")
    undefined = [note for note in notes(name, only) if "could not be parsed" not in note]
    return figure_of(what, metric_interval(name, [only]), len(rows), "; ".join(undefined))


def _by_chance(
    name: str, outcomes: Outcomes, large: Mapping[str, np.ndarray], gap: float, seed: int
) -> tuple[float, float]:
    """Return (mean gap, share of gaps at least as large) when rows are dealt to groups of these sizes by chance."""
    pool = np.concatenate(list(large.values()))
    dealt = np.repeat(np.arange(len(large)), [len(rows) for rows in large.values()])
    rows, value, generator = columns(name, outcomes)[pool], metric(name).value, np.random.default_rng(seed)
    gaps = np.empty(_SHUFFLES)
    for start in range(0, _SHUFFLES, _AT_ONCE):
        hands = generator.permuted(np.tile(dealt, (_AT_ONCE, 1)), axis=1)
        weights = (hands[:, None, :] == np.arange(len(large))[:, None]).reshape(-1, len(pool)).astype(np.float64)
        values = value(np.asarray(rows.T @ weights.T).T).reshape(_AT_ONCE, len(large))
        gaps[start : start + _AT_ONCE] = values.max(1) - values.min(1)
    return float(gaps.mean()), float(1 + (gaps >= gap - 1e-12).sum()) / (1 + _SHUFFLES)


def _score(name: str, outcomes: Outcomes, rows: np.ndarray) -> float:
    return score(name, outcomes, _mask(len(outcomes), rows).astype(np.float64))


def _mask(length: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(length, dtype=np.bool_)
    mask[rows] = True
    return mask
