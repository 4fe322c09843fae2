from __future__ import annotations

import math

import numpy as np
import pytest

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.membership import min_k_probability, order_test


def test_the_least_likely_tokens_are_averaged() -> None:
    """Two of ten; at least one; all of them is the mean."""
    values = [-1.0, -9.0, -0.5, -7.0, -0.1, -0.2, -0.3, -0.4, -0.6, -2.0]
    assert min_k_probability(values) == pytest.approx(-8.0)
    assert min_k_probability(values[:3]) == -9.0
    assert min_k_probability(values, share=1.0) == pytest.approx(np.mean(values))


def test_text_without_surprises_stands_above_text_with_some() -> None:
    """Although its mean is lower."""
    even, uneven = [-1.2] * 20, [-0.5] * 18 + [-6.0, -5.0]
    assert min_k_probability(even) > min_k_probability(uneven)
    assert np.mean(even) < np.mean(uneven)


@pytest.mark.parametrize("values", [[], [float("nan")], [0.5]])
def test_impossible_log_probabilities_are_refused(values: list[float]) -> None:
    """None, not a number, or above 0."""
    with pytest.raises(DataError, match="at least one token"):
        min_k_probability(values)


def test_the_share_must_be_a_share() -> None:
    """Not a percentage."""
    with pytest.raises(ConfigError, match="share must be above 0"):
        min_k_probability([-1.0], share=20)


def test_a_liked_order_is_found_and_an_exchangeable_one_is_not() -> None:
    """Level: p below 5 % in about 5 % of sets whose orders are all alike; power: a small constant liking is found."""
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        values = generator.normal(-50, 2, (10, 6))
        false += order_test(values[:, 0].tolist(), values[:, 1:].tolist()) < 0.05
    assert 0.02 <= false / 300 <= 0.08
    values = generator.normal(-50, 1, (10, 6))
    assert order_test((values[:, 0] + 4).tolist(), values[:, 1:].tolist()) < 0.01
    assert order_test((values[:, 0] - 4).tolist(), values[:, 1:].tolist()) > 0.99


def test_orders_that_make_no_difference_prove_nothing() -> None:
    """Equal values have p 1; a constant gain without any spread has p 0."""
    assert order_test([-5.0, -6.0], [[-5.0], [-6.0]]) == 1.0
    assert order_test([-4.0, -5.0], [[-5.0], [-6.0]]) == 0.0
    for shards, orders in (([-1.0], [[-1.0]]), ([-1.0, -2.0], [[-1.0]]), ([-1.0, -2.0], [[-1.0], []])):
        with pytest.raises(DataError, match="at least 2 shards"):
            order_test(shards, orders)
    with pytest.raises(DataError, match="finite"):
        order_test([-math.inf, -1.0], [[-1.0], [-1.0]])
