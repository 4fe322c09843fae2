from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.calibration import reliability
from taskfit.evaluation.intervals import bootstrap_interval, metric_interval
from taskfit.evaluation.metrics import METRICS, notes, score
from taskfit.evaluation.outcomes import Outcomes, outcomes
from tests.evaluation.build import chosen, judged

FIGURES = ("nll", "brier", "ece_10", "ece_15", "ece_adaptive", "aurc", "selective_accuracy")
seeds = st.integers(0, 10_000)


def some_run(seed: int, *, rows: int = 60, is_coarse: bool = False) -> tuple[list[int], np.ndarray, Outcomes]:
    """Right labels, probabilities, and the outcomes; coarse ones have many ties."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(3) * 0.7, rows)
    if is_coarse:
        shares = generator.choice([0.05, 0.15, 0.3], (rows, 3)) + np.eye(3)[generator.integers(0, 3, rows)]
        shares /= shares.sum(1, keepdims=True)
    gold = [int(generator.choice(3, p=row)) for row in shares]
    return gold, shares, judged(gold, shares.tolist())


def sure_and_right(gold: list[int], shares: np.ndarray) -> list[tuple[float, bool]]:
    """Confidence and rightness of each row."""
    return [(float(row.max()), int(row.argmax()) == right) for right, row in zip(gold, shares, strict=True)]


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_likelihood_and_brier_agree_with_scikit_learn(seed: int) -> None:
    """Three labels; the Brier score in its form for several labels."""
    gold, shares, found = some_run(seed)
    assert score("nll", found) == pytest.approx(log_loss(gold, shares, labels=[0, 1, 2]), abs=1e-9)
    expected = brier_score_loss(gold, shares, labels=[0, 1, 2], scale_by_half=False)
    assert score("brier", found) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([("ece_10", 10), ("ece_15", 15)]))
def test_calibration_error_is_the_sum_over_bins(seed: int, is_coarse: bool, which: tuple[str, int]) -> None:
    """In plain loops over bins and rows."""
    gold, shares, found = some_run(seed, is_coarse=is_coarse)
    name, bins = which
    rows, total = sure_and_right(gold, shares), 0.0
    for number in range(bins):
        low, high = np.linspace(0, 1, bins + 1)[number : number + 2]
        here = [(sure, right) for sure, right in rows if low < sure <= high]
        if here:
            total += abs(sum(right for _, right in here) - sum(sure for sure, _ in here))
    assert score(name, found) == pytest.approx(total / len(rows), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_adaptive_bins_hold_equally_many_rows(seed: int) -> None:
    """Without ties: sort, cut into ten, add up."""
    gold, shares, found = some_run(seed)
    rows = sorted(sure_and_right(gold, shares))
    pieces = [rows[start : start + 6] for start in range(0, 60, 6)]
    total = sum(abs(sum(right for _, right in piece) - sum(sure for sure, _ in piece)) for piece in pieces)
    assert score("ece_adaptive", found) == pytest.approx(total / 60, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans())
def test_selection_agrees_with_loops_over_thresholds(seed: int, is_coarse: bool) -> None:
    """A row brings with it all rows that are as sure."""
    gold, shares, found = some_run(seed, is_coarse=is_coarse)
    rows = sure_and_right(gold, shares)
    risks = []
    for sure, _ in rows:
        answered = [right for other, right in rows if other >= sure]
        risks.append(1 - sum(answered) / len(answered))
    assert score("aurc", found) == pytest.approx(np.mean(risks), abs=1e-9)
    least = sorted((sure for sure, _ in rows), reverse=True)[5]  # the sixth of sixty rows
    taken = [right for sure, right in rows if sure >= least]
    assert score("selective_accuracy", found) == pytest.approx(np.mean(taken), abs=1e-9)


def test_the_reliability_diagram_adds_up_to_the_calibration_error() -> None:
    """Bins without rows are left out."""
    _, _, found = some_run(3)
    bins = reliability(found)
    assert sum(each.rows for each in bins) == 60
    assert all(each.low <= each.mean_confidence <= each.high for each in bins)
    total = sum(each.rows * abs(each.accuracy - each.mean_confidence) for each in bins) / 60
    assert score("ece_10", found) == pytest.approx(total, abs=1e-9)
    with pytest.raises(ConfigError, match="bins must be at least 1"):
        reliability(found, bins=0)


def test_weights_count_rows_as_often_as_they_say() -> None:
    """Where bins and ranks are the run's own, copies of a row are ties."""
    gold, shares, found = some_run(5)
    weights = np.random.default_rng(1).multinomial(60, np.ones(60) / 60).astype(float)
    drawn = np.repeat(np.arange(60), weights.astype(int))
    copied = judged([gold[row] for row in drawn], shares[drawn].tolist())
    for name in ("nll", "brier", "ece_10", "ece_15", "aurc", "selective_accuracy"):
        assert score(name, found, weights) == pytest.approx(score(name, copied), abs=1e-9), name


def test_an_answer_that_is_not_the_likeliest_is_as_sure_as_its_own_probability() -> None:
    """A strategy may correct the model's scores; and an unparsed answer is wrong however likely."""
    found = outcomes(
        "choice",
        ["a", "b"],
        [("x",), ("x",)],
        ["y", ""],
        is_parsed=[True, False],
        probabilities=[{"x": 0.7, "y": 0.3}, {"x": 0.6, "y": 0.4}],
    )
    assert [each.mean_confidence for each in reliability(found)] == pytest.approx([0.3, 0.6])
    assert score("ece_10", found) == pytest.approx((0.3 + 0.6) / 2)


def test_the_right_answers_of_a_row_share_its_likelihood() -> None:
    """And an impossible right answer has a large loss, not an infinite one."""
    found = outcomes("choice", ["a"], [("x", "y")], ["x"], probabilities=[{"x": 0.5, "y": 0.25, "z": 0.25}])
    assert score("nll", found) == pytest.approx(-np.log(0.75))
    assert score("brier", found) == pytest.approx(0.25 + 2 * 0.0625)
    lost = outcomes("choice", ["a"], [("x",)], ["y"], probabilities=[{"x": 0.0, "y": 1.0}])
    assert score("nll", lost) == pytest.approx(36.04, abs=0.01)


def test_intervals_of_calibration_lie_around_the_figure() -> None:
    """Rows are resampled as for any metric."""
    _, _, found = some_run(8, rows=150)
    for name in FIGURES:
        interval = bootstrap_interval(name, found, resamples=200)
        assert interval.low <= interval.high
        assert interval.high - interval.low < 0.5, name


def test_the_error_by_chance_is_what_well_calibrated_runs_show() -> None:
    """On average over runs drawn from their own probabilities; the note says it."""
    generator, shown, said = np.random.default_rng(0), [], []
    for _ in range(120):
        sure = generator.uniform(0.5, 1.0, 150)
        shares = np.stack([sure, 1 - sure], axis=1)
        found = judged((generator.random(150) > sure).astype(int).tolist(), shares.tolist())
        shown.append(score("ece_10", found))
        said.append(METRICS["ece_10"].by_chance(found))
    assert np.mean(shown) == pytest.approx(np.mean(said), rel=0.05)
    assert notes("ece_10", found) == [
        f"a perfectly calibrated run over 150 rows would show about {said[-1]:.3f} by chance"
    ]


def test_the_interval_of_a_calibration_error_covers_small_and_large_ones() -> None:
    """True errors of nearly 0 and of 0.2, on 100 rows."""
    generator, hits = np.random.default_rng(1), np.zeros(2)
    for _ in range(100):
        sure = generator.uniform(0.7, 1.0, 100)
        shares = np.stack([sure, 1 - sure], axis=1)
        for place, true_error in enumerate((0.0, 0.2)):
            gold = (generator.random(100) > sure - true_error).astype(int).tolist()
            found = metric_interval("ece_10", [judged(gold, shares.tolist())])
            hits[place] += found.low <= true_error <= found.high
    assert (hits >= 91).all()


def test_a_run_without_probabilities_has_no_calibration() -> None:
    """Of any row."""
    partly = outcomes("choice", ["a", "b"], [("x",)] * 2, ["x"] * 2, probabilities=[None, {"x": 1.0}])
    for name in FIGURES:
        with pytest.raises(ConfigError, match="2 of 2 rows have none"):
            score(name, chosen([True, False]))
        with pytest.raises(ConfigError, match="1 of 2 rows have none"):
            score(name, partly)
    assert outcomes("choice", ["a"], [("x",)], ["x"], probabilities=[{}]).probabilities is None


@pytest.mark.parametrize("shares", [{"x": 0.7, "y": 0.7}, {"x": -0.5, "y": 1.5}, {"x": float("nan")}])
def test_impossible_probabilities_are_refused(shares: dict[str, float]) -> None:
    """Negative, not a number, or not summing to 1."""
    with pytest.raises(DataError, match="negative or do not sum to 1"):
        outcomes("choice", ["a"], [("x",)], ["x"], probabilities=[shares])
