from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.intervals import bootstrap_interval, hierarchical_interval, metric_interval, wilson
from taskfit.evaluation.metrics import score
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.resampling import jackknife, resampled, seed_weights, unit_weights
from tests.evaluation.build import chosen, classified, generated


def three_classes(rows: int, right: float, seed: int) -> Outcomes:
    """Unevenly spread classes, answered rightly with a given chance."""
    generator = np.random.default_rng(seed)
    gold = generator.choice(3, rows, p=[0.6, 0.3, 0.1])
    predicted = np.where(generator.random(rows) < right, gold, generator.integers(0, 3, rows))
    return classified(gold.tolist(), predicted.tolist(), 3)


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (3, 10), (10, 10), (81, 263)])
def test_wilson_agrees_with_scipy(right: int, rows: int) -> None:
    """Another implementation of the same formula."""
    expected = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    found = wilson(right, rows)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_wilson_refuses_impossible_counts() -> None:
    """No trials, or more successes than trials."""
    for right, rows in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ConfigError, match="successes"):
            wilson(right, rows)
    with pytest.raises(ConfigError, match="level must be between 0 and 1"):
        wilson(1, 2, level=95)


def test_bca_agrees_with_scipy() -> None:
    """Same formula, other random numbers: ends agree to a fraction of the width."""
    is_right = np.random.default_rng(1).random(80) < 0.85
    found = bootstrap_interval("accuracy", chosen(is_right.tolist()), resamples=20_000)
    expected = bootstrap(
        (is_right.astype(float),), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.013)
    assert found.high == pytest.approx(expected.high, abs=0.013)


def test_resamples_by_weights_equal_resamples_by_copies() -> None:
    """Macro F1 of each weighted resample is that of the copied rows."""
    found = three_classes(40, 0.7, 3)
    values = resampled("macro_f1", [found], 20, seed=5)[:, 0]
    weights = np.concatenate(list(unit_weights(40, 20, 5)))
    assert values == pytest.approx([score("macro_f1", found, row) for row in weights], abs=1e-12)


def test_jackknife_leaves_each_row_out_once() -> None:
    """Against weights with one zero."""
    found = three_classes(25, 0.7, 4)
    expected = [score("mcc", found, np.where(np.arange(25) == row, 0.0, 1.0)) for row in range(25)]
    assert jackknife("mcc", found) == pytest.approx(expected, abs=1e-12)


def test_weights_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the draws into blocks is the program's business alone."""
    whole = np.concatenate(list(unit_weights(7, 30, 1)))
    monkeypatch.setattr("taskfit.evaluation.resampling._BLOCK_VALUES", 20)
    pieces = list(unit_weights(7, 30, 1))
    assert len(pieces) > 10
    assert np.array_equal(np.concatenate(pieces), whole)
    assert (whole.sum(axis=1) == 7).all()


def test_seed_shares_sum_to_one_and_have_the_unbiased_spread() -> None:
    """The variance of a drawn mean is the unbiased variance over runs."""
    values = np.array([0.1, 0.5, 0.6, 0.9])
    means = seed_weights(4, 200_000, 0) @ values
    assert means.var() == pytest.approx(values.var(ddof=1) / 4, rel=0.02)
    assert seed_weights(1, 5, 0).tolist() == [[1.0]] * 5


def test_groups_are_drawn_whole() -> None:
    """Ten copies of each row, kept together, tell no more than one of each."""
    is_right = (np.random.default_rng(6).random(60) < 0.6).tolist()
    one = bootstrap_interval("accuracy", chosen(is_right), method="percentile")
    copies = [right for right in is_right for _ in range(10)]
    groups = [str(row) for row in range(60) for _ in range(10)]
    grouped = bootstrap_interval("accuracy", chosen(copies, groups=groups), method="percentile")
    naive = bootstrap_interval("accuracy", chosen(copies), method="percentile")
    assert grouped.high - grouped.low == pytest.approx(one.high - one.low, rel=0.05)
    assert naive.high - naive.low < 0.5 * (one.high - one.low)
    assert "groups" in grouped.method


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    """400 simulated test sets; the true macro F1 comes from one very large one."""
    truth = score("macro_f1", three_classes(200_000, 0.7, 10))
    hits = 0
    for seed in range(400):
        found = bootstrap_interval("macro_f1", three_classes(150, 0.7, seed), resamples=400, seed=seed)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_hierarchical_interval_covers_the_truth_over_rows_and_seeds() -> None:
    """400 studies of four seeds, whose mean skill varies from seed to seed."""
    generator = np.random.default_rng(11)
    hits = 0
    for seed in range(400):
        ease = generator.normal(0, 1, 150)
        skills = generator.normal(0.6, 0.12, 4)
        runs = [chosen((ease + skill + generator.normal(0, 0.6, 150) > 0).tolist()) for skill in skills]
        found = hierarchical_interval("accuracy", runs, resamples=300, seed=seed)
        hits += found.low <= 0.69560 <= found.high  # normal_cdf(0.6 / sqrt(1 + 0.12**2 + 0.6**2))
    assert 0.92 <= hits / 400 <= 0.99


def test_the_interval_to_print_fits_the_runs() -> None:
    """Wilson, BCa or hierarchical, and never of width 0."""
    mixed, perfect = chosen([True] * 15 + [False] * 5), chosen([True] * 20)
    assert metric_interval("accuracy", [mixed]).method == "Wilson"
    assert metric_interval("accuracy", [mixed, perfect]).method == "bootstrap over rows and 2 seeds"
    alike = metric_interval("accuracy", [perfect, perfect])
    assert (alike.value, alike.high) == (1.0, 1.0)
    assert alike.low == pytest.approx(wilson(20, 20).low)
    nothing = metric_interval("macro_f1", [classified([0, 1] * 10, [1, 0] * 10, 2)])
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(wilson(0, 20).high)
    assert metric_interval("macro_f1", [three_classes(30, 0.7, 1)]).method == "BCa bootstrap over rows"
    texts = generated([["a b c d"]] * 10, ["a b x y", "c d"] * 5)
    assert metric_interval("token_f1", [texts]).method == "BCa bootstrap over rows"
    grouped = chosen([True] * 15 + [False] * 5, groups=[str(row // 2) for row in range(20)])
    assert metric_interval("accuracy", [grouped]).method == "BCa bootstrap over groups of rows"


def test_an_interval_without_spread_falls_back_to_percentiles() -> None:
    """A constant answer has mcc 0 in every resample."""
    found = bootstrap_interval("mcc", classified([0, 1, 1, 0], [1, 1, 1, 1], 2))
    assert (found.low, found.high) == (0.0, 0.0)
    assert found.method == "percentile bootstrap over rows"
    assert metric_interval("mcc", [classified([0, 1, 1, 0], [1, 1, 1, 1], 2)]).low == 0.0


def test_the_same_seed_gives_the_same_interval() -> None:
    """And another seed another one."""
    found = three_classes(60, 0.6, 2)
    one, same, other = (bootstrap_interval("mcc", found, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_faulty_settings_are_refused() -> None:
    """Too few resamples, a level in per cent, runs over other rows."""
    found = chosen([True, False, True])
    with pytest.raises(ConfigError, match="at least 100"):
        bootstrap_interval("accuracy", found, resamples=10)
    with pytest.raises(ConfigError, match="level"):
        hierarchical_interval("accuracy", [found], level=1.0)
    with pytest.raises(DataError, match="same rows"):
        hierarchical_interval("accuracy", [found, chosen([True])])
