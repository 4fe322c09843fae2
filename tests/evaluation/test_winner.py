from __future__ import annotations

import numpy as np
import pytest

from taskfit.errors import DataError
from taskfit.evaluation.metrics import score
from taskfit.evaluation.winner import corrected_winner
from tests.evaluation.build import chosen, classified


def test_the_bias_of_the_best_of_many_shrinks() -> None:
    """Eight candidates of the same true accuracy 0.7: the best looks better than 0.7, the corrected figure hardly."""
    generator = np.random.default_rng(0)
    naive, corrected = [], []
    for study in range(100):
        candidates = {f"c{number}": [chosen((generator.random(120) < 0.7).tolist())] for number in range(8)}
        found = corrected_winner("accuracy", candidates, resamples=200, seed=study)
        naive.append(found.value - 0.7)
        corrected.append(found.corrected - 0.7)
    assert np.mean(naive) > 0.04
    assert abs(np.mean(corrected)) < 0.4 * np.mean(naive)


def test_a_clear_winner_keeps_its_figure() -> None:
    """Where luck had no part, nothing is taken away."""
    generator = np.random.default_rng(1)
    good = chosen((generator.random(200) < 0.9).tolist())
    poor = chosen((generator.random(200) < 0.5).tolist())
    found = corrected_winner("accuracy", {"poor": [poor], "good": [good]})
    assert found.name == "good"
    assert found.value == score("accuracy", good)
    assert found.corrected == pytest.approx(found.value, abs=1e-9)
    assert found.picked == {"poor": 0.0, "good": 1.0}
    assert found.low < found.value < found.high


def test_a_single_candidate_needs_no_correction_for_a_metric_of_counts() -> None:
    """Macro F1 on fewer rows is off; that must not look like luck."""
    generator = np.random.default_rng(2)
    gold = generator.integers(0, 8, 60)
    predicted = np.where(generator.random(60) < 0.7, gold, generator.integers(0, 8, 60))
    run = classified(gold.tolist(), predicted.tolist(), 8)
    found = corrected_winner("macro_f1", {"only": [run, run]})
    assert found.corrected == pytest.approx(found.value, abs=1e-9)
    assert found.picked == {"only": 1.0}


def test_few_groups_leave_the_figure_within_what_was_seen() -> None:
    """Of three groups, two resamples in nine draw all: they leave no row to be scored on, and no row is not 0."""
    run = chosen([row % 10 != 0 for row in range(30)], groups=[str(row % 3) for row in range(30)])
    found = corrected_winner("accuracy", {"only": [run]})
    assert (found.low, found.corrected, found.high) == pytest.approx((0.9, 0.9, 0.9))
    one_group = chosen([True, False], groups=["a", "a"])
    assert corrected_winner("accuracy", {"only": [one_group]}).corrected == pytest.approx(0.5)


def test_several_seeds_are_averaged() -> None:
    """The figure of a candidate is the mean over its runs."""
    runs = [chosen([True] * 8 + [False] * 2), chosen([True] * 6 + [False] * 4)]
    assert corrected_winner("accuracy", {"one": runs}).value == pytest.approx(0.7)


def test_candidates_must_answer_the_same_rows() -> None:
    """As everywhere."""
    with pytest.raises(DataError, match="same rows"):
        corrected_winner("accuracy", {"one": [chosen([True])], "two": [chosen([True, False])]})
    with pytest.raises(DataError, match="at least one run"):
        corrected_winner("accuracy", {})
