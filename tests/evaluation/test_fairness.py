from __future__ import annotations

import numpy as np
import pytest

from taskfit.errors import DataError
from taskfit.evaluation.fairness import MOST_GROUPS, group_gaps
from taskfit.evaluation.metrics import score
from tests.evaluation.build import chosen, judged


def in_groups(run, size: int) -> dict[str, str]:
    """Put rows into groups of one size, in order."""
    return {row_id: f"g{place // size}" for place, row_id in enumerate(run.row_ids)}


def test_the_gap_is_the_best_less_the_worst_group() -> None:
    """Every group with its own figure and interval."""
    run = chosen([True] * 9 + [False] + [True] * 5 + [False] * 5)
    side = group_gaps("accuracy", run, in_groups(run, 10), field="dialect")
    assert side.headline is not None
    assert side.headline.value == pytest.approx(0.4)
    assert "best g0, worst g1" in side.headline.note
    assert [figure.value for figure in side.figures] == [0.9, 0.5]
    assert all(figure.low is not None and figure.rows == 10 for figure in side.figures)


def test_gaps_by_chance_are_told_and_true_ones_found() -> None:
    """By simulation: the p-value keeps its level when all groups are served alike, and finds a large gap."""
    generator, called, studies = np.random.default_rng(0), 0, 60
    for _ in range(studies):
        run = chosen((generator.random(60) < 0.7).tolist())
        side = group_gaps("accuracy", run, in_groups(run, 20), field="f")
        assert side.headline is not None
        called += float(side.headline.note.rpartition("= ")[2]) < 0.05
    assert called <= 8
    run = chosen([True] * 40 + [False] * 25 + [True] * 15)
    side = group_gaps("accuracy", run, in_groups(run, 40), field="f")
    assert side.headline is not None
    assert float(side.headline.note.rpartition("= ")[2]) < 0.01


def test_lower_is_better_for_losses() -> None:
    """The best group is the one with the smallest loss."""
    run = judged([0, 0, 0, 0], [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    side = group_gaps("nll", run, in_groups(run, 2), field="f")
    assert side.headline is not None
    assert "best g0, worst g1" in side.headline.note


def test_a_group_of_one_row_has_a_figure_and_no_part_in_the_gap() -> None:
    """Said, not NaN; with fewer than two larger groups nothing is compared."""
    run = chosen([True] * 5 + [False])
    side = group_gaps("accuracy", run, in_groups(run, 5), field="f")
    assert side.headline is None
    assert side.reason == "f has 1 group of two rows or more; a gap needs two"
    alone = side.figures[1]
    assert (alone.value, alone.low, alone.rows) == (0.0, None, 1)
    assert "a single row" in alone.note
    three = chosen([True] * 5 + [False] * 5 + [True])
    found = group_gaps("accuracy", three, in_groups(three, 5), field="f")
    assert found.headline is not None
    assert found.headline.rows == 10


def test_a_metric_undefined_in_a_group_is_told() -> None:
    """One right label only: the correlation is given as 0, and the note says so."""
    run = judged([0, 0, 0, 1, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])
    side = group_gaps("mcc", run, in_groups(run, 3), field="f")
    assert "undefined" in side.figures[0].note
    assert side.figures[1].note == ""
    assert not any(np.isnan(figure.value) for figure in side.figures)


def test_metrics_of_counts_have_gaps_too() -> None:
    """Computed within each group."""
    run = judged([0, 1, 0, 1], [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    side = group_gaps("macro_f1", run, in_groups(run, 2), field="f")
    keep = np.array([True, True, False, False])
    assert side.figures[0].value == pytest.approx(score("macro_f1", run.only(keep)))
    assert side.headline is not None
    assert side.headline.value == pytest.approx(side.figures[0].value - side.figures[1].value)


def test_rows_without_a_group_are_left_out_and_told() -> None:
    """A missing value is no group of people."""
    run = chosen([True, False] * 4)
    groups = in_groups(run, 3) | {run.row_ids[-1]: "", run.row_ids[-2]: ""}
    side = group_gaps("accuracy", run, groups, field="f")
    assert side.headline is not None
    assert side.headline.rows == 6
    assert side.notes == ("2 rows have no f",)


def test_fields_that_name_rows_and_rows_without_any_group_are_refused() -> None:
    """Ids are no groups."""
    run = chosen([True] * (MOST_GROUPS + 1))
    with pytest.raises(DataError, match="51 values, more than 50"):
        group_gaps("accuracy", run, {row_id: row_id for row_id in run.row_ids}, field="id")
    with pytest.raises(DataError, match="1 rows are in no group"):
        group_gaps("accuracy", run, dict.fromkeys(run.row_ids[1:], "a"), field="f")
