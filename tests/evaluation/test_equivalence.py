from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.equivalence import equivalent_within, worse_beyond_noise
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.paired import mcnemar
from tests.evaluation.build import chosen, generated, judged


def pair(only_a: int, only_b: int, both: int, neither: int) -> tuple[Outcomes, Outcomes]:
    """Two runs with so many rows right in only the one, only the other, both, and neither."""
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    return chosen(a), chosen(b)


def test_many_rows_show_that_two_strategies_are_alike() -> None:
    """And few rows leave it open, although neither calls them different."""
    few = equivalent_within("accuracy", *([run] for run in pair(2, 2, 90, 6)), margin=0.01)
    many = equivalent_within("accuracy", *([run] for run in pair(40, 40, 9000, 920)), margin=0.01)
    assert (few.is_equivalent, many.is_equivalent) == (False, True)
    assert many.text == "cannot be told apart within 1 point of accuracy"
    assert few.text == "open: these rows cannot say whether they are alike within 1 points of accuracy".replace(
        "1 points", "1 point"
    )
    apart = equivalent_within("accuracy", *([run] for run in pair(60, 0, 30, 10)), margin=0.02)
    assert apart.text == "apart by more than 2 points of accuracy"
    assert -many.margin < many.low < many.high < many.margin


def test_identical_answers_on_a_few_rows_are_no_proof() -> None:
    """Twenty equal rows leave room for several points; five thousand do not."""
    for rows, expected in ((20, False), (5000, True)):
        run = chosen([True, False] * (rows // 2))
        assert equivalent_within("accuracy", [run], [run], margin=0.01).is_equivalent is expected


def test_equivalence_is_two_one_sided_tests_at_once() -> None:
    """Against scipy's paired t tests of the shifted differences, on rows enough that the added two do not count."""
    a, b = pair(300, 240, 2000, 460)
    found = equivalent_within("accuracy", [a], [b], margin=0.04)
    x, y = (np.array([float(answer == "a") for answer in run.answers]) for run in (a, b))
    below, above = ttest_rel(x + 0.04, y, alternative="greater"), ttest_rel(x - 0.04, y, alternative="less")
    assert found.p_value == pytest.approx(max(below.pvalue, above.pvalue), rel=0.1)
    assert found.is_equivalent == (found.low > -0.04 and found.high < 0.04)


def test_strategies_at_the_margin_are_rarely_called_alike() -> None:
    """Level: with a true difference of just the margin, at most about 5 %; with none, most of the time."""
    generator = np.random.default_rng(0)

    def share(true_gap: float) -> float:
        alike = 0
        for _ in range(80):
            kind = generator.random(1000)
            only_a, only_b = kind < 0.05 + true_gap, (kind >= 0.05 + true_gap) & (kind < 0.1 + true_gap)
            both = generator.random(1000) < 0.7
            a = chosen((only_a | (both & ~only_b)).tolist())
            b = chosen((only_b | (both & ~only_a)).tolist())
            alike += equivalent_within("accuracy", [a], [b], margin=0.05).is_equivalent
        return alike / 80

    assert share(0.05) <= 0.09
    assert share(0.0) > 0.9


def test_a_fall_is_told_from_noise() -> None:
    """One-sided, by the rows that changed."""
    before, now = pair(12, 2, 80, 6)
    found = worse_beyond_noise("accuracy", [now], [before])
    assert found.is_worse
    assert found.p_worse == mcnemar(now, before).p_worse
    assert found.difference == pytest.approx(-0.1)
    assert found.low < found.difference < found.high < 0
    assert not worse_beyond_noise("accuracy", [before], [now]).is_worse
    assert not worse_beyond_noise("accuracy", [before], [before]).is_worse
    assert not worse_beyond_noise("accuracy", [now], [before], margin=0.1).is_worse


def test_not_worse_has_to_be_shown_as_well() -> None:
    """A small fall on many rows is within a margin; on few rows nothing is shown."""
    before, now = pair(30, 25, 1900, 45)
    assert worse_beyond_noise("accuracy", [now], [before], margin=0.02).is_not_worse
    small, later = pair(1, 1, 17, 1)
    found = worse_beyond_noise("accuracy", [later], [small], margin=0.02)
    assert (found.is_worse, found.is_not_worse) == (False, False)


def test_equal_runs_rarely_seem_to_have_fallen() -> None:
    """Level of the test of a fall: about 5 %, mid-p included."""
    generator = np.random.default_rng(1)
    falls = 0
    for _ in range(150):
        ease = generator.normal(size=120)
        now, before = (chosen((ease + generator.normal(0, 0.5, 120) > -0.5).tolist()) for _ in range(2))
        falls += worse_beyond_noise("accuracy", [now], [before]).is_worse
    assert 0.01 <= falls / 150 <= 0.08


def test_lower_is_better_for_losses() -> None:
    """A larger loss is a fall."""
    generator = np.random.default_rng(2)
    shares = generator.dirichlet(np.ones(2), 150)
    gold = [int(generator.choice(2, p=row)) for row in shares]
    flat = 0.3 * shares + 0.35
    now, before = judged(gold, flat.tolist()), judged(gold, shares.tolist())
    found = worse_beyond_noise("nll", [now], [before])
    assert found.difference < 0
    assert found.is_worse
    assert not worse_beyond_noise("nll", [before], [now]).is_worse


def test_texts_seeds_and_groups_are_allowed_for() -> None:
    """Student's test of the rows where McNemar's does not fit."""
    golds = [["a b c d"]] * 12
    before, now = generated(golds, ["a b c d"] * 12), generated(golds, ["a b c x", "a b x y", "a b c d"] * 4)
    assert worse_beyond_noise("token_f1", [now], [before]).is_worse
    assert worse_beyond_noise("token_f1", [now, before], [before, before]).p_worse > 0.05
    groups = ["g"] * 6 + ["h"] * 6
    old, new = chosen([True] * 12, groups=groups), chosen([False] * 12, groups=groups)
    assert worse_beyond_noise("accuracy", [new], [old]).p_worse < 0.2


def test_a_single_row_shows_nothing() -> None:
    """Neither alike, nor worse, nor not worse."""
    a, b = chosen([True]), chosen([False])
    assert equivalent_within("accuracy", [a], [b]).p_value == 1.0
    found = worse_beyond_noise("accuracy", [b], [a], margin=0.01)
    assert (found.is_worse, found.is_not_worse) == (False, False)


def test_faulty_settings_are_refused() -> None:
    """Margin, level, other rows."""
    run = chosen([True, False])
    with pytest.raises(ConfigError, match="margin must be above 0"):
        equivalent_within("accuracy", [run], [run], margin=0.0)
    with pytest.raises(ConfigError, match="margin"):
        worse_beyond_noise("accuracy", [run], [run], margin=-0.1)
    with pytest.raises(ConfigError, match="level"):
        equivalent_within("accuracy", [run], [run], level=0.95)
    with pytest.raises(DataError, match="same rows"):
        worse_beyond_noise("accuracy", [run], [chosen([True])])
