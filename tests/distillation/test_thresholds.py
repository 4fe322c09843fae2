"""The guarantee of a cascade holds at its stated rate, whatever the confidences are worth."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from taskfit.distillation.thresholds import Escalation, certify, fewest_rows, range_of
from taskfit.errors import ConfigError

AGREEMENT, CONFIDENCE = 0.9, 0.9


def _rows(random: np.random.Generator, count: int, *, power: float, asks_people: bool) -> Escalation:
    """Draw rows of a known law: the student is wrong with chance (1 - confidence) ** power / 2."""
    student, teacher = random.random(count), random.random(count)
    student_wrong = random.random(count) < (1 - student) ** power / 2
    teacher_wrong = random.random(count) < (1 - teacher) / 3 if asks_people else np.zeros(count, dtype=bool)
    return Escalation(student, teacher if asks_people else np.full(count, np.inf), student_wrong, teacher_wrong)


@pytest.mark.parametrize("asks_people", [False, True])
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_the_promise_is_broken_no_more_often_than_stated(power: float, asks_people: bool) -> None:
    """Thresholds from 200 draws of 200 rows, judged on 100,000 rows of the same law; power 0: they say nothing."""
    random = np.random.default_rng(7)
    judge = _rows(random, 100_000, power=power, asks_people=asks_people)
    risk = cache(lambda level: float(judge.losses(level).mean()))
    broken = passed = 0
    for _ in range(200):
        threshold = certify(_rows(random, 200, power=power, asks_people=asks_people), AGREEMENT, CONFIDENCE)
        passed += threshold is not None
        broken += threshold is not None and risk(threshold) > 1 - AGREEMENT
    assert broken / 200 <= 1 - CONFIDENCE + 3 * math.sqrt(0.09 / 200)
    assert passed == 200


def test_the_guarantee_is_not_bought_by_never_letting_the_student_answer() -> None:
    """A student whose confidence means something answers most of the rows that it could."""
    random = np.random.default_rng(3)
    thresholds = [certify(_rows(random, 1000, power=3.0, asks_people=False), AGREEMENT, CONFIDENCE) for _ in range(20)]
    shares = [1 - level for level in thresholds if level is not None]
    best = next(1 - level for level in np.linspace(1, 0, 2001) if _true_risk(level) > 1 - AGREEMENT)
    assert len(shares) == 20
    assert best - 0.15 < np.mean(shares) < best


def _true_risk(level: float) -> float:
    return (1 - level) ** 4 / 8  # the integral of (1 - c) ** 3 / 2 from the level to 1


def test_the_test_is_the_exact_binomial_one() -> None:
    """With k errors at the first threshold that lets them through, it passes exactly where the tail is small enough."""
    for wrong in range(12):
        rows = Escalation(np.full(100, 0.5), np.full(100, np.inf), np.arange(100) < wrong, np.zeros(100, dtype=bool))
        passes = certify(rows, AGREEMENT, CONFIDENCE) == 0.0
        assert passes == (binom.cdf(wrong, 100, 0.1) <= 0.1)


def test_too_few_rows_certify_nothing() -> None:
    """One row less than needed promises nothing, even without an error."""
    fewest = fewest_rows(0.95, 0.9)
    assert fewest == 45
    for count, expected in ((fewest - 1, None), (fewest, 0.0)):
        none = np.zeros(count, dtype=bool)
        assert certify(Escalation(np.ones(count) / 2, np.full(count, np.inf), none, none), 0.95, 0.9) == expected


def test_equal_confidences_are_all_or_nothing() -> None:
    """A student that is equally sure of everything, and often wrong, answers nothing."""
    wrong = np.arange(200) % 2 == 0
    rows = Escalation(np.full(200, 0.9), np.full(200, np.inf), wrong, np.zeros(200, dtype=bool))
    threshold = certify(rows, 0.95, 0.9)
    assert threshold is not None
    assert not rows.by(threshold)[0].any()


def test_the_range_runs_from_never_to_always() -> None:
    """Shares add up to 1, the student's rises, and each bound lies below its figure."""
    points = range_of(_rows(np.random.default_rng(0), 300, power=1.0, asks_people=True), CONFIDENCE)
    assert points[0].threshold is None
    assert (points[0].student, points[0].person, points[0].agreement) == (0.0, 1.0, 1.0)
    assert points[-1].student == 1.0
    assert all(one.student + one.teacher + one.person == pytest.approx(1) for one in points)
    assert [one.student for one in points] == sorted(one.student for one in points)
    assert all(one.low <= one.agreement for one in points)


def test_a_row_costs_the_student_always_and_the_teacher_where_the_student_does_not_answer() -> None:
    points = range_of(
        _rows(np.random.default_rng(0), 300, power=1.0, asks_people=False), CONFIDENCE, seconds=(1.0, 9.0)
    )
    assert (points[0].seconds, points[-1].seconds) == (10.0, 1.0)
    assert [one.seconds for one in points] == pytest.approx([1 + 9 * one.teacher for one in points])


@pytest.mark.parametrize(("agreement", "confidence"), [(1.0, 0.9), (0.0, 0.9), (0.9, 1.0), (math.nan, 0.9)])
def test_promises_outside_0_to_1_are_refused(agreement: float, confidence: float) -> None:
    """Certainty cannot be had from rows."""
    none = np.zeros(10, dtype=bool)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        certify(Escalation(none * 1.0, none * 1.0, none, none), agreement, confidence)
