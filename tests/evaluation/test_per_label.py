from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from taskfit.evaluation.intervals import wilson
from taskfit.evaluation.per_label import NO_ANSWER, label_table, most_mistaken
from tests.evaluation.build import classified


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=40))
def test_the_table_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    """Precision, recall, F1 and support of every label, unparsed answers included."""
    gold, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    table = label_table(classified(gold, predicted, 4))
    expected = precision_recall_fscore_support(gold, predicted, labels=range(4), zero_division=0)
    for row, precision, recall, f1, support in zip(table, *expected, strict=True):
        assert (row.precision.value if row.precision else 0.0) == pytest.approx(precision)
        assert (row.recall.value if row.recall else 0.0) == pytest.approx(recall)
        assert (row.f1, row.rows) == (pytest.approx(f1), support)
        assert (row.precision is None, row.recall is None) == (row.predicted == 0, row.rows == 0)


def test_precision_and_recall_have_wilson_intervals() -> None:
    """Of 3 rows 2 were found, and one answer in three was false."""
    found = label_table(classified([0, 0, 0, 1], [0, 0, 1, 0], 2))[0]
    assert (found.label, found.right) == ("label-0", 2)
    assert found.recall == wilson(2, 3)
    assert found.precision == wilson(2, 3)


def test_mistakes_are_listed_by_how_often_they_happen() -> None:
    """Right answers are none; no valid answer is a mistake of its own."""
    found = most_mistaken(classified([0, 0, 1, 1, 1, 2, 2], [1, 1, 0, -1, 1, 2, 0], 3))
    listed = [(each.gold, each.predicted, each.rows) for each in found]
    assert listed == [
        ("label-0", "label-1", 2),
        ("label-1", "label-0", 1),
        ("label-1", NO_ANSWER, 1),
        ("label-2", "label-0", 1),
    ]
    assert most_mistaken(classified([0, 1], [0, 1], 2)) == ()
    assert len(most_mistaken(classified([0, 0, 1], [1, 1, 0], 2), most=1)) == 1
    assert np.array_equal([each.rows for each in found], [2, 1, 1, 1])
