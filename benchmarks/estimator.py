"""How far are the estimates of memory and time from published measurements?

    python benchmarks/estimator.py POINTS.jsonl [--markdown FILE]

Every line that states enough is predicted; the others are counted by reason. Memory is compared in the quantity that
a line holds (allocated, reserved, what the system shows). Time is compared with one calibration point a stack
(software, configuration, format, device): the point with the middle prediction sets a factor, the others are tested.

Constants were fitted on the sources in ``FITTED_MEMORY`` and ``FITTED_TIME`` only; the headline figures are those of
all other sources.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from estimator_points import (
    Row,
    UnusableError,
    device_of,
    job_of,
    memory_bytes_of,
    quantity_of,
    rate_of,
    repository,
    stack_of,
)

from taskfit.costs.accelerator import find_accelerator
from taskfit.costs.duration import decoding, training_step
from taskfit.costs.job import Job
from taskfit.costs.memory import memory, weight_bytes

FITTED_MEMORY = ("foundation-model-stack/fms-acceleration", "Lightning-AI/litgpt")
FITTED_TIME = ("foundation-model-stack/fms-acceleration", "QwenLM/Qwen2.5")


@dataclass(frozen=True)
class Error:
    """One prediction beside its measurement: signed, as a share of the measured figure."""

    source: str
    method: str
    quantity: str
    value: float
    rules: dict[str, float]


def read(path: Path) -> list[Row]:
    """Read the points; a line that is no object ends the run with a sentence."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            sys.exit(f"error: {path}:{number}: {error}")
        if not isinstance(row, dict):
            sys.exit(f"error: {path}:{number}: expected an object")
        rows.append(row)
    return rows


def memory_errors(rows: Iterable[Row], unusable: Counter[str]) -> list[Error]:
    """Predict the memory of every usable line."""
    errors = []
    for row in rows:
        if not row.get("memory_gb"):
            continue
        try:
            job = job_of(row)
        except UnusableError as reason:
            unusable[f"memory: {reason}"] += 1
            continue
        quantity, measured = quantity_of(row), memory_bytes_of(row)
        errors.append(
            Error(
                repository(row),
                _method(row),
                quantity,
                predicted(job, quantity, row) / measured - 1,
                {name: rule(job) / measured - 1 for name, rule in RULES.items()},
            )
        )
        if row.get("nvidia_smi_mib"):
            shown = min(memory(job).system, _device_bytes(row)) / (row["nvidia_smi_mib"] * 2**20) - 1
            errors.append(Error(repository(row), _method(row), "system (beside)", shown, {}))
    return errors


def predicted(job: Job, quantity: str, row: Row) -> float:
    """Return the estimate in a line's quantity."""
    found = memory(job)
    if row.get("kind") == "load":
        return found.weights + (found.system - found.reserved if quantity == "system" else 0.0)
    return float(getattr(found, quantity))


def _device_bytes(row: Row) -> float:
    device = find_accelerator(device_of(row)[0])
    return device.memory_bytes if device else float("inf")


def _method(row: Row) -> str:
    return str(row.get("method")).split(" ")[0].split("-")[0]


def accelerate_rule(job: Job) -> float:
    """``accelerate estimate-memory``: the model in its format; four times that for training with Adam; 1.2 for use."""
    size = float(job.architecture.parameters.total * (QUANTISED[job.quantised] if job.quantised else job.value_bytes))
    return size * (1.2 if job.method == "prompting" else 4.0)


def llama_factory_rule(job: Job) -> float:
    """LLaMA-Factory's table, GB for x billion parameters: full in mixed precision 18x, pure 16-bit 8x, frozen base
    2x, its 8-bit form x, its 4-bit form x/2. For use without training: the weights.
    """
    billions = job.architecture.parameters.total
    if job.trains_all:
        return billions * (18.0 if job.trained_bytes > job.value_bytes or job.value_bytes == 4 else 8.0)
    return billions * (QUANTISED[job.quantised] if job.quantised else 2.0)


def deepspeed_rule(job: Job) -> float:
    """DeepSpeed's ZeRO estimators: 18 bytes a parameter over the devices that share them, and four times the largest
    layer under full sharding; a frozen base in 16 bit.
    """
    total, layer = job.architecture.parameters.total, job.architecture.vocabulary * job.architecture.hidden
    shares = job.devices if job.sharding == "fsdp" else 1
    bytes_each = 18.0 if job.trains_all else (weight_bytes(job) / total)
    return total * bytes_each / shares + (4.0 * layer if shares > 1 else 0.0)


QUANTISED = {"nf4": 0.5, "nf4-single": 0.5, "gptq-int4": 0.5, "hqq-int4": 0.5, "int8": 1.0, "gptq-int8": 1.0}
RULES: dict[str, Callable[[Job], float]] = {
    "accelerate": accelerate_rule,
    "LLaMA-Factory": llama_factory_rule,
    "DeepSpeed": deepspeed_rule,
}


def time_errors(rows: Iterable[Row], unusable: Counter[str]) -> list[Error]:
    """Predict the rate of every usable line, with one calibration point a stack."""
    stacks: dict[tuple[str, ...], list[tuple[float, float, Row]]] = defaultdict(list)
    for row in rows:
        if not row.get("throughput") and not row.get("throughput_unit"):
            continue
        try:
            measured = rate_of(row)
            job = job_of(row)
            stacks[stack_of(row)].append((rate(job, row), measured, row))
        except UnusableError as reason:
            unusable[f"time: {reason}"] += 1
    errors = []
    for points in stacks.values():
        if len(points) < 2:
            unusable["time: the only point of its stack"] += 1
            continue
        points.sort(key=lambda point: point[0])
        middle = points.pop(len(points) // 2)
        factor = middle[1] / middle[0]
        for forecast, measured, row in points:
            errors.append(Error(repository(row), _method(row), "tokens/s", forecast * factor / measured - 1, {}))
    return errors


def rate(job: Job, row: Row) -> float:
    """Return the estimated tokens a second."""
    device = find_accelerator(device_of(row)[0])
    if device is None:
        raise UnusableError("unknown device")
    eight = "float8" if "fp8" in row["precision"] or "float8" in row["precision"] else ""
    if row["kind"] == "inference":
        engine = "serving" if str(row.get("engine", "")).lower().startswith("vllm") else "eager"
        return job.new_tokens / decoding(job, device, engine=engine).seconds
    if repository(row) == "huggingface/peft":  # the rate counts real tokens: about 210 a row, as its notes say
        job = replace(job, length=210)
    if eight and eight not in device.flops_per_s:
        raise UnusableError("the device lacks the number format")
    step = training_step(job, device, compute_format=eight)
    return step.tokens_per_s(float(row.get("grad_accum") or 1))


def summary(values: list[float]) -> tuple[int, float, float, float]:
    """Return number, median and 90th percentile of the absolute error, and median signed error, in per cent."""
    sizes = sorted(100 * abs(value) for value in values)
    tenth = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    return len(sizes), statistics.median(sizes), tenth, 100 * statistics.median(values)


def table(errors: list[Error], fitted: tuple[str, ...]) -> list[str]:
    """Return a Markdown table by source, method and quantity."""
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for error in errors:
        groups[(error.source, error.quantity, error.method)].append(error.value)
    lines = ["| source | quantity | method | points | median | 90th | signed | |", "|---|---|---|--:|--:|--:|--:|---|"]
    for (source, quantity, method), values in sorted(groups.items()):
        number, median, tenth, signed = summary(values)
        mark = "fitted" if source in fitted else ""
        figures = f"{number} | {median:.1f} % | {tenth:.1f} % | {signed:+.1f} %"
        lines.append(f"| {source} | {quantity} | {method} | {figures} | {mark} |")
    return lines


def rule_table(errors: list[Error]) -> list[str]:
    """Return a Markdown table of all rules on the same points, those of the sources not fitted."""
    lines = ["| rule | points | median | 90th | signed |", "|---|--:|--:|--:|--:|"]
    kept = [error for error in errors if error.rules and error.source not in FITTED_MEMORY]
    by_rule = {"taskfit": [error.value for error in kept]}
    by_rule |= {name: [error.rules[name] for error in kept] for name in RULES}
    for name, values in by_rule.items() if kept else ():
        number, median, tenth, signed = summary(values)
        lines.append(f"| {name} | {number} | {median:.1f} % | {tenth:.1f} % | {signed:+.1f} % |")
    return lines


def main() -> None:
    """Print the tables and the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the tables into this file too")
    options = parser.parse_args()
    rows, unusable = read(options.points), Counter[str]()
    by_memory, by_time = memory_errors(rows, unusable), time_errors(rows, unusable)
    tested = [error.value for error in by_memory if error.rules and error.source not in FITTED_MEMORY]
    timed = [error.value for error in by_time if error.source not in FITTED_TIME]
    lines = ["Memory, by source, quantity and method:", "", *table(by_memory, FITTED_MEMORY), ""]
    lines += ["Rules on the same points (sources that nothing was fitted on):", "", *rule_table(by_memory), ""]
    lines += ["Time, one calibration point a stack:", "", *table(by_time, FITTED_TIME), ""]
    lines += ["Unusable lines:", ""]
    lines += [f"- {reason}: {number}" for reason, number in sorted(unusable.items())]
    print("\n".join(lines))
    if options.markdown:
        heading = "# How far the estimates are off\n\nWritten by `benchmarks/estimator.py`; do not edit.\n\n"
        options.markdown.write_text(heading + "\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps(_last(tested, timed, unusable)))


def _last(tested: list[float], timed: list[float], unusable: Counter[str]) -> dict[str, Any]:
    last: dict[str, Any] = {"memory_points": len(tested), "memory_median_error": None, "memory_p90_error": None}
    if tested:
        _, median, tenth, signed = summary(tested)
        last |= {"memory_median_error": round(median / 100, 4), "memory_p90_error": round(tenth / 100, 4)}
        last["memory_signed_error"] = round(signed / 100, 4)
    last |= {"time_points": len(timed), "time_median_error": None}
    if timed:
        _, median, tenth, _ = summary(timed)
        last |= {"time_median_error": round(median / 100, 4), "time_p90_error": round(tenth / 100, 4)}
    return last | {"unusable": dict(sorted(unusable.items()))}


if __name__ == "__main__":
    main()
