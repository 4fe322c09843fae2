from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from taskfit.errors import DataError
from taskfit.evaluation.outcomes import check_same_rows, outcomes, outcomes_of
from taskfit.strategy.contract import Prediction
from taskfit.tasks.task import Row
from tests.evaluation.build import chosen, classified


@dataclass
class Definition:
    """The part of a task definition that outcomes need."""

    kind: str = "choice"
    labels: tuple[str, ...] = ()
    group: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def gold(self, row: Row) -> tuple[str, ...]:
        return (str(row.fields["answer"]),)


ROWS = [Row("b", {"answer": "x", "who": "one"}), Row("a", {"answer": "y", "who": "two"})]


def test_order_of_rows_changes_nothing() -> None:
    """Outcomes stand in the order of ids, so order can show nowhere."""
    one = outcomes("choice", ["b", "a"], [("x",), ("y",)], ["x", "z"], is_parsed=[True, False])
    other = outcomes("choice", ["a", "b"], [("y",), ("x",)], ["z", "x"], is_parsed=[False, True])
    assert (one.row_ids, one.golds, one.answers) == (other.row_ids, other.golds, other.answers)
    assert one.is_parsed.tolist() == other.is_parsed.tolist() == [False, True]


def test_predictions_meet_their_rows_by_id() -> None:
    """A prediction is scored against the row that bears its id, wherever it stands."""
    found = outcomes_of(Definition(), ROWS, [Prediction("a", "y"), Prediction("b", "", is_parsed=False)])  # type: ignore[arg-type]
    assert found.golds == (("y",), ("x",))
    assert found.answers == ("y", "")
    assert found.is_parsed.tolist() == [True, False]
    assert found.groups is None


def test_groups_are_read_from_the_definitions_field() -> None:
    """Rows of one group are one unit."""
    found = outcomes_of(Definition(group="who"), ROWS, [Prediction("a", "y"), Prediction("b", "x")])  # type: ignore[arg-type]
    assert found.groups is not None
    assert found.units == 2


def test_missing_strange_and_double_predictions_are_reported_together() -> None:
    """A lost row must never make a score look better."""
    predictions = [Prediction("a", "y"), Prediction("a", "y"), Prediction("c", "y")]
    with pytest.raises(DataError, match=r"(?s)3 faults.*one prediction a row.*no prediction.*'b'.*no row.*'c'"):
        outcomes_of(Definition(), ROWS, predictions)  # type: ignore[arg-type]


def test_all_faults_of_the_columns_are_reported_together() -> None:
    """Lengths, ids, right answers and labels are checked in one go."""
    with pytest.raises(
        DataError, match=r"(?s)expected 3 answers.*'a'.*2 times.*1 rows have no right.*none of the labels"
    ):
        outcomes("classification", ["a", "a", "b"], [("x",), (), ("z",)], ["x"], labels=["x", "y"])
    with pytest.raises(DataError, match="needs labels"):
        outcomes("classification", ["a"], [("x",)], ["x"])
    with pytest.raises(DataError, match="at least one row"):
        outcomes("choice", [], [], [])
    with pytest.raises(DataError, match=r"expected 2 groups.*got 1"):
        outcomes("choice", ["a", "b"], [("x",), ("y",)], ["x", "y"], groups=["g"])


def test_runs_over_different_rows_cannot_be_compared() -> None:
    """Rows, right answers, labels and groups must be the same."""
    base = chosen([True, False])
    for other, why in (
        (chosen([True, False, True]), "1 row ids"),
        (outcomes("choice", base.row_ids, [("z",), ("a",)], ["a", "b"]), "right answers of 1 rows"),
        (outcomes("generation", base.row_ids, base.golds, ["a", "b"]), "different kinds"),
        (chosen([True, False], groups=["g", "h"]), "groups"),
    ):
        with pytest.raises(DataError, match=why):
            check_same_rows([base, other])
    with pytest.raises(DataError, match="at least one run"):
        check_same_rows([])
    check_same_rows([base, chosen([False, True])])
    check_same_rows([chosen([True, False], groups=["g", "h"]), chosen([True, True], groups=["g", "h"])])


def test_units_are_rows_or_groups() -> None:
    """What resampling draws from."""
    assert classified([0, 1, 0], [0, 0, 0], 2).units == 3
    grouped = classified([0, 1, 0], [0, 0, 0], 2, groups=["x", "y", "x"])
    assert grouped.units == 2
    assert len(grouped) == 3
    assert np.array_equal(grouped.groups if grouped.groups is not None else [], [0, 1, 0])
