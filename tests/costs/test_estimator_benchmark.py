"""The benchmark of the estimates reads hostile lines, counts what it cannot use and compares like with like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "estimator.py"

# Three lines as published (foundation-model-stack/fms-acceleration, QwenLM/Qwen2.5), and lines that cannot be used.
TRAIN: dict[str, Any] = {
    "model": "mistralai/Mistral-7B-v0.1",
    "params": 7241700000,
    "method": "lora",
    "batch": 4,
    "seq_len": 4096,
    "precision": "bfloat16 weights, amp",
    "hardware": "1x A100-80GB",
    "memory_gb": 26.705,
    "throughput": 3324.2,
    "throughput_unit": "tokens/s/gpu",
    "source": "github:foundation-model-stack/fms-acceleration@876e2ed refs.csv",
    "confidence": "high",
    "kind": "train",
    "n_gpus": 1,
    "memory_kind": "torch peak allocated (mean over GPUs)",
    "framework_config": "none",
    "sharding": "none",
    "nvidia_smi_mib": 29576.0,
}
INFERENCE: dict[str, Any] = {
    "model": "Qwen2.5-7B-Instruct",
    "params": 7616000000,
    "method": "inference",
    "batch": 1,
    "seq_len": 6144,
    "precision": "bf16",
    "hardware": "1x A100-80GB",
    "memory_gb": 15.38,
    "throughput": 38.76,
    "throughput_unit": "tokens/s while generating 2048 tokens",
    "source": "github:QwenLM/Qwen2.5@a912d23 speed.rst",
    "confidence": "high",
    "kind": "inference",
    "n_gpus": 1,
    "engine": "transformers",
    "memory_kind": "printed GPU memory",
}


def run(tmp_path: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "points.jsonl"
    path.write_text("\n".join(lines) + "\n")
    command = [sys.executable, str(BENCHMARK), str(path), "--markdown", str(tmp_path / "errors.md")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_points_are_predicted_and_others_counted_by_reason(tmp_path: Path) -> None:
    """The last line says how many, how far off, and why the others were left out."""
    more = [
        TRAIN,
        {**TRAIN, "batch": 8, "memory_gb": 38.743, "throughput": 3353.8},
        INFERENCE,
        {**INFERENCE, "seq_len": 14336, "memory_gb": 16.91, "throughput": 29.78},
        {**TRAIN, "confidence": "low"},
        {**TRAIN, "model": "nobody/knows"},
        {**TRAIN, "batch": None},
        {**TRAIN, "params": 13_000_000_000},
        {**TRAIN, "source": "a page"},
    ]
    done = run(tmp_path, [json.dumps(row) for row in more])
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["memory_points"] == 2  # fms-acceleration is fitted: in the table, not in the headline
    assert last["memory_median_error"] < 0.05
    assert last["time_points"] == 0
    reasons = ("low confidence", "no configuration of the model", "batch or length not stated")
    for reason in (*reasons, "the stated parameters are not the model's", "batch, length or software not stated"):
        assert last["unusable"][f"memory: {reason}"] == 1, reason
    table = (tmp_path / "errors.md").read_text()
    assert "| accelerate | 2 |" in table
    assert "foundation-model-stack/fms-acceleration | allocated | lora | 2 |" in table


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    """File and number."""
    done = run(tmp_path, [json.dumps(TRAIN), line])
    assert done.returncode == 1
    assert "points.jsonl:2" in done.stderr


def test_an_empty_file_has_no_error(tmp_path: Path) -> None:
    """Nothing to predict is no figure, not zero."""
    done = run(tmp_path, [""])
    assert done.returncode == 1 or json.loads(done.stdout.splitlines()[-1])["memory_median_error"] is None
