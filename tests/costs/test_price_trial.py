from __future__ import annotations

from dataclasses import replace

import pytest

from taskfit.costs.architecture import Architecture
from taskfit.costs.price_trial import Forecast, TrialFacts, expected_work, forecast, probe_speed
from taskfit.costs.prices import load_prices, machine
from taskfit.models.work import Work

SIZES = {
    "vocab_size": 8000,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}
DECODER = Architecture.from_config({"model_type": "llama", **SIZES})
ENCODER = Architecture.from_config({"model_type": "bert", **SIZES})
PAIRED = Architecture.from_config(
    {"model_type": "t5", "vocab_size": 8000, "d_model": 256, "d_ff": 688, "num_layers": 6, "num_heads": 4, "d_kv": 64}
)
FACTS = TrialFacts(rows_train=1000, rows_test=500, row_tokens=40.0, answer_tokens=3.0, options=4)
MACHINE = machine(load_prices())
SPEED = 1e11


def priced(architecture: Architecture | None, facts: TrialFacts, speed: float = SPEED) -> Forecast:
    """Forecast at this module's machine."""
    return forecast(architecture, facts, speed=speed, machine=MACHINE)


def test_counted_work_by_hand() -> None:
    """One decoder pass over 500 rows of 40 + 4 x 3 tokens, with 15 % padding; zero-shot fitting computes nothing."""
    fit, predict = expected_work(DECODER, FACTS)
    assert fit == Work()
    assert predict.computed_tokens == round(500 * 52 * 1.15)
    assert predict.head_tokens == 500 * 12
    assert predict.attended_pairs == pytest.approx(500 * 52 * 1.15 * 26, rel=1e-3)


def test_worked_examples_are_shared_by_decoders_only() -> None:
    """Shots cost a decoder their own tokens once, and attention ever after; an encoder-decoder reads them each time."""
    shots = replace(FACTS, shots=4)
    plain, shared = (expected_work(DECODER, facts)[1] for facts in (FACTS, shots))
    assert shared.computed_tokens - plain.computed_tokens == 4 * 43
    assert shared.attended_pairs > 5 * plain.attended_pairs
    assert shared.prompt_tokens == 500 * (40 + 4 * 43)
    reread = expected_work(PAIRED, shots)[1]
    assert reread.computed_tokens == round(500 * (40 + 172) * 1.15)
    assert reread.decoder_tokens == 500 * 12


@pytest.mark.parametrize("architecture", [DECODER, ENCODER, PAIRED], ids=["decoder", "encoder", "encoder-decoder"])
def test_more_of_anything_takes_longer(architecture: Architecture) -> None:
    """Rows, epochs, tokens and trained weights all cost."""
    tuned = replace(FACTS, trains="adapter", rows_validation=100)
    base = priced(architecture, tuned)
    for more in (
        replace(tuned, rows_train=2000),
        replace(tuned, epochs=6.0),
        replace(tuned, row_tokens=80.0),
        replace(tuned, trains="all"),
        replace(tuned, rows_validation=1000),
        replace(tuned, least_steps=1000),
    ):
        assert priced(architecture, more).fit_s > base.fit_s, more
    assert priced(architecture, replace(tuned, rows_test=5000)).predict_s > base.predict_s
    assert priced(architecture, tuned, SPEED / 10).wall_s > base.wall_s
    untuned = priced(architecture, FACTS)
    assert untuned.fit_s < base.fit_s
    assert untuned.memory_bytes < base.memory_bytes
    assert priced(architecture, replace(tuned, trains="all")).memory_bytes > base.memory_bytes


def test_money_is_seconds_at_the_machines_price() -> None:
    """And the basis says how far to trust it."""
    found = priced(DECODER, FACTS)
    assert found.usd == pytest.approx(found.wall_s / 3600 * MACHINE.price_usd_per_hour)
    assert "factor of about 3" in found.basis
    assert "100 GFLOP/s" in found.basis


def test_generating_takes_longer_than_scoring() -> None:
    """Every generated token is a pass of its own through all layers."""
    generated = replace(FACTS, options=0, answer_tokens=12.0)
    scored = replace(FACTS, options=1, answer_tokens=12.0)
    one, other = (priced(DECODER, facts) for facts in (generated, scored))
    assert one.predict_s > other.predict_s


def test_no_model_costs_nearly_nothing() -> None:
    """Seconds for a thousand rows."""
    found = priced(None, replace(FACTS, labels=10))
    assert found.wall_s < 10
    assert "no model" in found.basis


def test_the_probed_speed_is_that_of_a_real_machine() -> None:
    """Between a pocket calculator and a rack of GPUs."""
    assert 1e8 < probe_speed(seconds=0.05) < 1e17


def test_programs_of_several_requests_cost_what_they_read_and_write() -> None:
    """By hand: twice the question, the reasoning generated once and read again; fits that ask cost their requests."""
    asking = replace(FACTS, options=0, requests=2.0, thinking_tokens=100.0, fit_requests=50.0)
    fit, predict = expected_work(DECODER, asking)
    assert predict.prompt_tokens == 500 * 2 * (40 + 50)
    assert predict.answer_tokens == 500 * 103
    assert fit.prompt_tokens == 50 * 90
    thinking = priced(DECODER, asking)
    plain = priced(DECODER, replace(FACTS, options=0))
    assert thinking.predict_s > 5 * plain.predict_s
    assert thinking.fit_s > plain.fit_s


def test_examples_of_their_own_are_read_with_every_row() -> None:
    """Chosen by likeness they share nothing: each row pays for all of its examples."""
    own = replace(FACTS, shots=4, are_shots_shared=False)
    assert expected_work(DECODER, own)[1].computed_tokens == round(500 * (40 + 172 + 12) * 1.15)
    assert (
        expected_work(DECODER, own)[1].prompt_tokens == expected_work(DECODER, replace(FACTS, shots=4))[1].prompt_tokens
    )
