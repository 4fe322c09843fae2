"""Measured work told for another machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfit.costs.architecture import Architecture
from taskfit.costs.device import find_device
from taskfit.costs.elsewhere import number_format_on, seconds_on
from taskfit.costs.trial_facts import TrialFacts
from taskfit.costs.trial_work import expected_work
from taskfit.models.work import Work
from tests.costs.test_price_trial import DECODER, DEVICE, ENCODER, FACTS, priced

METHODS = {"nothing": "", "adapter": "lora", "all": ""}


def there(architecture: Architecture, facts: TrialFacts, device=DEVICE) -> tuple[float, float]:
    """Tell the work that a trial is expected to do from its counts alone."""
    fit, predict = expected_work(architecture, facts)
    return seconds_on(
        device,
        architecture,
        fit,
        predict,
        rows=facts.rows_test,
        is_generated=facts.generated_tokens > 0,
        trains=facts.trains,
        method=METHODS[facts.trains],
    )


@pytest.mark.parametrize("architecture", [DECODER, ENCODER], ids=["decoder", "encoder"])
@pytest.mark.parametrize("trains", ["nothing", "adapter", "all"])
@pytest.mark.parametrize("options", [4, 0])
def test_told_from_counts_it_is_what_is_told_from_sizes(architecture, trains, options) -> None:
    """The forecast before a trial knows rows, epochs and batches; the one after it only the counted tokens."""
    facts = replace(FACTS, trains=trains, options=options, answer_tokens=3.0)
    before = priced(architecture, facts, replace(DEVICE, flops_per_s={"float32": 1e11}))
    fit_s, predict_s = there(architecture, facts, replace(DEVICE, flops_per_s={"float32": 1e11}))
    assert predict_s == pytest.approx(before.predict_s, rel=0.25)
    assert fit_s == (pytest.approx(before.fit_s, rel=0.35) if trains != "nothing" else 0.0)


@given(st.integers(0, 10**9), st.integers(1, 10**7), st.floats(1, 10))
def test_more_work_takes_longer_and_faster_machines_are_not_slower(trained, computed, faster) -> None:
    """In every amount and every rate."""

    def seconds(work: Work, device=DEVICE, rows=10) -> tuple[float, float]:
        return seconds_on(device, DECODER, work, work, rows=rows, is_generated=False, trains="all")

    work = Work(prompt_tokens=1000, computed_tokens=computed + trained, trained_tokens=trained, head_tokens=100)
    quick = replace(
        DEVICE,
        flops_per_s={name: faster * rate for name, rate in DEVICE.flops_per_s.items()},
        bytes_per_s=faster * DEVICE.bytes_per_s,
    )
    assert all(a <= b for a, b in zip(seconds(work), seconds(work + work, rows=20), strict=True))
    assert all(a <= b for a, b in zip(seconds(work, quick), seconds(work), strict=True))
    assert min(seconds(work)) > 0


def test_each_device_computes_in_its_fastest_format() -> None:
    assert number_format_on(find_device("gpu-t4").accelerator) == "float16"
    assert number_format_on(find_device("gpu-h100").accelerator) == "bfloat16"
    assert number_format_on(replace(DEVICE, flops_per_s={"float32": 2.0, "bfloat16": 1.0})) == "float32"
