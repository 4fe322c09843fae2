"""How far are the forecasts of trials from what they take on this machine?

    python benchmarks/cost.py [--quick] [--fit] [--out FILE]

Trials of different methods, model families, sizes and lengths with random weights, each in a process of its own with
one thread: seconds of fitting and predicting in processor time, and peak resident memory, beside the forecast that a
study's plan would make. The machine is probed in processor time in the same process, before and after.
``--fit`` prints the constants of ``taskfit/costs/own_engine.py`` that suit these trials best, and the error of each
half of the trials with the constants fitted on the other. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from common import finish

SIZES = {"s": (256, 688, 4, 8000), "m": (384, 1024, 6, 16000), "l": (512, 1376, 8, 32000)}
"""Width, width of the MLP, layers, vocabulary."""

WORDS = {"short": 25, "middle": 80, "long": 180}
_SHORT = "epochs=1, min_steps=3"
TRIALS = [
    (family, size, length, f"{name}" if "(" in name else f"{name}({_SHORT})" if is_trained else name, kind)
    for family, size, length, name, is_trained, kind in (
        ("llama", "s", "short", "zero-shot", False, "classification"),
        ("llama", "m", "middle", "zero-shot", False, "classification"),
        ("llama", "l", "short", "zero-shot", False, "classification"),
        ("llama", "m", "short", "few-shot(k=4)", False, "classification"),
        ("llama", "s", "short", "lora", True, "classification"),
        ("llama", "m", "short", "lora", True, "classification"),
        ("llama", "s", "long", "lora", True, "classification"),
        ("llama", "l", "short", "lora", True, "classification"),
        ("llama", "s", "middle", "full", True, "classification"),
        ("llama", "m", "short", "full", True, "classification"),
        ("llama", "l", "short", "full", True, "classification"),
        ("llama", "m", "middle", "dora", True, "classification"),
        ("llama", "m", "middle", "ia3", True, "classification"),
        ("llama", "m", "middle", "norms", True, "classification"),
        ("llama", "m", "middle", "adapter", True, "classification"),
        ("llama", "m", "middle", "prompt-tuning", True, "classification"),
        ("llama", "m", "middle", "prefix-tuning", True, "classification"),
        ("gpt2", "m", "middle", "lora", True, "classification"),
        ("gpt2", "m", "middle", "full", True, "classification"),
        ("gpt2", "s", "middle", "bitfit", True, "classification"),
        ("bert", "m", "short", "encoder", True, "classification"),
        ("bert", "m", "long", "encoder", True, "classification"),
        ("bert", "m", "middle", f"encoder(tune=lora, {_SHORT})", True, "classification"),
        ("t5", "s", "middle", "full", True, "classification"),
        ("t5", "m", "middle", "lora", True, "classification"),
        ("t5", "m", "short", "zero-shot", False, "classification"),
        ("llama", "m", "short", "zero-shot", False, "generation"),
        ("llama", "s", "middle", "lora", True, "generation"),
        ("t5", "s", "short", "full", True, "generation"),
    )
]
QUICK = (0, 4, 8, 21)
ROWS = (32, 8, 32)
LEAST_MATRIX = 1.05
MOST_OPTIMISER = 2.0
Trial = tuple[str, str, str, str, str]


def make_model(family: str, size: str, folder: Path) -> Path:
    """Save a random model of a size, with a tiny tokenizer."""
    import torch
    import transformers

    from taskfit import testing

    transformers.utils.logging.disable_progress_bar()
    hidden, mlp, layers, vocabulary = SIZES[size]
    heads, context = hidden // 64, 1024
    if family in ("llama", "gpt2"):
        testing.tiny_decoder(folder, kind=family, context=context)  # type: ignore[arg-type]
    elif family == "bert":
        testing.tiny_encoder(folder, context=context)
    else:
        testing.tiny_encoder_decoder(folder, context=context)
    config = transformers.AutoConfig.from_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": vocabulary}
    if family == "gpt2":
        sizes |= {"n_embd": hidden, "n_layer": layers, "n_head": heads}
    elif family == "t5":
        sizes |= {"d_model": hidden, "d_ff": mlp, "num_layers": layers // 2, "num_decoder_layers": layers // 2}
        sizes |= {"num_heads": heads, "d_kv": 64}
    else:
        sizes |= {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers}
        sizes |= {"num_attention_heads": heads, "initializer_range": 0.02}
        sizes |= {"num_key_value_heads": max(1, heads // 2), "head_dim": 64} if family == "llama" else {}
    config.update(sizes)
    torch.manual_seed(0)
    auto = {"bert": transformers.AutoModel, "t5": transformers.AutoModelForSeq2SeqLM}
    model = auto.get(family, transformers.AutoModelForCausalLM).from_config(config)
    model.save_pretrained(folder)
    return folder


def make_task(length: str, kind: str, folder: Path) -> Path:
    """Write a task of random words; lengths spread by a third."""
    import random

    from taskfit.testing import PARAGRAPH

    rng, words = random.Random(0), PARAGRAPH.split()
    labels = ("positive", "negative", "world", "business")
    folder.mkdir()
    for split, rows in zip(("train", "validation", "test"), ROWS, strict=True):
        lines = []
        for number in range(rows):
            count = max(3, round(WORDS[length] * rng.uniform(0.7, 1.3)))
            text = f"{split} {number} " + " ".join(rng.choices(words, k=count))
            answer = labels[number % 4] if kind == "classification" else " ".join(rng.choices(words, k=12))
            lines.append(json.dumps({"id": f"{split}{number}", "text": text, "answer": answer}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts = ["version: 1", "name: cost", f"kind: {kind}", "instruction: What is this text about?"]
    parts += ["data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}"]
    parts += ['input: "Text: {{ text }}"', 'target: "{{ answer }}"']
    parts += [f"labels: [{', '.join(labels)}]"] if kind == "classification" else ["max_answer_tokens: 24"]
    (folder / "task.yaml").write_text("\n".join(parts) + "\n", encoding="utf-8")
    return folder / "task.yaml"


def run(trial: Trial, folder: str, pipe: Any) -> None:
    """Forecast, fit and predict one trial in this process; send everything."""
    import warnings

    warnings.simplefilter("ignore")
    os.environ["XDG_CACHE_HOME"] = folder  # forecasts as they are before this machine's own trials have corrected them
    import torch

    torch.set_num_threads(1)
    from taskfit.costs.meter import Meter
    from taskfit.costs.own_engine import terms
    from taskfit.costs.price_trial import expected_amounts
    from taskfit.costs.probe import probe_machine
    from taskfit.models import load
    from taskfit.strategy.contract import Budget
    from taskfit.strategy.grammar import parse
    from taskfit.studies.costing import architecture_of
    from taskfit.studies.forecast import Measured, forecaster
    from taskfit.studies.rooms import describe_model
    from taskfit.studies.spec import StudyConfig
    from taskfit.tasks import load_task

    family, size, length, name, kind = trial
    task = load_task(make_task(length, kind, Path(folder) / "task"))
    model_folder = str(make_model(family, size, Path(folder) / "model"))
    strategy, facts = parse(name), describe_model(model_folder)
    before = probe_machine(1.5, clock=time.process_time)
    measured = Measured(before.as_accelerator(), "float32: fixed")
    price = forecaster(task, StudyConfig(), measured)
    told = price.of(strategy, facts, None)
    model = load(model_folder, dtype="float32")
    with Meter("fit") as fit:
        predictor = strategy.fit(model, task, seed=0, budget=Budget(folder=Path(folder), say=lambda line: None))
    with Meter("predict") as predict:
        list(predictor.predict(task.test))
    after = probe_machine(1.0, clock=time.process_time)
    architecture = architecture_of(facts.config)
    assert architecture is not None
    amounts = expected_amounts(architecture, price.facts(strategy, facts, None))
    devices = [one.as_accelerator() for one in (before, after)]
    pipe.send(
        {
            "terms": [[terms(one, device, "float32") for device in devices] for one in amounts],
            "fit_s": fit.measured.cpu_s,
            "predict_s": predict.measured.cpu_s,
            "start_bytes": fit.measured.start_memory_bytes,
            "peak_bytes": max(fit.measured.peak_memory_bytes, predict.measured.peak_memory_bytes),
            "peaks": [fit.measured.peak_memory_bytes, predict.measured.peak_memory_bytes],
            "facts": asdict(price.facts(strategy, facts, None)),
            "config": facts.config,
            "probes": [asdict(one) for one in (before, after)],
            "told_s": told[0],
            "told_fit_s": told[2],
            "told_bytes": told[3],
            "work": [asdict(predictor.fit_work), asdict(predictor.predict_work)],
            "expected": [asdict(one) for one in _expected_work(architecture, price.facts(strategy, facts, None))],
            "gflops": [one.flops_per_s["float32"] / 1e9 for one in (before, after)],
        }
    )


def _expected_work(architecture: Any, facts: Any) -> Any:
    from taskfit.costs.trial_work import expected_work

    return expected_work(architecture, facts)


def measure(trial: Trial) -> dict[str, Any]:
    """Run a trial in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "peft", "sklearn"])
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=run, args=(trial, folder, there))
        process.start()
        there.close()
        found: dict[str, Any] = here.recv()
        process.join()
    return found


def phases(found: list[dict[str, Any]]) -> list[tuple[list[float], float]]:
    """Return ideal terms (at the mean of both probes) and measured seconds of every phase of a tenth of a second."""
    listed = []
    for one in found:
        for terms, taken in zip(one["terms"], (one["fit_s"], one["predict_s"]), strict=True):
            if taken >= 0.1:
                listed.append(([sum(pair) / 2 for pair in zip(*terms, strict=True)], taken))
    return listed


def fitted(listed: list[tuple[list[float], float]]) -> list[float]:
    """Return the constants with the least relative errors; products of matrices take no less than at the probed rate.

    Without that bound the fit lets traffic stand for products, and larger models would be told too little; short
    trainings cannot tell the optimiser's steps from what is made once, so its constant is bounded by what a step of
    fused AdamW takes alone.
    """
    import numpy as np
    from scipy.optimize import lsq_linear

    matrix = np.array([[value / taken for value in terms] for terms, taken in listed])
    scale = matrix.max(axis=0) + 1e-12
    lower, upper = np.zeros(matrix.shape[1]), np.full(matrix.shape[1], np.inf)
    lower[0] = LEAST_MATRIX * scale[0]
    lower[3], upper[3] = 1.0 * scale[3], MOST_OPTIMISER * scale[3]
    weights = np.ones(len(listed))
    for _ in range(20):  # least absolute errors, by least squares weighted again and again
        found = lsq_linear(matrix / scale * weights[:, None], weights, bounds=(lower, upper)).x
        weights = 1 / np.sqrt(np.maximum(np.abs(matrix / scale @ found - 1), 0.02))
    return [float(value) for value in found / scale]


def errors(constants: list[float], listed: list[tuple[list[float], float]]) -> list[float]:
    """Return signed relative errors."""
    return [sum(c * term for c, term in zip(constants, terms, strict=True)) / taken - 1 for terms, taken in listed]


def main() -> None:
    """Print each trial and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four trials, under a minute")
    parser.add_argument("--fit", action="store_true", help="fit the constants of the engine")
    parser.add_argument("--out", type=Path, help="write everything measured here")
    options = parser.parse_args()
    from taskfit.costs.own_engine import ENGINE

    constants = [getattr(ENGINE, one.name) for one in fields(ENGINE)]
    found = []
    for trial in [TRIALS[index] for index in QUICK] if options.quick else TRIALS:
        one = {"trial": " ".join(trial)} | measure(trial)
        found.append(one)
        forecast = errors(constants, phases([one]))
        one["time_error"] = errors(constants, [_whole(one)])[0]
        one["memory_error"] = one["told_bytes"] / one["peak_bytes"] - 1
        print(
            f"{one['trial']:66} fit {one['fit_s']:6.2f} s, predict {one['predict_s']:6.2f} s "
            f"({one['time_error']:+.0%}; {', '.join(f'{error:+.0%}' for error in forecast)})  memory "
            f"{one['told_bytes'] / 1e6:5.0f} of {one['peak_bytes'] / 1e6:5.0f} MB ({one['memory_error']:+.0%})",
            flush=True,
        )
        if options.out:
            options.out.write_text(json.dumps({"format": 1, "trials": found}, indent=1) + "\n", encoding="utf-8")
    last: dict[str, Any] = {
        "trials": len(found),
        "time_median_error": round(statistics.median(abs(one["time_error"]) for one in found), 4),
        "time_signed_error": round(statistics.median(one["time_error"] for one in found), 4),
        "memory_median_error": round(statistics.median(abs(one["memory_error"]) for one in found), 4),
    }
    if options.fit:
        last |= fit_report(found)
    finish("cost", [0], last)


def _whole(one: dict[str, Any]) -> tuple[list[float], float]:
    both = [[sum(pair) / 2 for pair in zip(*terms, strict=True)] for terms in one["terms"]]
    return [sum(pair) for pair in zip(*both, strict=True)], one["fit_s"] + one["predict_s"]


def fit_report(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit on all, and on each half for the other."""
    from taskfit.costs.own_engine import ENGINE

    names = [one.name for one in fields(ENGINE)]
    best = dict(zip(names, fitted(phases(found)), strict=True))
    for name, value in best.items():
        print(f"{name}={value:.4g}")
    halves = found[::2], found[1::2]
    held_out = [errors(fitted(phases(a)), [_whole(one) for one in b]) for a, b in (halves, halves[::-1])]
    flat = [abs(error) for half in held_out for error in half]
    return {"fitted": best, "held_out_time_median_error": round(statistics.median(flat), 4)}


if __name__ == "__main__":
    main()
