from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ttest_rel

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.metrics import score
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.paired import (
    compare_paired,
    holm,
    mcnemar,
    minimum_detectable_difference,
    pooled_seed_noise,
    rows_needed,
)
from tests.evaluation.build import chosen, classified, generated, judged

Generator = np.random.Generator


def runs_of(ease: np.ndarray, skill: float, luck: float, seeds: int, generator: Generator) -> list[Outcomes]:
    """Simulate a strategy: a row is right when its ease, the skill, the seed's luck and noise sum above 0."""
    sums = [ease + skill + generator.normal(0, luck) + generator.normal(0, 0.5, len(ease)) for _ in range(seeds)]
    return [chosen((total > 0).tolist()) for total in sums]


def share_called_different(gap: float, seeds: int, luck: float, *, part: str = "p_value", studies: int = 80) -> float:
    """Simulate many studies and return how often two strategies were called different at 5 %."""
    generator = np.random.default_rng(1)
    called = 0
    for study in range(studies):
        ease = generator.normal(0, 1, 150)
        a, b = (runs_of(ease, skill, luck, seeds, generator) for skill in (0.6 + gap, 0.6))
        found = compare_paired("accuracy", a, b, permutations=200, seed=study)
        called += getattr(found, part) < 0.05
    return called / studies


def test_equal_strategies_are_rarely_called_different() -> None:
    """Type-I error near 5 % at most, one seed and several, with and without luck of seeds; two seeds as well."""
    assert share_called_different(0.0, 1, 0.0) <= 0.09
    assert share_called_different(0.0, 3, 0.2) <= 0.09
    assert share_called_different(0.0, 2, 0.1) <= 0.07
    assert share_called_different(0.0, 2, 0.3) <= 0.09


def test_rows_alone_would_mistake_lucky_seeds_for_a_difference() -> None:
    """Why the second test is there: with luck of seeds, the permutation test over rows is far from 5 %."""
    assert share_called_different(0.0, 3, 0.2, part="p_rows") > 0.25


def test_a_real_difference_is_found() -> None:
    """Power: eleven points of accuracy on 150 rows."""
    assert share_called_different(0.4, 1, 0.0, studies=60) > 0.7
    assert share_called_different(0.4, 3, 0.05, studies=60) > 0.8


def test_seeds_that_share_their_luck_tell_small_differences_and_no_false_ones() -> None:
    """Runs of a seed learn from the same rows: five points, hidden by ten times the luck, are found."""
    called = {0.0: 0, 0.35: 0}
    for gap in called:
        for study in range(40):
            generator = np.random.default_rng([study, 17])
            ease, luck = generator.normal(0, 1, 400), generator.normal(0, 0.4, 5)
            a, b = ([runs_of(ease, 0.6 + more + each, 0.05, 1, generator)[0] for each in luck] for more in (gap, 0.0))
            called[gap] += (compare_paired("accuracy", a, b, permutations=200, seed=study).p_seeds or 1) < 0.05
    assert called[0.0] <= 4 and called[0.35] >= 30


def test_the_difference_interval_holds_the_truth() -> None:
    """Equal strategies with lucky seeds, two and three of them: the interval holds 0 in at least about 95 %."""
    generator = np.random.default_rng(3)
    for seeds in (2, 3):
        hits = 0
        for study in range(60):
            ease = generator.normal(0, 1, 150)
            a, b = (runs_of(ease, 0.6, 0.2, seeds, generator) for _ in range(2))
            found = compare_paired("accuracy", a, b, permutations=100, seed=study)
            hits += found.low <= 0 <= found.high
        assert hits >= 54


def test_the_interval_and_the_seed_test_agree() -> None:
    """Where the interval leaves out 0, the test says so too; the interval is the more careful of the two."""
    generator = np.random.default_rng(5)
    for seeds in (1, 2, 3):
        ease = generator.normal(0, 1, 100)
        a, b = (runs_of(ease, skill, 0.05, seeds, generator) for skill in (1.0, 0.2))
        found = compare_paired("accuracy", a, b, permutations=2000)
        if found.low > 0 or found.high < 0:
            assert found.p_seeds is None or found.p_seeds < 0.05
        half = found.high - found.difference
        assert found.difference - found.low == pytest.approx(half)
    assert compare_paired("accuracy", a, b, level=0.5, permutations=100).high < found.high


def test_large_differences_are_found_though_seeds_are_few() -> None:
    """A strategy without seeds against two lucky seeds: by the pair alone, for luck has a bound, and by the study."""
    for is_pooled in (False, True):
        assert called_different_with_five(0.4, is_pooled=is_pooled) >= 0.9
        assert called_different_with_five(0.0, is_pooled=is_pooled) <= 0.12


def called_different_with_five(gap: float, *, is_pooled: bool, studies: int = 40) -> float:
    """Share of studies of six strategies, one of them without seeds, in which that and the first are called apart."""
    found = 0
    for study in range(studies):
        generator = np.random.default_rng([study, 11])
        ease = generator.normal(size=160)
        fixed = runs_of(ease, gap * 4, 0.0, 1, generator)
        runs = [fixed, *(runs_of(ease, 0.0, 0.3, 2, generator) for _ in range(5))]
        noise = pooled_seed_noise("accuracy", runs) if is_pooled else None
        found += compare_paired("accuracy", runs[0], runs[1], permutations=300, seed_noise=noise).p_value < 0.05
    return found / studies


def test_swapping_the_strategies_mirrors_everything() -> None:
    """Difference and interval change sign; the tests say the same."""
    generator = np.random.default_rng(4)
    ease = generator.normal(0, 1, 80)
    a, b = runs_of(ease, 0.8, 0.1, 1, generator), runs_of(ease, 0.4, 0.1, 1, generator)
    one, other = compare_paired("accuracy", a, b), compare_paired("accuracy", b, a)
    assert one.difference == -other.difference == pytest.approx(one.value_a - one.value_b)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-12)
    assert one.p_seeds is None
    assert (one.rows, one.runs_a, one.runs_b) == (80, 1, 1)


def test_the_swap_test_equals_counting_all_swaps() -> None:
    """Exact p-value by all 2^10 swaps of macro F1, within the sampling error of 20,000 random ones."""
    generator = np.random.default_rng(5)
    gold = generator.integers(0, 3, 10)
    first = np.where(generator.random(10) < 0.9, gold, 0)
    second = np.where(generator.random(10) < 0.4, gold, 1)

    def macro(codes: np.ndarray) -> float:
        return score("macro_f1", classified(gold.tolist(), codes.tolist(), 3))

    seen = abs(macro(first) - macro(second))
    extreme = 0
    for swaps in itertools.product([False, True], repeat=10):
        one, other = np.where(swaps, second, first), np.where(swaps, first, second)
        extreme += abs(macro(one) - macro(other)) >= seen - 1e-12
    runs = [[classified(gold.tolist(), codes.tolist(), 3)] for codes in (first, second)]
    found = compare_paired("macro_f1", runs[0], runs[1], permutations=20_000)
    assert found.p_rows == pytest.approx(extreme / 2**10, abs=0.012)


def test_with_deterministic_strategies_the_seed_test_is_the_paired_t_test() -> None:
    """Equal runs have no spread between seeds, so scipy's paired t test remains."""
    generator = np.random.default_rng(6)
    a = chosen((generator.random(60) < 0.8).tolist())
    b = chosen((generator.random(60) < 0.6).tolist())
    found = compare_paired("accuracy", [a, a, a], [b])
    right = [np.array([float(answer == "a") for answer in run.answers]) for run in (a, b)]
    assert found.p_seeds == pytest.approx(ttest_rel(*right).pvalue, rel=1e-9)


def test_identical_strategies_have_no_difference_but_an_interval() -> None:
    """P is 1; that they are alike on other rows too is the surer, the more rows there are."""
    run = generated([["a b"], ["c d"], ["e f"]], ["a b", "c", "x"])
    found = compare_paired("rouge_l", [run], [run])
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert compare_paired("rouge_l", [run, run], [run, run]).p_value == 1.0
    halves = []
    for rows in (20, 200):
        same = chosen([True, False] * (rows // 2))
        halves.append(compare_paired("accuracy", [same], [same]).high)
    assert 0.10 < halves[0] < 0.20
    assert halves[1] == pytest.approx(halves[0] / 10, rel=0.2)


def test_one_row_proves_nothing() -> None:
    """A single row gives p 1 and the widest interval, not an error and not a verdict."""
    found = compare_paired("accuracy", [chosen([True])] * 2, [chosen([False])] * 2)
    assert found.p_value == 1.0
    assert (found.low, found.high) == (0.0, 2.0)


def test_calibration_of_two_runs_can_be_compared() -> None:
    """Bins and ranks of a run are its own, so rows are not swapped but tested by what each adds."""
    generator = np.random.default_rng(6)
    shares = generator.dirichlet(np.ones(2), 200)
    gold = [int(generator.choice(2, p=row)) for row in shares]
    sharp = shares**4 / (shares**4).sum(1, keepdims=True)
    honest, boastful = judged(gold, shares.tolist()), judged(gold, sharp.tolist())
    for name in ("nll", "ece_adaptive", "ece_10"):
        found = compare_paired(name, [honest], [boastful], permutations=500)
        assert found.difference < 0, name
        assert found.p_value < 0.05, name
    assert "pseudo-values" in compare_paired("aurc", [honest], [boastful]).method
    assert compare_paired("aurc", [honest], [honest]).p_value == 1.0
    one = judged([0], [[0.6, 0.4]])
    assert compare_paired("aurc", [one], [one]).p_value == 1.0


def test_a_constant_gap_without_any_spread_is_a_difference() -> None:
    """Every row differs in the same way: the t test's variance is 0, the permutation test decides."""
    found = compare_paired("accuracy", [chosen([True] * 30)] * 2, [chosen([False] * 30)] * 2)
    assert found.p_seeds == 0.0
    assert found.p_value == found.p_rows < 0.001


def test_groups_weaken_the_evidence_of_copied_rows() -> None:
    """Copies of a row in one group count once."""
    generator = np.random.default_rng(7)
    a, b = (generator.random(30) < 0.8).tolist(), (generator.random(30) < 0.5).tolist()
    once = compare_paired("accuracy", [chosen(a)], [chosen(b)])
    groups = [str(row) for row in range(30) for _ in range(8)]
    many = [chosen([right for right in rights for _ in range(8)], groups=groups) for rights in (a, b)]
    found = compare_paired("accuracy", [many[0]], [many[1]])
    assert found.p_value == pytest.approx(once.p_value, abs=0.02)
    assert "groups" in found.method


def test_mcnemar_is_the_binomial_test_of_the_discordant_rows() -> None:
    """By hand: 8 against 2 discordant rows have p = 2 * (1 + 10 + 45) / 1024."""
    a = chosen([True] * 8 + [False] * 2 + [True] * 5)
    b = chosen([False] * 8 + [True] * 2 + [True] * 5)
    found = mcnemar(a, b)
    assert (found.only_a_right, found.only_b_right) == (8, 2)
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert found.mid_p == pytest.approx((2 * (1 + 10) + 45) / 1024)
    assert found.p_worse == pytest.approx(1 - (1 + 10 + 45 / 2) / 1024)
    assert mcnemar(b, a).p_worse == pytest.approx((1 + 10 + 45 / 2) / 1024)
    assert (mcnemar(a, a).p_value, mcnemar(a, a).mid_p, mcnemar(a, a).p_worse) == (1.0, 1.0, 0.5)
    even = mcnemar(chosen([True, False, True]), chosen([False, True, True]))
    assert (even.p_value, even.mid_p) == (1.0, 1.0)
    texts = mcnemar(generated([["x"], ["y"]], ["x", "y"]), generated([["x"], ["y"]], ["x", "z"]))
    assert (texts.only_a_right, texts.only_b_right) == (1, 0)
    with pytest.raises(DataError, match="same rows"):
        mcnemar(a, chosen([True]))


def test_holm_by_hand() -> None:
    """Smallest times 4, next times 3 …, never falling, never above 1, in the order given."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ConfigError, match="between 0 and 1"):
        holm([1.2])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_values_and_bonferroni(p_values: list[float]) -> None:
    """And is never kinder than the control of false discoveries."""
    adjusted = holm(p_values)
    for raw, found, kinder in zip(p_values, adjusted, false_discovery_control(p_values), strict=True):
        assert raw <= found <= min(1.0, raw * len(p_values)) + 1e-12
        assert found >= kinder - 1e-12


def test_the_detectable_difference_falls_with_the_root_of_rows() -> None:
    """Four times the rows, half the difference; more power needs more."""
    few, many = minimum_detectable_difference(500), minimum_detectable_difference(2000)
    assert few == pytest.approx(2 * many, rel=0.03)
    assert minimum_detectable_difference(500, power=0.95) > few
    assert minimum_detectable_difference(2) == 1.0
    assert minimum_detectable_difference(20, discordance=0.05) > 0.05
    for rows, discordance in ((0, 0.2), (10, 0.0), (10, 1.1)):
        with pytest.raises(ConfigError, match="rows of at least 1"):
            minimum_detectable_difference(rows, discordance=discordance)


@pytest.mark.parametrize(("rows", "discordance"), [(100, 0.2), (730, 0.2), (5000, 0.05)])
def test_rows_needed_is_the_detectable_difference_read_backwards(rows: int, discordance: float) -> None:
    """A difference that so many rows can just show needs so many rows."""
    gap = minimum_detectable_difference(rows, discordance=discordance)
    assert rows_needed(gap, discordance=discordance) in (rows, rows + 1)
    assert rows_needed(gap / 2, discordance=discordance) > 3 * rows
    for difference in (0.0, 1.2):
        with pytest.raises(ConfigError, match="shares between 0 and 1"):
            rows_needed(difference)


def test_the_detectable_difference_is_detected_as_often_as_it_says() -> None:
    """McNemar on simulated test sets that differ by just so much: found in about 80 %."""
    rows, generator, found = 300, np.random.default_rng(8), 0
    gap = minimum_detectable_difference(rows, discordance=0.2, power=0.8)
    for _ in range(200):
        kind = generator.random(rows)
        only_a, only_b = kind < (0.2 + gap) / 2, (kind >= (0.2 + gap) / 2) & (kind < 0.2)
        both = generator.random(rows) < 0.7
        found += (
            mcnemar(chosen((only_a | (both & ~only_b)).tolist()), chosen((only_b | (both & ~only_a)).tolist())).p_value
            < 0.05
        )
    assert 0.70 <= found / 200 <= 0.89


def test_runs_over_other_rows_are_refused() -> None:
    """A comparison is paired or it is not made."""
    with pytest.raises(DataError, match="same rows"):
        compare_paired("accuracy", [chosen([True, False])], [chosen([True])])
