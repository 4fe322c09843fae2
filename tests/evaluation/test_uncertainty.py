from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway, t

from taskfit.evaluation.metrics import score
from taskfit.evaluation.uncertainty import (
    LARGEST_LUCK,
    SeedNoise,
    Uncertainty,
    chance_beyond,
    luck_of_seeds,
    of_difference,
    of_figure,
    pooled,
    pseudo_values,
    reach,
    row_freedom,
    row_variance,
)
from tests.evaluation.build import chosen, classified


def test_rows_alone_give_students_distribution() -> None:
    """Tail and reach are those of scipy's t."""
    found = Uncertainty(0.04, 7.0)
    for distance in (-0.5, 0.0, 0.1, 0.9):
        assert found.tail(distance) == pytest.approx(t.sf(distance / 0.2, 7), abs=1e-12)
    assert found.reach(0.025) == pytest.approx(0.2 * t.isf(0.025, 7), rel=1e-5)


@pytest.mark.parametrize("freedom", [1, 2, 5])
def test_seeds_alone_give_students_distribution_too(freedom: int) -> None:
    """Averaging normal tails over what a variance estimate with few degrees of freedom leaves open is a t tail."""
    found = Uncertainty(0.0, 1e9, spread=0.04, seed_freedom=freedom)
    for distance in (0.1, 0.5, 1.0, 2.0):
        assert found.tail(distance) == pytest.approx(t.sf(distance / 0.2, freedom), abs=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 12), st.floats(0.001, 0.4))
def test_reach_undoes_tail(rows: float, spread: float, from_rows: float, freedom: int, chance: float) -> None:
    """And both sides of 0 add up to 1."""
    found = Uncertainty(rows, 20.0, spread, from_rows, freedom)
    distance = found.reach(chance)
    assert found.tail(distance) == pytest.approx(chance, rel=1e-2)
    assert found.tail(-distance) == pytest.approx(1 - found.tail(distance), abs=1e-9)


def test_without_any_variance_the_error_is_0() -> None:
    """Any distance is beyond it, or not."""
    found = Uncertainty(0.0, 9.0)
    assert (found.reach(0.025), found.tail(0.1), found.tail(-0.1), found.tail(0.0)) == (0.0, 0.0, 1.0, 0.5)


def test_of_two_ways_the_better_counts_at_half_the_level() -> None:
    """Bonferroni: chance and reach agree."""
    ways = (Uncertainty(0.01, 50.0), Uncertainty(0.04, 50.0))
    assert chance_beyond(ways, 0.3) == pytest.approx(2 * ways[0].tail(0.3))
    assert chance_beyond(ways, -0.3) == 1.0
    assert reach(ways, 0.05) == pytest.approx(ways[0].reach(0.025))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 9))
def test_the_luck_of_seeds_is_that_of_the_analysis_of_variance(seed: int, seeds: int, units: int) -> None:
    """In loops over the table of two crossed factors."""
    table = np.random.default_rng(seed).normal(size=(seeds, units))
    found = luck_of_seeds(table)
    rest = 0.0
    for run in range(seeds):
        for unit in range(units):
            rest += (table[run, unit] - table[run].mean() - table[:, unit].mean() + table.mean()) ** 2
    assert found.spread == pytest.approx(sum((row.mean() - table.mean()) ** 2 for row in table) / (seeds - 1))
    assert found.from_rows == pytest.approx(rest / (seeds - 1) / (units - 1) / units)
    assert found.freedom == seeds - 1
    # One-way analysis with the rows' effect taken out; it counts the rest's freedom as seeds x (units - 1).
    one_way = float(f_oneway(*(table - table.mean(0))).statistic)
    assert found.spread / found.from_rows == pytest.approx(one_way * (seeds - 1) / seeds, rel=1e-6)


def test_pooling_weighs_by_degrees_of_freedom() -> None:
    """As mean squares are pooled."""
    found = pooled([SeedNoise(0.04, 0.01, 1), SeedNoise(0.01, 0.03, 3)])
    assert (found.spread, found.from_rows, found.freedom) == (pytest.approx(0.0175), pytest.approx(0.025), 4)
    assert found.variance == 0.0
    assert SeedNoise(0.04, 0.01, 1).variance == pytest.approx(0.03)


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    """And of macro F1 their mean is nearer the truth than the figure, where labels have few rows."""
    run = chosen([True, False, True])
    assert pseudo_values("accuracy", [run])[0].tolist() == pytest.approx([1.0, 0.0, 1.0])
    generator = np.random.default_rng(0)

    def draw(rows: int) -> tuple[float, float]:
        gold = generator.integers(0, 30, rows)
        predicted = np.where(generator.random(rows) < 0.8, gold, generator.integers(0, 30, rows))
        found = classified(gold.tolist(), predicted.tolist(), 30)
        return score("macro_f1", found), float(pseudo_values("macro_f1", [found]).mean())

    truth = draw(100_000)[0]
    plain, corrected = np.mean([draw(150) for _ in range(60)], axis=0)
    assert abs(corrected - truth) < 0.5 * abs(plain - truth)


def test_a_few_heavy_units_leave_few_degrees_of_freedom() -> None:
    """Normal values have nearly one a unit; a single outlier hardly any."""
    normal = np.random.default_rng(1).normal(size=400)
    assert 250 < row_freedom(normal) <= 399
    assert row_freedom(np.array([0.0] * 99 + [1.0])) < 3
    assert row_freedom(np.ones(5)) == 4.0
    assert row_variance(np.array([1.0, 3.0])) == pytest.approx(1.0)


def test_the_studys_noise_is_used_where_it_knows_more() -> None:
    """Never below a strategy's own, and not at all where nothing repeats."""
    generator = np.random.default_rng(2)
    a, b = ([chosen((generator.random(50) < 0.7).tolist()) for _ in range(2)] for _ in range(2))
    alone = of_difference("accuracy", a, b)
    assert [way.seed_freedom for way in alone] == [2]
    both = of_difference("accuracy", a, b, SeedNoise(0.5, 0.0, 9))
    assert [way.seed_freedom for way in both] == [2, 9]
    assert both[1].spread == pytest.approx(0.5)
    assert len(of_difference("accuracy", a, b, SeedNoise(0.5, 0.0, 2))) == 1
    assert of_difference("accuracy", a[:1], b[:1], SeedNoise(0.5, 0.0, 9))[0].seed_freedom == 0
    assert (
        of_difference("accuracy", a[:1], b[:1])[0].rows
        > of_difference("accuracy", a[:1], b[:1], is_cautious=False)[0].rows
    )


def test_four_seeds_each_are_also_compared_seed_by_seed() -> None:
    """Luck that both share falls out of the difference; fewer seeds, or unequal numbers, are not paired."""
    generator = np.random.default_rng(3)
    luck = generator.normal(0, 0.15, 5)
    a, b = ([chosen((generator.random(400) < 0.6 + gap + each).tolist()) for each in luck] for gap in (0.1, 0.0))
    own, paired = of_difference("accuracy", a, b)
    assert (own.seed_freedom, paired.seed_freedom) == (8, 4)
    assert paired.rows == own.rows and paired.largest == own.largest
    gaps = [score("accuracy", one) - score("accuracy", other) for one, other in zip(a, b, strict=True)]
    assert paired.spread == pytest.approx(float(np.var(gaps, ddof=1)) / 5)
    assert paired.spread < 0.2 * own.spread
    assert len(of_difference("accuracy", a[:3], b[:3])) == len(of_difference("accuracy", a, b[:4])) == 1


def test_no_luck_is_larger_than_runs_of_which_every_second_fails() -> None:
    """Two seeds half the range apart leave open less than everything: on rows without end, what the cap leaves."""
    wild = Uncertainty(1e-12, 1e9, spread=0.5, from_rows=0.0, seed_freedom=1, largest=LARGEST_LUCK**2 / 2)
    assert wild.reach(0.025) < 1.96 * LARGEST_LUCK / 2**0.5 + 1e-6
    assert Uncertainty(1e-12, 1e9, 0.5, 0.0, 1).reach(0.025) > 3


def test_a_single_run_borrows_the_luck_of_others() -> None:
    """With two degrees of freedom, for nobody knows whether it is as lucky; without, its rows alone count."""
    generator = np.random.default_rng(0)
    run = chosen((generator.random(200) < 0.7).tolist())
    noise = SeedNoise(0.01, 0.0, 9)
    (alone,), (borrowed,) = of_figure("accuracy", [run]), of_figure("accuracy", [run], noise)
    assert alone.seed_freedom == 0
    assert (borrowed.seed_freedom, borrowed.spread, borrowed.rows) == (2, 0.01, alone.rows)


def test_a_single_run_that_hangs_on_its_seed_adds_its_luck_to_a_difference() -> None:
    """Three runs against one: the one alone has as much luck as a run, the three have a third of it."""
    generator = np.random.default_rng(1)
    several = [chosen((generator.random(200) < share).tolist()) for share in (0.5, 0.6, 0.7)]
    one = [chosen((generator.random(200) < 0.3).tolist())]
    (fixed,) = of_difference("accuracy", several, one)
    (lucky,) = of_difference("accuracy", several, one, has_luck=(True, True))
    assert lucky.spread == pytest.approx(4 * fixed.spread)
    noise = SeedNoise(0.02, 0.001, 9)
    (single,) = of_difference("accuracy", one, one, noise, has_luck=(True, False))
    assert (single.spread, single.from_rows, single.seed_freedom) == (0.02, 0.001, 9)
