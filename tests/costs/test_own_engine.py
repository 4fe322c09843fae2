"""Seconds are amounts over rates, each times a constant of the engine."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from taskfit.costs.accelerator import Accelerator
from taskfit.costs.own_engine import ENGINE, MEMORY, Amounts, EngineConstants, seconds, terms

DEVICE = Accelerator("this-machine", "a processor", 8e9, 1e10, {"float32": 1e11, "bfloat16": 4e11}, 1e10, 30, 2e-6)
AMOUNTS = Amounts(
    flops=1e11, traffic_bytes=2e10, layer_calls=1000, optimiser_bytes=1e10, allocated_bytes=5e9, rows=50, starts=1
)


def test_terms_by_hand() -> None:
    """A second of products, two of traffic, two milliseconds of starts, one of the optimiser, half a one of making."""
    assert terms(AMOUNTS, DEVICE, "float32") == pytest.approx((1.0, 2.0, 2e-3, 1.0, 0.5, 50.0, 1.0))
    assert terms(AMOUNTS, DEVICE, "bfloat16")[0] == pytest.approx(0.25)
    plain = EngineConstants(1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)
    assert seconds(AMOUNTS, DEVICE, "float32", plain) == pytest.approx(4.502)


def test_amounts_add_up_and_so_do_their_seconds() -> None:
    """Two phases one after the other take as long as both together."""
    both = AMOUNTS + AMOUNTS
    assert both.rows == 100
    assert seconds(both, DEVICE, "float32") == pytest.approx(2 * seconds(AMOUNTS, DEVICE, "float32"))
    assert seconds(Amounts(), DEVICE, "float32") == 0


@pytest.mark.parametrize("name", [one.name for one in fields(Amounts)])
def test_more_of_any_amount_never_takes_less(name: str) -> None:
    """No constant is below 0; products take no less than at the measured rate."""
    more = replace(AMOUNTS, **{name: 2 * getattr(AMOUNTS, name)})
    assert seconds(more, DEVICE, "float32") >= seconds(AMOUNTS, DEVICE, "float32")
    assert ENGINE.matrix >= 1
    assert min(MEMORY.slack.values()) >= 1


def test_packed_families_are_those_that_training_packs() -> None:
    """Costs stand below tuning, so the names are repeated; a method without a figure of its own has the usual one."""
    from taskfit.tuning.packed import LAYER_KINDS

    families = {kind.removesuffix("DecoderLayer").lower() for kind in LAYER_KINDS}
    assert families - {"gemma3"} | {"gemma3_text"} == MEMORY.packed_families  # its configuration's name
    assert MEMORY.slack_of("llama", "lora") < MEMORY.slack_of("gpt2", "lora") == MEMORY.slack["lora"]
    assert MEMORY.slack_of("llama", "norms") == MEMORY.slack[""]


def test_frozen_weights_laid_out_count_up_to_what_training_allows() -> None:
    """Two more copies of them, for low-rank updates of packed families alone."""
    from taskfit.tuning.projection import MOST_BYTES

    assert MEMORY.laid_out_bytes == MOST_BYTES
    assert MEMORY.laid_out("llama", "lora", 1e6) == 2e6
    assert MEMORY.laid_out("llama", "lora", 1e12) == MOST_BYTES
    assert MEMORY.laid_out("gpt2", "lora", 1e6) == MEMORY.laid_out("llama", "full", 1e6) == 0
