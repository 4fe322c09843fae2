from __future__ import annotations

from dataclasses import replace

import pytest

from taskfit.costs.accelerator import Accelerator
from taskfit.costs.architecture import Architecture
from taskfit.costs.price_trial import Forecast, expected_amounts, forecast
from taskfit.costs.prices import load_prices, machine
from taskfit.costs.trial_facts import TrialFacts
from taskfit.costs.trial_work import expected_work
from taskfit.errors import ConfigError
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
DEVICE = Accelerator("this-machine", "a processor", 8e9, 1e10, {"float32": 1e11, "bfloat16": 2e11}, 1e10, 30, 2e-6)


def priced(architecture: Architecture | None, facts: TrialFacts, device: Accelerator = DEVICE) -> Forecast:
    """Forecast at this module's machine."""
    return forecast(architecture, facts, device=device, machine=MACHINE)


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
        replace(tuned, rows_validation=400),
        replace(tuned, least_steps=1000),
    ):
        assert priced(architecture, more).fit_s > base.fit_s, more
    assert priced(architecture, replace(tuned, rows_test=5000)).predict_s > base.predict_s
    assert priced(architecture, tuned, replace(DEVICE, flops_per_s={"float32": 1e10})).wall_s > base.wall_s
    untuned = priced(architecture, FACTS)
    assert untuned.fit_s < base.fit_s
    assert untuned.memory_bytes < base.memory_bytes
    assert priced(architecture, replace(tuned, trains="all")).memory_bytes > base.memory_bytes


def test_money_is_seconds_at_the_machines_price() -> None:
    """And the basis says how far to trust it."""
    found = priced(DECODER, FACTS)
    assert found.usd == pytest.approx(found.wall_s / 3600 * MACHINE.price_usd_per_hour)
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


def test_steps_and_validations_are_those_of_the_training() -> None:
    """The same schedule as tuning plans it, for many sizes."""
    from taskfit.tuning.settings import plan_schedule

    for rows in (1, 15, 16, 100, 1000):
        for epochs, batch, least in ((3, 16, 60), (1, 4, 0), (10, 64, 5)):
            facts = replace(FACTS, rows_train=rows, epochs=epochs, batch=batch, least_steps=least, rows_validation=30)
            schedule = plan_schedule(rows, epochs=epochs, batch=batch, min_steps=least, is_validated=True)
            assert facts.steps == schedule.steps
            told = [step for step in range(1, schedule.steps + 1) if step % schedule.validate_every == 0]
            assert facts.validations == len(set(told) | {schedule.steps})
            assert facts.rows_seen == pytest.approx(rows * schedule.steps / schedule.steps_per_epoch)
    assert replace(FACTS, rows_validation=0).validations == 0


def test_limits_of_the_engine_are_the_ones_it_uses() -> None:
    """Numbers that forecasts repeat, because costs stand below tuning."""
    from taskfit.costs import price_trial, trial_facts
    from taskfit.tuning import answers, settings, training

    assert price_trial._TRAIN_TOKENS == training.TOKEN_BUDGET
    assert trial_facts._VALIDATION_ROWS == answers.VALIDATION_ROWS
    assert trial_facts._VALIDATIONS == settings.VALIDATIONS


def test_amounts_of_a_training_grow_with_what_is_trained() -> None:
    """More trained values, more traffic of the optimiser; a frozen base needs a third less of operations."""
    tuned = replace(FACTS, trains="adapter", method="ia3")
    amounts = {
        name: expected_amounts(DECODER, facts)[0]
        for name, facts in (("ia3", tuned), ("lora", replace(tuned, method="")), ("full", replace(tuned, trains="all")))
    }
    assert amounts["ia3"].optimiser_bytes < amounts["lora"].optimiser_bytes < amounts["full"].optimiser_bytes
    assert amounts["ia3"].flops < 0.75 * amounts["full"].flops
    assert amounts["full"].layer_calls == amounts["ia3"].layer_calls


def test_a_shared_beginning_is_read_once() -> None:
    """By decoders that ask one question a row."""
    shared = expected_work(DECODER, replace(FACTS, shared_tokens=30.0))[1]
    assert shared.computed_tokens == round(500 * (10 + 12) * 1.15) + 30
    assert shared.prompt_tokens == 500 * 40
    assert expected_work(PAIRED, replace(FACTS, shared_tokens=30.0))[1].computed_tokens == round(500 * 40 * 1.15)


def test_a_number_format_without_a_rate_is_refused() -> None:
    """By the device, with the formats it has."""
    with pytest.raises(ConfigError, match="does not compute in float16"):
        forecast(DECODER, FACTS, device=DEVICE, machine=MACHINE, number_format="float16")
    quick = forecast(DECODER, FACTS, device=DEVICE, machine=MACHINE, number_format="bfloat16")
    assert quick.wall_s < priced(DECODER, FACTS).wall_s


def test_behind_trained_vectors_every_label_is_a_pass_of_its_own() -> None:
    """Nothing is shared there: four labels, four times the question and the vectors."""
    soft = replace(FACTS, virtual_tokens=20)
    assert expected_work(DECODER, soft)[1].computed_tokens == round(500 * 4 * (40 + 20 + 3) * 1.15)
    assert expected_work(ENCODER, soft)[1] == expected_work(ENCODER, FACTS)[1]
