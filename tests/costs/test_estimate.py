from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import taskfit
from taskfit.costs.accelerator import accelerator
from taskfit.costs.catalogue import find_architecture
from taskfit.costs.device import find_device
from taskfit.costs.estimate import estimate
from taskfit.costs.fits import fitting_methods, fitting_models
from taskfit.costs.memory import memory
from taskfit.costs.need import Need
from taskfit.costs.prices import load_prices, machine
from taskfit.costs.probe import Probe, save_probe
from taskfit.costs.serving import serving
from taskfit.costs.strategies import STRATEGIES, fitting_batch, plan_job, read_strategy
from taskfit.errors import ConfigError, ModelError

LLAMA = "llama-3.1-8b"


def test_qlora_fits_where_full_tuning_does_not() -> None:
    """Llama 3.1 8B on one L4; full tuning needs several large devices."""
    small = estimate(LLAMA, "qlora", hardware="gpu-l4")
    assert (small.devices, small.fits) == (1, True)
    assert 5e9 < small.memory.system < 24e9
    full = estimate(LLAMA, "full")
    assert full.devices > 1
    assert full.trained == 8_030_261_248
    assert small.hours[0] < small.hours[1] < small.hours[2]
    assert small.usd is not None
    assert small.usd[1] == pytest.approx(small.hours[1] * 0.8)
    assert json.loads(json.dumps(small.to_json()))["memory"]["allocated"] == small.memory.allocated
    assert taskfit.estimate is estimate


def test_every_strategy_is_estimated_or_refused_with_a_reason() -> None:
    """For a decoder, an encoder and an encoder-decoder; prompting trains nothing."""
    for model in ("gpt2", "bert-base", "flan-t5-small"):
        for name in STRATEGIES:
            try:
                found = estimate(model, name, hardware="h100")
            except ConfigError as error:
                assert name in ("bitfit", "prefix", "soft-prompt"), (model, name, error)
                continue
            assert found.fits
            assert (found.hours[2] == 0) == (name in ("zero-shot", "few-shot"))
            assert found.energy.kwh >= 0


def test_compute_optimal_pretraining_has_twenty_tokens_a_parameter() -> None:
    """Hoffmann et al. 2022; LLaMA-65B took 1,022,362 hours of an A100 for 1.4 trillion tokens (Touvron et al. 2023)."""
    assert estimate("1B", "pretraining").tokens == pytest.approx(20e9, rel=0.01)
    llama = estimate("llama-65b", "pretraining", need=Need(tokens=1.4e12, length=2048, batch=2048), devices=2048)
    assert llama.devices == 2048
    assert llama.hours[0] * 2048 < 1_022_362 < llama.hours[2] * 2048
    assert estimate(LLAMA, "continued-pretraining").tokens == 1e9


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    """By the same memory model."""
    job = plan_job(find_architecture("gpt2"), "lora", Need(), accelerator("t4"))
    assert job.weights == "float16"
    most = fitting_batch(job, 15e9)
    from dataclasses import replace

    assert memory(replace(job, batch=most)).system <= 15e9 < memory(replace(job, batch=most + 1)).system
    assert fitting_batch(job, 1e6) == 0


def test_what_fits_is_sorted_and_fits() -> None:
    """Cheapest method first, largest model first."""
    device = accelerator("a100-80gb")
    methods = fitting_methods(find_architecture(LLAMA), Need(), device, 24e9)
    names = [one.strategy for one in methods]
    assert "qlora" in names
    assert "full" not in names
    assert methods == sorted(methods, key=lambda one: one.seconds)
    assert all(one.memory_bytes <= 24e9 for one in methods)
    (only,) = fitting_methods(find_architecture(LLAMA), Need(), device, 24e9, ["qlora(rank=64)", "zero-shot", "full"])
    assert only.strategy == "qlora(rank=64)"
    models = fitting_models("qlora", Need(), device, 24e9)
    assert models[0][1] > fitting_models("full", Need(), device, 24e9)[0][1]
    assert models == sorted(models, key=lambda one: -one[1])
    assert fitting_methods(find_architecture("70B"), Need(), device, 1e9) == []


def test_sharing_the_beginning_makes_worked_examples_cheap() -> None:
    """A zero-shot prompt shares little, a few-shot prompt most of it; an adapted model needs no instruction."""
    zero, few, tuned = (serving(LLAMA, name) for name in ("zero-shot", "few-shot(k=8)", "lora"))
    assert few.usd_per_million is not None
    assert few.usd_per_million_shared is not None
    assert few.usd_per_million > 3 * few.usd_per_million_shared
    assert few.prompt == few.shared + 496
    assert tuned.s_per_million <= zero.s_per_million <= few.s_per_million
    assert tuned.shared == 0
    assert serving("bert-base", "full").s_per_million > 0
    assert serving(LLAMA, "soft-prompt", hardware="v100", batch=1).usd_per_million is None
    with pytest.raises(ConfigError, match="does not fit"):
        serving("70B", "zero-shot", hardware="gpu-l4")


def test_this_machine_is_known_after_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the message says how."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="has not been measured") as error:
        estimate("gpt2", hardware="this-machine")
    assert "taskfit doctor" in str(error.value.hint)
    save_probe(Probe("cpu", {"float32": 5e10}, 1e10, 1e-6, 8e9, 2))
    found = estimate("gpt2", "lora", hardware="this machine", need=Need(rows=100, length=128))
    assert found.usd is not None
    assert "measured on this machine" in found.basis
    assert 0.001 < found.hours[1] < 10


def test_processors_and_devices_without_a_price_are_estimated() -> None:
    """A rented machine has its cores; a V100 no price."""
    assert find_device("cpu-8core").accelerator.flops_per_s["float32"] == pytest.approx(8 * 0.06e12)
    assert estimate("gpt2", "lora", hardware="v100").usd is None
    assert estimate("gpt2", "lora", hardware="cpu-8core").usd is not None


def test_a_machine_of_which_only_the_price_is_known_is_refused() -> None:
    """Without its memory nothing would fit, and without its cores it would have one."""
    table = load_prices()
    bare = replace(machine(table), name="mine")
    for known in (bare, replace(bare, cores=8), replace(bare, memory_gb=32.0)):
        with pytest.raises(ConfigError, match="does not say what mine has"):
            find_device("mine", replace(table, machines={"mine": known}))
    whole = replace(bare, cores=8, memory_gb=32.0)
    assert find_device("mine", replace(table, machines={"mine": whole})).accelerator.memory_bytes == 32e9


def test_worked_examples_take_room() -> None:
    """A prompt of eight examples and a row is nine rows long."""
    zero, few = (estimate("tinyllama", name, hardware="gpu-l4").memory for name in ("zero-shot", "few-shot(k=8)"))
    long = estimate("tinyllama", "zero-shot", hardware="gpu-l4", need=Need(length=9 * 512)).memory
    assert few.activations > zero.activations
    assert few.system == pytest.approx(long.system)


def test_settings_in_brackets_are_read() -> None:
    """Names and values as a strategy has them."""
    assert read_strategy("lora(rank=16, targets=qv)") == ("lora", {"rank": 16, "targets": "qv"})
    assert read_strategy("few-shot(k=8)") == ("few-shot", {"k": 8})
    assert estimate("gpt2", "lora(rank=16)").trained == 2 * estimate("gpt2", "lora(rank=8)").trained


def test_states_are_shared_no_more_than_needed() -> None:
    """Eight devices: small models keep all on each; larger ones share ever more; one stage can be asked for."""
    found = {size: estimate(size, "full", devices=8) for size in ("1B", "7B", "13B")}
    assert [one.sharding for one in found.values()] == ["ddp", "zero1", "zero2"]
    assert {one.devices for one in found.values()} == {8}
    stages = [estimate("1B", "full", devices=8, sharding=one).memory.allocated for one in ("ddp", "zero1", "zero2")]
    assert stages == sorted(stages, reverse=True)
    assert estimate("1B", "full", devices=8, sharding="fsdp").memory.weights < found["1B"].memory.weights
    assert estimate("150B", "full", devices=2).devices > 2
    one, eight = (estimate("1B", "full", devices=count, need=Need(batch=128)) for count in (1, 8))
    assert one.hours[1] / 8.5 < eight.hours[1] < one.hours[1] / 4


def test_labels_cost_where_people_must_give_them() -> None:
    """Trained rows and worked examples; a student has its teacher, plain text itself."""
    need = Need(rows=500)
    counts = {name: estimate("gpt2", name, need=need, labels="crowd").labels for name in STRATEGIES}
    free = {name for name, labels in counts.items() if labels == 0}
    assert free == {"zero-shot", "pretraining", "continued-pretraining", "distillation"}
    assert counts["few-shot"] == 4
    assert counts["lora"] == 500
    assert estimate("gpt2", "lora", need=need, labels="crowd").usd_labels == pytest.approx(30.0)
    assert estimate("gpt2", "lora", need=need).usd_labels == 0


def test_checkpointing_and_profile_stay_as_they_are_said() -> None:
    """What stands in brackets is not chosen again."""
    assert estimate("gpt2", "lora(checkpointing=full)").checkpointing == "full"
    assert estimate("gpt2", "lora").checkpointing == "none"
    eager, fused = (estimate(LLAMA, f"qlora(profile={name}, checkpointing=full)") for name in ("eager", "fused"))
    assert eager.memory.allocated > fused.memory.allocated
    assert read_strategy("lora(dropout=0.1, compiled=true)")[1] == {"dropout": 0.1, "compiled": True}


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: estimate("llama-9-8b"), "no configuration of 'llama-9-8b' at hand"),
        (lambda: estimate(LLAMA, "lorra"), r"unknown strategy 'lorra' \(did you mean 'lora'\?\)"),
        (lambda: estimate(LLAMA, "lora(rnak=3)"), r"unknown setting 'rnak' \(did you mean 'rank'\?\)"),
        (lambda: estimate(LLAMA, "lora(rank=x)"), "rank must be a whole number"),
        (lambda: estimate(LLAMA, hardware="h10o"), r"unknown hardware 'h10o' \(did you mean"),
        (lambda: estimate(LLAMA, hardware="gpu-t4", number_format="bfloat16"), "T4 does not compute in bfloat16"),
        (lambda: estimate(LLAMA, "lora(dropout=much)"), "dropout must be a number"),
        (lambda: estimate(LLAMA, "lora(dropout=nan)"), "dropout must be finite"),
        (lambda: estimate(LLAMA, "lora(compiled=maybe)"), "compiled must be true or false"),
        (lambda: estimate(LLAMA, "lora(rank=0)"), "rank must be at least 1"),
        (lambda: estimate(LLAMA, "lora(batch=4)"), "batch is said by batch, not in brackets"),
        (lambda: estimate(LLAMA, "lora(devices=4)"), "devices is said by devices"),
        (lambda: estimate(LLAMA, "few-shot(k=0)"), "k must be at least 1"),
        (lambda: estimate(LLAMA, "zero-shot(k=2)"), "unknown setting 'k'"),
        (lambda: estimate(LLAMA, devices=-1), "devices must be at least 0"),
        (lambda: estimate(LLAMA, sharding="zero4"), r"unknown sharding 'zero4' \(did you mean"),
        (lambda: estimate(LLAMA, labels="crwd"), r"no price for labels by 'crwd' \(did you mean 'crowd'"),
        (lambda: Need(epochs=float("nan")), r"epochs must be above 0 \(got nan\)"),
        (lambda: Need(tokens=-1), "tokens must be at least 0"),
        (lambda: Need(batch=0), r"batch must be above 0 \(got 0\)"),
        (lambda: Need(length=0), "length must be above 0"),
        (lambda: Need(answer=600), "answer must be at most length"),
        (lambda: estimate("bert-base", "lora(targets=mlp)"), "lora of mlp changes no matrix of a bert model"),
        (lambda: estimate("bert-base", "soft-prompt"), "soft-prompt is not offered for an encoder"),
    ],
)
def test_bad_input_is_refused_with_a_reason(call: object, why: str) -> None:
    """The list of the issue: models, hardware, zeros, methods, formats."""
    with pytest.raises((ConfigError, ModelError), match=why):
        call()  # type: ignore[operator]
