from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.intervals import (
    bootstrap_interval,
    hierarchical_interval,
    jackknife_interval,
    metric_interval,
    wilson,
)
from taskfit.evaluation.metrics import METRICS, score
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.resampling import jackknife, resampled, seed_weights, unit_weights
from tests.evaluation.build import chosen, classified, generated, judged


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
    """250 simulated test sets; the true macro F1 comes from one very large one."""
    truth = score("macro_f1", three_classes(200_000, 0.7, 10))
    hits = 0
    for seed in range(250):
        found = bootstrap_interval("macro_f1", three_classes(150, 0.7, seed), resamples=300, seed=seed)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 250 <= 0.99


def many_labels(rows: int, seed: int) -> Outcomes:
    """Forty labels, answered rightly four times out of five."""
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 40, rows)
    predicted = np.where(generator.random(rows) < 0.8, gold, generator.integers(0, 40, rows))
    return classified(gold.tolist(), predicted.tolist(), 40)


def test_with_many_labels_only_the_jackknife_covers_macro_f1() -> None:
    """Five rows a label: resamples lose labels, so bootstrap intervals lie too low."""
    truth, hits = score("macro_f1", many_labels(100_000, 10)), np.zeros(2)
    for seed in range(120):
        run = many_labels(200, seed)
        found = metric_interval("macro_f1", [run]), bootstrap_interval("macro_f1", run, resamples=150, seed=seed)
        hits += [each.low <= truth <= each.high for each in found]
    assert hits[0] / 120 >= 0.91
    assert hits[1] / 120 <= 0.90


def test_a_rare_label_that_is_always_right_does_not_narrow_balanced_accuracy() -> None:
    """Three rows in a hundred: their recall seems certain more often than not."""
    generator, hits, naive = np.random.default_rng(4), 0, 0
    for _ in range(150):
        gold = (generator.random(150) < 0.03).astype(int)
        gold[0] = 1
        right = generator.random(150) < 0.9
        run = classified(gold.tolist(), np.where(right, gold, 1 - gold).tolist(), 2)
        found, plain = metric_interval("balanced_accuracy", [run]), jackknife_interval("balanced_accuracy", [run])
        hits += found.low <= 0.9 <= found.high
        naive += plain.low <= 0.9 <= plain.high
    assert hits / 150 >= 0.89
    assert naive / 150 <= 0.75


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_jackknife_covers_over_rows_and_few_seeds(seeds: int) -> None:
    """Skills that vary from seed to seed by more than rows do: two seeds are few, and the interval knows it."""
    generator, hits, narrow = np.random.default_rng(12), 0, 0
    for study in range(150):
        ease = generator.normal(0, 1, 150)
        skills = generator.normal(0.6, 0.25, seeds)
        runs = [chosen((ease + skill + generator.normal(0, 0.6, 150) > 0).tolist()) for skill in skills]
        truth = 0.69018  # normal_cdf(0.6 / sqrt(1 + 0.25**2 + 0.6**2))
        found = metric_interval("accuracy", runs)
        hits += found.low <= truth <= found.high
        plain = hierarchical_interval("accuracy", runs, resamples=100, seed=study)
        narrow += plain.low <= truth <= plain.high
    assert hits / 150 >= 0.92
    assert hits > narrow


def test_few_groups_widen_the_interval() -> None:
    """Twelve dialogues of ten rows each, right or wrong together: the interval of accuracy covers over groups."""
    generator, hits = np.random.default_rng(13), 0
    groups = [str(row // 10) for row in range(120)]
    for _ in range(150):
        skills = np.repeat(generator.beta(3, 2, 12), 10)
        found = metric_interval("accuracy", [chosen((generator.random(120) < skills).tolist(), groups=groups)])
        hits += found.low <= 0.6 <= found.high
    assert hits / 150 >= 0.91


def test_a_single_group_tells_nothing() -> None:
    """Its interval is the whole range; no division by 0."""
    found = metric_interval("accuracy", [chosen([True, False], groups=["g", "g"])])
    assert (found.low, found.value, found.high) == (0.0, 0.5, 1.0)
    assert "tells nothing" in found.method
    assert metric_interval("mcc", [classified([0, 1], [0, 0], 2, groups=["g", "g"])]).low == -1.0


def test_intervals_stay_within_the_range_of_the_metric() -> None:
    """However few the rows; losses have no upper end."""
    sure = judged([0, 1, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.0, 1.0]])
    for name, entry in METRICS.items():
        if "classification" in entry.kinds:
            found = metric_interval(name, [sure])
            assert entry.lowest <= found.low <= found.value <= found.high <= entry.highest, name
    two = metric_interval("accuracy", [chosen([True] * 9 + [False]), chosen([True] * 3 + [False] * 7)])
    assert 0.1 < two.low < 0.25 and two.high > 0.9  # half the range apart: as bad as luck can be, no worse
    assert 0.9 < two.high <= 1


def test_hierarchical_interval_covers_the_truth_over_rows_and_seeds() -> None:
    """200 studies of four seeds, whose mean skill varies from seed to seed."""
    generator = np.random.default_rng(11)
    hits = 0
    for seed in range(200):
        ease = generator.normal(0, 1, 150)
        skills = generator.normal(0.6, 0.12, 4)
        runs = [chosen((ease + skill + generator.normal(0, 0.6, 150) > 0).tolist()) for skill in skills]
        found = hierarchical_interval("accuracy", runs, resamples=200, seed=seed)
        hits += found.low <= 0.69560 <= found.high  # normal_cdf(0.6 / sqrt(1 + 0.12**2 + 0.6**2))
    assert 0.91 <= hits / 200 <= 0.99


def test_the_interval_to_print_fits_the_runs() -> None:
    """Wilson or jackknife, and never of width 0."""
    mixed, perfect = chosen([True] * 15 + [False] * 5), chosen([True] * 20)
    assert metric_interval("accuracy", [mixed]).method == "Wilson"
    assert metric_interval("accuracy", [mixed, perfect]).method == "jackknife over rows and 2 seeds"
    alike = metric_interval("accuracy", [perfect, perfect])
    assert (alike.value, alike.high) == (1.0, 1.0)
    assert alike.low == pytest.approx(wilson(20, 20).low)
    nothing = metric_interval("macro_f1", [classified([0, 1] * 10, [1, 0] * 10, 2)])
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(wilson(0, 20).high)
    assert metric_interval("macro_f1", [three_classes(30, 0.7, 1)]).method == "jackknife over rows"
    assert metric_interval("balanced_accuracy", [three_classes(30, 0.7, 1)]).method == "Wilson, over labels"
    texts = generated([["a b c d"]] * 10, ["a b x y", "c d"] * 5)
    assert metric_interval("token_f1", [texts]).method == "jackknife over rows"
    grouped = chosen([True] * 15 + [False] * 5, groups=[str(row // 2) for row in range(20)])
    assert metric_interval("accuracy", [grouped]).method == "jackknife over groups of rows"


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
