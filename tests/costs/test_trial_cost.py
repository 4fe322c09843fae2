from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import Any

import pytest

from taskfit.costs.architecture import Architecture
from taskfit.costs.flops import flops
from taskfit.costs.meter import Measured
from taskfit.costs.prices import ServicePrice, load_prices, machine
from taskfit.costs.trial_cost import FurtherModel, TrialCost, trial_cost
from taskfit.errors import StudyError
from taskfit.models.work import Work

FIT = Measured("fit", 360.0, 700.0, 3 * 10**9, 10**9, 0, "kernel")
PREDICT = Measured("predict", 36.0, 70.0, 10**9, 10**9, 0, "kernel")
FIT_WORK = Work(computed_tokens=1000, attended_pairs=5000, head_tokens=100, trained_tokens=900)
PREDICT_WORK = Work(computed_tokens=500, attended_pairs=2000, head_tokens=50)
MODEL = Architecture.from_config(
    {
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
)


def cost(**changes: Any) -> TrialCost:
    """Return the cost of a trial with a model."""
    values: dict[str, Any] = {
        "rows_predicted": 200,
        "artefact_bytes": 5000,
        "architecture": MODEL,
        "needs_model": True,
        "machine": machine(load_prices(), "cpu-2core"),
    }
    return trial_cost(FIT, PREDICT, FIT_WORK, PREDICT_WORK, **{**values, **changes})


def test_money_and_operations_by_hand() -> None:
    """A tenth of an hour of fitting and a hundredth of predicting, at 0.10 USD an hour."""
    found = cost()
    assert found.usd_fit == pytest.approx(0.01)
    assert found.usd_predict == pytest.approx(0.001)
    assert found.usd_per_thousand_rows == pytest.approx(0.005)
    assert found.total_usd(0) == found.usd_fit
    assert found.total_usd(100_000) == pytest.approx(0.01 + 0.5)
    assert found.s_per_row == pytest.approx(0.18)
    assert found.peak_memory_bytes == 3 * 10**9
    assert found.fit_flops == flops(MODEL, FIT_WORK)
    assert found.predict_flops == flops(MODEL, PREDICT_WORK)


def test_what_another_model_did_is_priced_by_that_model() -> None:
    """A teacher behind a service: its tokens are money; one on this machine: its operations are counted."""
    asked = Work(service_prompt_tokens=2_000_000, service_answer_tokens=500_000, paid_prompt_tokens=1_000_000)
    price = ServicePrice("host", 0.5, 2.0, "a test", datetime.date(2026, 11, 1))
    here = FurtherModel(MODEL, None, FIT_WORK, Work())
    found = cost(further=[FurtherModel(None, price, asked, Work()), here])
    alone = cost()
    assert found.usd_further == pytest.approx(2.0)
    assert found.usd_service_fit == pytest.approx(2.0)
    assert found.usd_fit == pytest.approx(alone.usd_fit + 2.0)
    assert found.usd_paid == pytest.approx(0.5)
    assert found.fit_flops is None  # a service's operations are nobody's to count
    assert found.predict_flops == alone.predict_flops
    assert cost(further=[here]).fit_flops == 2 * flops(MODEL, FIT_WORK)
    assert TrialCost.from_json(found.to_json()) == found


def test_unknown_operations_are_none_and_no_model_is_zero() -> None:
    """Not knowing is not the same as nothing."""
    assert cost(architecture=None).fit_flops is None
    without = cost(architecture=None, needs_model=False)
    assert (without.fit_flops, without.predict_flops) == (0.0, 0.0)


def test_json_gives_the_record_back() -> None:
    """Through text, with and without known operations."""
    for found in (cost(), cost(architecture=None), replace(cost(), usd_fit=0)):
        assert TrialCost.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "format 1"),
        ({"fit": None}, "expected an object"),
        ({"fit_work": {}}, "missing or unknown values"),
        ({"more": 1}, "unknown values: more"),
        ({"usd_fit": "1"}, "usd_fit must be float"),
        ({"usd_fit": -1.0}, "usd_fit must be float"),
        ({"usd_fit": float("nan")}, "usd_fit must be float"),
        ({"usd_fit": None}, "usd_fit must be float"),
        ({"rows_predicted": 2.5}, "rows_predicted must be int"),
        ({"rows_predicted": True}, "rows_predicted must be int"),
        ({"machine": 7}, "machine must be str"),
        ({"price_date": "soon"}, "price_date must be a date"),
    ],
)
def test_damaged_records_are_refused(change: dict[str, Any], why: str) -> None:
    """A result file is read as anything from outside."""
    with pytest.raises(StudyError, match=why):
        TrialCost.from_json({**cost().to_json(), **change})


def test_a_trial_without_rows_is_refused() -> None:
    """There is no cost per row of no rows."""
    with pytest.raises(StudyError, match="at least one row"):
        cost(rows_predicted=0)
