"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.tuning.schedule import Decay, rate_share, warmup_steps

SHARE = st.floats(0.0, 0.99)


def shares(steps: int, decay: Decay, warmup_share: float = 0.0, decay_share: float = 0.2) -> list[float]:
    """The share of every step."""
    return [
        rate_share(step, steps, warmup_share=warmup_share, decay=decay, decay_share=decay_share)
        for step in range(steps)
    ]


def test_linear_matches_hand_worked_values():
    """Two of ten steps warm up; the other eight fall by an eighth each."""
    expected = [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert shares(10, "linear", warmup_share=0.2) == pytest.approx(expected)


def test_cosine_matches_the_formula():
    """Half a cosine from the end of the warm-up to one step after the last."""
    expected = [1.0, *(0.5 * (1 + math.cos(math.pi * done / 4)) for done in range(4))]
    assert shares(5, "cosine", warmup_share=0.2) == pytest.approx(expected)


def test_stable_keeps_the_rate_and_falls_over_its_last_share():
    """Four of ten steps fall: 4/4, 3/4, 2/4, 1/4."""
    expected = [1.0] * 6 + [1.0, 0.75, 0.5, 0.25]
    assert shares(10, "stable", decay_share=0.4) == pytest.approx(expected)


def test_stable_decay_longer_than_the_rest_starts_after_the_warmup():
    """The fall never begins inside the warm-up."""
    assert shares(4, "stable", warmup_share=0.5, decay_share=1.0) == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_constant_stays_at_the_peak():
    """After the warm-up nothing changes."""
    assert shares(4, "constant", warmup_share=0.25) == [1.0, 1.0, 1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), SHARE, st.floats(0.01, 1.0), st.sampled_from(get_args(Decay)))
def test_every_step_has_a_rate_above_zero_that_peaks_after_the_warmup(steps, warmup_share, decay_share, decay):
    """No step is wasted; the rate rises during the warm-up and never afterwards."""
    found = shares(steps, decay, warmup_share, decay_share)
    warmup = warmup_steps(steps, warmup_share)
    assert all(0 < share <= 1 for share in found)
    assert found[: warmup + 1] == sorted(found[: warmup + 1])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert found[warmup] == pytest.approx(1.0)
