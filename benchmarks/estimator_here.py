"""How far are the estimates from what happens on this machine?

    python benchmarks/estimator_here.py [--out FILE]

Twenty-one short trainings by transformers and peft with random weights (methods, sizes, lengths, layouts), each in a
process of its own with one thread: peak resident memory and seconds a step, beside the estimate. Seconds are of the
processor, of the trial and of the probe before it alike, so that other programs disturb them less; one factor, the
median over the trials with even numbers, is tested on the odd ones. The last line is JSON. For trials of this
package's own engine see ``benchmarks/cost.py``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

from common import finish

from taskfit.costs.architecture import Architecture
from taskfit.costs.duration import training_step
from taskfit.costs.job import Job
from taskfit.costs.memory import memory
from taskfit.costs.meter import Meter
from taskfit.costs.probe import Probe, probe_machine

SIZES = {"s": (256, 688, 4, 8000), "m": (384, 1024, 6, 16000), "l": (512, 1376, 8, 32000)}
TRIALS = [
    ("llama", size, method, batch, length, checkpointing)
    for size, method, batch, length, checkpointing in (
        ("m", "full", 4, 128, "none"),
        ("s", "full", 4, 128, "none"),
        ("s", "full", 16, 64, "none"),
        ("s", "lora", 4, 128, "none"),
        ("s", "lora", 4, 512, "none"),
        ("m", "full", 4, 256, "none"),
        ("m", "full", 4, 128, "full"),
        ("m", "lora", 4, 128, "none"),
        ("m", "lora", 8, 128, "none"),
        ("m", "lora", 4, 128, "full"),
        ("l", "full", 2, 64, "none"),
        ("l", "full", 2, 128, "full"),
        ("l", "lora", 2, 128, "none"),
        ("l", "lora", 2, 256, "none"),
    )
] + [
    ("gpt2", "s", "full", 4, 128, "none"),
    ("gpt2", "m", "full", 4, 128, "none"),
    ("gpt2", "m", "lora", 4, 128, "none"),
    ("gpt2", "l", "full", 2, 128, "none"),
    ("gpt2", "m", "layer-norm", 4, 128, "none"),
    ("llama", "m", "layer-norm", 4, 128, "none"),
    ("llama", "l", "layer-norm", 2, 256, "full"),
]
STEPS = 2


def config_of(family: str, size: str) -> Any:
    """Return a configuration with random weights to come."""
    import transformers

    hidden, mlp, layers, vocabulary = SIZES[size]
    if family == "gpt2":
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=hidden, n_layer=layers, n_head=hidden // 64, n_positions=512, **dropout
        )
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
    )


def job_of(trial: tuple[str, str, str, int, int, str]) -> Job:
    """Return what is estimated: float32, AdamW tensor by tensor, as torch does on a processor."""
    family, size, method, batch, length, checkpointing = trial
    return Job(
        Architecture.from_config(config_of(family, size)),
        method,
        batch,
        length,
        weights="float32",
        optimiser="adamw-fused",
        checkpointing=checkpointing,  # type: ignore[arg-type]
        rank=8,
        targets="all",
    )


def run(trial: tuple[str, str, str, int, int, str], pipe: Any) -> None:
    """Probe, train a few steps; send peak bytes beyond the start, bytes at the start, seconds a step and the probe."""
    import warnings

    import peft
    import torch
    import transformers

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    probe = probe_machine(1.0, clock=time.process_time)
    family, size, method, batch, length, checkpointing = trial
    torch.manual_seed(0)
    seconds = []
    with Meter("fit") as meter:
        model = transformers.AutoModelForCausalLM.from_config(config_of(family, size))
        model.config.use_cache = False
        if method == "lora":
            model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear"))
        elif method == "layer-norm":
            for name, one in model.named_parameters():
                one.requires_grad_(("norm" in name or "ln_" in name) and name.endswith("weight"))
        if checkpointing == "full":
            model.gradient_checkpointing_enable()
            if method != "full":
                model.enable_input_require_grads()
        model.train()
        optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-4)
        tokens = torch.randint(10, 1000, (batch, length))
        for _ in range(STEPS):
            start = time.process_time()
            model(tokens, labels=tokens).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            seconds.append(time.process_time() - start)
    measured = meter.measured
    peak = measured.peak_memory_bytes - measured.start_memory_bytes
    pipe.send((peak, measured.start_memory_bytes, statistics.median(seconds[1:]), probe))


def measure(trial: tuple[str, str, str, int, int, str]) -> tuple[float, float, float, Probe]:
    """Run a trial in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "peft"])
    here, there = context.Pipe()
    process = context.Process(target=run, args=(trial, there))
    process.start()
    there.close()
    found: tuple[float, float, float, Probe] = here.recv()
    process.join()
    return found


def compare(trial: tuple[str, str, str, int, int, str]) -> dict[str, Any]:
    """Return estimate and measurement of one trial."""
    job = job_of(trial)
    beyond = memory(job).reserved
    peak, start, step_s, probe = measure(trial)
    forecast_s = training_step(job, probe.as_accelerator()).seconds()
    return {
        "trial": "-".join(map(str, trial)),
        "memory_forecast_mb": (beyond + start) / 1e6,
        "memory_measured_mb": (peak + start) / 1e6,
        "memory_error": (beyond + start) / (peak + start) - 1,
        "memory_error_beyond_start": beyond / peak - 1,
        "step_forecast_s": forecast_s,
        "step_measured_s": step_s,
    }


def main() -> None:
    """Print each trial and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = []
    for trial in TRIALS:
        found.append(compare(trial))
        one = found[-1]
        print(
            f"{one['trial']:32} memory {one['memory_forecast_mb']:6.0f} of {one['memory_measured_mb']:6.0f} MB "
            f"({one['memory_error']:+.0%}; beyond the start {one['memory_error_beyond_start']:+.0%})  "
            f"step {one['step_forecast_s']:6.2f}, not calibrated, of {one['step_measured_s']:6.2f} s",
            flush=True,
        )
    factor = statistics.median(one["step_measured_s"] / one["step_forecast_s"] for one in found[::2])
    for one in found:
        one["time_error"] = one["step_forecast_s"] * factor / one["step_measured_s"] - 1
    last = {
        "trials": len(found),
        "memory_median_error": statistics.median(abs(one["memory_error"]) for one in found),
        "memory_median_error_beyond_start": statistics.median(abs(one["memory_error_beyond_start"]) for one in found),
        "time_factor": factor,
        "time_median_error": statistics.median(abs(one["time_error"]) for one in found[1::2]),
    }
    if options.out:
        options.out.write_text(json.dumps({"format": 1, "trials": found, **last}, indent=1) + "\n", encoding="utf-8")
    finish("estimator_here", [0], last)


if __name__ == "__main__":
    main()
