"""``taskfit estimate`` speaks before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.costs.probe import Probe, save_probe
from tests.cli.conftest import Taskfit


def test_one_strategy_and_all_of_them(taskfit: Taskfit) -> None:
    """A line a strategy; what the model does not allow is left out with its reason."""
    ran = taskfit("estimate", "--model", "gpt2", "--strategies", "lora(rank=4, targets=qv), full", "--hardware", "h100")
    assert ran.code == 0
    assert "lora(rank=4, targets=qv)" in ran.out
    assert len(ran.out.splitlines()[2].split("  ")) > 8
    ran = taskfit("estimate", "--model", "llama-2-7b")
    assert "left out bitfit" in ran.err
    assert "USD per million rows" in ran.out
    assert "days ago" in ran.err


def test_json_holds_everything(taskfit: Taskfit) -> None:
    """Estimates and the price of answering."""
    found = json.loads(taskfit("estimate", "--model", "bert-base", "--strategies", "full", "--json").out)
    assert found["estimates"][0]["fits"] is True
    assert found["estimates"][0]["energy"]["grid"] == "world"
    assert found["serving"][0]["usd_per_million"] > 0


def test_the_classic_table_crosses_sizes_and_strategies(taskfit: Taskfit) -> None:
    """Sizes x strategies; the largest pre-training needs many devices."""
    ran = taskfit("estimate", "--sizes", "100M,150B", "--strategies", "all", "--hardware", "gpu-h100", "--json")
    assert ran.err.count("left out bitfit") == 1  # for all sizes at once
    found = json.loads(ran.out)["estimates"]
    devices = {(one["model"], one["strategy"]): one["devices"] for one in found}
    assert devices["100M", "pretraining"] == 1
    assert devices["150B", "pretraining"] >= 32
    assert devices["150B", "qlora"] < devices["150B", "full"]
    assert "150B" in taskfit("estimate", "--sizes", "100M,150B", "--strategies", "lora").out


def test_what_fits_is_said(taskfit: Taskfit) -> None:
    """Methods for the model, models for the methods, in words and as JSON."""
    ran = taskfit("estimate", "--model", "7B", "--fits", "24GB")
    assert "qlora" in ran.out
    assert "largest models in 24GB" in ran.out
    found = json.loads(taskfit("estimate", "--model", "7B", "--fits", "24GiB", "--json").out)
    assert found["bytes"] == 24 * 2**30
    assert found["largest"]["qlora"]
    assert "no strategy trains 70B" in taskfit("estimate", "--model", "70B", "--fits", "1GB").out
    assert taskfit("estimate", "--fits", "much").code == 2


def test_a_device_without_a_price_and_a_model_that_does_not_fit(taskfit: Taskfit) -> None:
    """Both are said in the table."""
    assert "no price" in taskfit("estimate", "--model", "gpt2", "--strategies", "lora", "--hardware", "v100").out
    ran = taskfit("estimate", "--model", "70B", "--strategies", "zero-shot", "--hardware", "gpu-l4")
    assert "no price for answering with zero-shot" in ran.err


def test_this_machine_uses_the_kept_probe(taskfit: Taskfit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measured once, used afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran = taskfit("estimate", "--model", "gpt2", "--hardware", "this-machine")
    assert ran.code == 2
    assert "hint: run `taskfit doctor` once" in ran.err
    save_probe(Probe("cpu", {"float32": 5e10}, 1e10, 1e-6, 8e9, 2))
    assert taskfit("estimate", "--model", "gpt2", "--hardware", "this-machine", "--strategies", "lora").code == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--model", "llama-9"), "no configuration of 'llama-9' at hand"),
        (("--hardware", "gpu-h10"), "did you mean 'gpu-h100'"),
        (("--batch", "0"), "batch must be above 0"),
        (("--length", "0"), "length must be above 0"),
        (("--model", "bert-base", "--strategies", "prefix"), "prefix is not offered for an encoder"),
        (("--hardware", "gpu-t4", "--format", "bfloat16"), "T4 does not compute in bfloat16"),
        (
            (
                "--format",
                "float12",
            ),
            "does not compute in float12",
        ),
        (("--grid", "mars"), "unknown grid 'mars'"),
        (("--strategies", "lorra"), "did you mean 'lora'"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_line(taskfit: Taskfit, options: tuple[str, ...], why: str) -> None:
    """What was expected, what came."""
    ran = taskfit("estimate", *options)
    assert ran.code == 2
    assert why in ran.error_line


@pytest.mark.parametrize(
    ("text", "why"), [("currency: USD\nmachines: {}", "date"), ("date: 2026-10-01\nmachines: {}", "currency")]
)
def test_a_price_file_without_date_or_currency_is_refused(
    taskfit: Taskfit, tmp_path: Path, text: str, why: str
) -> None:
    """Both are needed to know what a price is worth."""
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    ran = taskfit("estimate", "--prices", str(path))
    assert ran.code == 2
    assert why in ran.error_line


def test_doctor_says_how_far_forecasts_have_been_off(
    taskfit: Taskfit, topics: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each trial of a study leaves its forecast beside what it took; factors follow from three of a kind."""
    from taskfit.costs.forecast_log import log_file, read_trials

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "no trial has run on this machine yet" in taskfit("doctor", "--costs").out
    ran = taskfit("compare", topics, "--strategies", "linear,majority", "--seeds", "1", "--out", tmp_path / "study")
    assert ran.code == 0, ran.err
    told, _ = read_trials()
    assert sorted(one.strategy for one in told) == ["linear", "majority"]
    result = json.loads(next((tmp_path / "study" / "trials").glob("*/result.json")).read_text())
    assert result["spec"]["forecast_fit_s"] > 0
    assert result["spec"]["forecast_memory_bytes"] > 0
    with log_file().open("a") as handle:
        handle.write("{half a line")
    ran = taskfit("doctor", "--costs")
    assert "without a model" in ran.out
    assert "1 lines of" in ran.err
    found = json.loads(taskfit("doctor", "--costs", "--json").out)
    assert (found["trials"], found["counting"]) == (2, 2)
    assert set(found["kinds"]["no model"]["factors"]) == {"fit", "predict", "memory"}
