from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfit.costs.accelerator import accelerator, accelerators, find_accelerator
from taskfit.costs.catalogue import find_architecture
from taskfit.costs.duration import decoding, training_step
from taskfit.costs.job import Job
from taskfit.errors import ConfigError

A100 = accelerator("a100-80gb")
LORA = Job(find_architecture("mistral-7b"), "lora", 4, 4096, checkpointing="full", rank=16, targets="attention")


def test_published_rates_are_met_within_a_third() -> None:
    """Mistral-7B on one A100 by transformers' Trainer (fms-acceleration), uncalibrated."""
    for rate, job in {
        3324.2: LORA,
        3062.7: replace(LORA, method="full"),
        3595.7: replace(LORA, quantised="nf4"),
    }.items():
        assert training_step(job, A100).tokens_per_s() == pytest.approx(rate, rel=0.4)


@given(batch=st.integers(1, 64), length=st.integers(16, 4096))
def test_more_tokens_take_longer_and_each_no_longer(batch: int, length: int) -> None:
    """A larger micro-batch takes more seconds, and no more for each row."""
    job = replace(LORA, batch=batch, length=length)
    one, two = training_step(job, A100), training_step(replace(job, batch=2 * batch), A100)
    assert one.seconds() <= two.seconds() <= 2 * one.seconds() * (1 + 1e-9)
    assert training_step(job, accelerator("h100")).seconds() <= one.seconds()


def test_each_part_answers_to_its_cause() -> None:
    """Quantisation, devices, checkpointing, accumulation, virtual tokens."""
    plain = training_step(LORA, A100)
    assert plain.dequantise_s == plain.communicate_s == 0
    assert training_step(replace(LORA, quantised="nf4"), A100).dequantise_s > 0
    few = replace(LORA, batch=1, length=64, sharding="fsdp", devices=2)
    assert training_step(few, accelerator("rtx3090")).communicate_s > 0
    assert training_step(replace(few, sharding="ddp"), A100).communicate_s < training_step(few, A100).communicate_s
    assert training_step(replace(LORA, checkpointing="none"), A100).matrix_s < plain.matrix_s
    full = training_step(replace(LORA, method="full"), A100)
    assert full.seconds(8) < full.seconds()
    assert full.matrix_s > plain.matrix_s
    soft = replace(LORA, method="soft-prompt", virtual_tokens=4096)
    assert training_step(soft, A100).tokens == plain.tokens
    assert training_step(soft, A100).seconds() > 1.9 * training_step(replace(soft, virtual_tokens=1), A100).seconds()


def test_short_steps_are_bound_by_starting_kernels() -> None:
    """A hundred tokens take as long as ten."""
    small = Job(find_architecture("gpt2"), "lora", 1, 10)
    ten, hundred = training_step(small, A100), training_step(replace(small, length=100), A100)
    assert ten.seconds() == pytest.approx(hundred.seconds(), rel=0.05)


def test_an_encoder_decoder_passes_each_token_through_one_half() -> None:
    """About half of a decoder's work for each parameter (Liu et al. 2022, appendix A)."""
    t5 = training_step(Job(find_architecture("t5-3b"), "full", 1, 512), A100)
    decoder = training_step(Job(find_architecture("2.85B"), "full", 1, 512), A100)
    assert t5.matrix_s == pytest.approx(decoder.matrix_s / 2, rel=0.25)


def test_decoding_meets_published_rates_within_a_third() -> None:
    """Qwen2.5 on one A100, one row: transformers 40 and vLLM 84 tokens a second for 7B; 8.2 for 14B at 30,720."""
    seven = Job(find_architecture("qwen2.5-7b"), length=1, new_tokens=2048)
    assert 2048 / decoding(seven, A100).seconds == pytest.approx(40.38, rel=0.1)
    assert 2048 / decoding(seven, A100, engine="serving").seconds == pytest.approx(84.28, rel=0.15)
    long = Job(find_architecture("qwen2.5-14b"), length=30720, new_tokens=2048)
    assert 2048 / decoding(long, A100).seconds == pytest.approx(8.2, rel=0.33)


def test_devices_are_found_as_people_write_them() -> None:
    """Each key, each name; nothing is guessed from noise."""
    for key, one in accelerators().items():
        assert find_accelerator(key) is one
        assert one.memory_bytes > 1e9
    assert find_accelerator("1x A100-80GB") is A100
    assert find_accelerator("RTX 4090") is accelerators()["rtx4090"]
    assert find_accelerator("RTX 6000 Ada") is accelerators()["rtx6000-ada"]
    assert find_accelerator("abacus") is None
    with pytest.raises(ConfigError, match=r"unknown hardware 'h10o' \(did you mean 'h100'\?\)"):
        accelerator("h10o")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("A100-SXM4-40GB", "a100-40gb"),
        ("A100 40GB PCIe", "a100-40gb"),
        ("A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("A100-PCIe", "a100-80gb"),
        ("a100", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("8xH100", "h100"),
        ("gpu-h200", "h200"),
        ("Tesla T4", "t4"),
        ("Quadro T400", None),
        ("tesla t40", None),
        ("NVIDIA L40", None),
        ("A1000", None),
        ("RTX A6000", "a6000"),
    ],
)
def test_a_device_is_never_taken_for_another(name: str, key: str | None) -> None:
    """An L40 is no L4, and an A100 of 40 GB has not 80."""
    found = find_accelerator(name)
    assert (found and found.key) == key


def test_a_missing_number_format_is_told() -> None:
    """A T4 has no bfloat16."""
    with pytest.raises(ConfigError, match="T4 does not compute in bfloat16; it has float32, float16, int8") as error:
        training_step(LORA, accelerator("t4"))
    assert error.value.hint is not None
    assert "--format float16" in error.value.hint
