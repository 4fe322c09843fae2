from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from taskfit.evaluation.intervals import metric_interval
from taskfit.evaluation.sides import figure_of
from tests.evaluation.build import judged


def test_a_loss_of_a_single_row_has_no_ends() -> None:
    """It could be anything up to infinity, which no JSON can hold."""
    run = judged([0], [[0.9, 0.1]])
    figure = figure_of("nll", metric_interval("nll", [run]), len(run), "said")
    assert (figure.low, figure.high) == (None, None)
    assert figure.value == pytest.approx(0.10536, abs=1e-5)
    assert figure.note == "said; a single row or group tells nothing of others"
    assert "Infinity" not in json.dumps(asdict(figure))
    bounded = figure_of("brier", metric_interval("brier", [run]), len(run))
    assert (bounded.low, bounded.high, bounded.note) == (0.0, 2.0, "")
