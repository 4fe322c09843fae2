"""How fast is tuning beside the usual stack? LoRA on the same model, rows, batch and number format.

    python benchmarks/tuning_speed.py [--quick] [--model 135m|30m] [--method lora|full] [--steps N]
                                      [--clock wall|cpu] [--threads N]

Each engine trains in a process of its own: taskfit, peft with transformers' Trainer, and TRL's SFTTrainer without
padding and packed. Told are real tokens a second over all steps but the first, peak resident memory, and the share of
this machine's rate of matrix products, measured in between with as many threads. The usual way to count a step of
LoRA is taken for all: 4 floating-point operations a weight and real token, the output layer included at every one.
``--clock cpu`` counts the processors' seconds of the process, for machines that others use as well. Two more runs in
float32, taskfit and the Trainer on the small model, compare the losses step by step. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import finish
from tuning_speed_engines import ENGINES, MODELS, VOCABULARY

FILE = Path(__file__).with_name("tuning_speed_engines.py")


def weights_of(model: str) -> int:
    """Weights of the linear layers and of the output layer."""
    shape = MODELS[model]
    hidden, heads = shape["hidden"], shape["heads"]
    keys = hidden * shape["key_heads"] // heads
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * shape["mlp"]
    return shape["layers"] * layer + VOCABULARY * hidden


def ceiling_flops(threads: int, dtype: str, clock: str) -> float:
    """Floating-point operations a second of a large product of matrices; the median of a few tries."""
    code = f"""
import statistics, time, torch
torch.set_num_threads({threads})
clock = time.{"process_time" if clock == "cpu" else "perf_counter"}
left, right = torch.randn(2048, 576, dtype=torch.{dtype}), torch.randn(1536, 576, dtype=torch.{dtype})
rates = []
for _ in range(9):
    begin = clock()
    for _ in range(5):
        torch.nn.functional.linear(left, right)
    rates.append(5 * 2 * 2048 * 576 * 1536 / (clock() - begin))
print(statistics.median(rates))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def run(engine: str, options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Run one engine in a process of its own."""
    command = [sys.executable, str(FILE), engine, "--model", options.model, "--method", options.method]
    command += ["--dtype", dtype, "--steps", str(options.steps), "--threads", str(options.threads)]
    command += ["--batch", str(options.batch), "--longest", str(options.longest)]
    done = subprocess.run([*command, "--clock", options.clock], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{engine} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # Packing makes another number of steps of the same rows; so tokens are spread over them.
    seconds, tokens = found["seconds"], found["tokens"]
    if len(seconds) == len(tokens):
        found["rate"] = sum(tokens[1:]) / sum(seconds[1:])
    else:
        found["rate"] = sum(tokens) * (1 - 1 / len(seconds)) / sum(seconds[1:])
    return found


def loss_difference(options: argparse.Namespace) -> float:
    """Largest relative difference of the losses of taskfit and the Trainer, step by step, in float32, small model."""
    options = argparse.Namespace(**vars(options) | {"model": "30m"})
    mine, theirs = (run(engine, options, "float32")["losses"] for engine in ("ours", "peft_trainer"))
    return max(abs(one - other) / other for one, other in zip(mine, theirs, strict=True))


def main() -> None:
    """Run all engines, print a table, then the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the small model, two steps of four short rows, without TRL's padding-free way",
    )
    parser.add_argument("--model", choices=MODELS, default="135m")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    options.batch, options.longest = (4, 256) if options.quick else (8, 512)
    if options.quick:
        options.model, options.steps = "30m", 2
    started = time.perf_counter()
    found, ceilings = {}, []
    for engine in ENGINES:
        if options.quick and engine == "trl_padding_free":
            continue
        if not (options.quick and ceilings):
            ceilings.append(ceiling_flops(options.threads, "bfloat16", options.clock))
        found[engine] = run(engine, options, "bfloat16")
        one = found[engine]
        share = 4 * weights_of(options.model) * one["rate"] / ceilings[-1]
        print(
            f"{engine:18} {one['rate']:8.0f} real tokens/s  {one['peak'] / 1e9:6.2f} GB  {share:6.1%} of the matrix "
            f"rate  first step {one['seconds'][0]:.1f} s",
            flush=True,
        )
    ours = found["ours"]
    peers = {name: one for name, one in found.items() if name != "ours"}
    ceiling = statistics.median(ceilings)
    finish(
        "tuning_speed",
        [0],
        {
            "model": options.model,
            "method": options.method,
            "steps": options.steps,
            "rows_a_step": options.batch,
            "clock": options.clock,
            "threads": options.threads,
            "real_tokens_per_s": {name: round(one["rate"], 1) for name, one in found.items()},
            "peak_gb": {name: round(one["peak"] / 1e9, 2) for name, one in found.items()},
            "matmul_gflops": round(ceiling / 1e9),
            "speedup_vs_peft_trainer": round(ours["rate"] / found["peft_trainer"]["rate"], 2),
            "speedup_vs_trl": round(ours["rate"] / max(found[name]["rate"] for name in peers if "trl" in name), 2),
            "share_of_matmul_ceiling": round(4 * weights_of(options.model) * ours["rate"] / ceiling, 3),
            "memory_ratio_vs_peft_trainer": round(ours["peak"] / found["peft_trainer"]["peak"], 3),
            "memory_ratio_vs_least": round(ours["peak"] / min(one["peak"] for one in peers.values()), 3),
            "loss_difference": round(loss_difference(options), 5),
            "wall_s": round(time.perf_counter() - started),
        },
    )


if __name__ == "__main__":
    main()
