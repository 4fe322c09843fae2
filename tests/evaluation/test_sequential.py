"""A p-value that was looked at several times keeps its level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from taskfit.errors import ConfigError
from taskfit.evaluation.sequential import over_looks, single_look_level


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 2), (2, 3, 4, 5, 6)])
def test_the_chance_over_looks_is_that_of_a_simulated_sum(sizes: tuple[int, ...]) -> None:
    """400,000 sums of independent steps, each looked at after so many of them."""
    sums = np.random.default_rng(0).normal(size=(400_000, sizes[-1])).cumsum(axis=1)[:, np.array(sizes) - 1]
    largest = abs(sums / np.sqrt(sizes)).max(axis=1)
    for p_value in (0.3, 0.05, 0.003):
        share = float((largest >= norm.isf(p_value / 2)).mean())
        assert over_looks(p_value, sizes) == pytest.approx(share, abs=4 * (share / 400_000) ** 0.5 + 1e-5)


def test_one_look_changes_nothing_and_more_looks_never_help() -> None:
    """A p-value grows with the looks, and stays between 0 and 1."""
    assert over_looks(0.04, (3,)) == 0.04 and single_look_level(0.05, (3,)) == 0.05
    assert over_looks(0.0, (3, 4)) == 0.0 and over_looks(1.0, (3, 4)) == 1.0
    assert 0.03 < over_looks(0.03, (3, 4)) < over_looks(0.03, (3, 4, 5)) < 3 * 0.03
    assert over_looks(1 - 1e-12, (3, 4)) == 1.0


def test_the_level_of_a_look_is_the_inverse() -> None:
    """At that level, all looks together have the level asked for."""
    level = single_look_level(0.05, (3, 4, 5))
    assert over_looks(level, (3, 4, 5)) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("p_value", "sizes"), [(1.1, (3,)), (0.5, ()), (0.5, (3, 3)), (0.5, (0, 1))])
def test_what_is_no_p_value_or_no_growing_evidence_is_refused(p_value: float, sizes: tuple[int, ...]) -> None:
    """Said before any arithmetic."""
    with pytest.raises(ConfigError, match="growing sizes"):
        over_looks(p_value, sizes)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        single_look_level(0.0, (3, 4))
