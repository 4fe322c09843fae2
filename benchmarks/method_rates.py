"""Do the methods' default learning rates suit a narrow model? Each with three rates around its own, two seeds.

    python benchmarks/method_rates.py [--quick] [--methods ia3,vera] [--factors 0.33,1,3] [--sets support,trec]
                                      [--settings "batch=8, min_steps=60, max_steps=60"] [--stop-after 300] [--table]

The embedded model (192 wide) in float32 on the support example and on questions of trec. Told of each: the lowest
loss on validation rows in nats a token, beside the loss before training, and accuracy on test rows. Fits that are
there already are not made again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

import torch
from common import ROOT, finish, shared

from taskfit.cli.output import print_table, say
from taskfit.models import load
from taskfit.prompting.shots import ZeroShot
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tasks import load_task, take_rows
from taskfit.tasks.task import Task
from taskfit.tuning.answers import mean_loss
from taskfit.tuning.full import Full
from taskfit.tuning.training_set import build_training_set

METHODS = (
    "lora,ia3,adapter,vera,dora,adalora,pissa,random-mask,norms,last-layers,head-only,"
    "prompt-tuning,p-tuning,prefix-tuning,p-tuning-v2"
)
SETTINGS = "batch=8, min_steps=60, max_steps=60"
ROWS = {"train": 200, "validation": 64, "test": 160}
TREC = """version: 1
name: trec
kind: classification
instruction: What kind of answer does this question ask for?
input: "{{ text }}"
target: "{{ coarse_label }}"
metrics: [accuracy]
data: {train: DATA/train.jsonl, test: DATA/test.jsonl}
"""


def main() -> None:
    """Fit what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one method, one seed, four steps")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--factors", default="0.33,1,3", help="of the default rate")
    parser.add_argument("--sets", default="support,trec")
    parser.add_argument("--settings", default=SETTINGS, help="parameters that every method gets")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="seconds after which no fit is begun")
    parser.add_argument("--table", action="store_true", help="fit nothing: tell what there is")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.quick:
        chosen.methods, chosen.sets, chosen.seeds = "norms", "support", 1
        chosen.settings = "batch=8, min_steps=4, max_steps=4"
    path = ROOT / "build" / "benchmarks" / "method_rates.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {key(one): one for one in map(json.loads, path.read_text().splitlines())} if path.exists() else {}
    started = time.monotonic()
    for wanted in list(planned(chosen)):
        if chosen.table or key(wanted) in done:
            continue
        if time.monotonic() - started > chosen.stop_after:
            break
        made = wanted | fitted(**wanted)  # type: ignore[arg-type]
        say(json.dumps(made))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made) + "\n")
        done[key(wanted)] = made
    rows = list(table(list(done.values())))
    if rows:
        print_table(tuple(rows[0]), [tuple(str(value) for value in row.values()) for row in rows])
    finish("method_rates", list(range(chosen.seeds)), {"table": rows})


def planned(chosen: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Every fit, the first seed of all first."""
    for seed in range(chosen.seeds):
        for name in chosen.sets.split(","):
            for method in chosen.methods.split(","):
                for factor in chosen.factors.split(","):
                    yield {
                        "set": name,
                        "method": method,
                        "factor": float(factor),
                        "settings": chosen.settings,
                        "seed": seed,
                    }


def key(fit: dict[str, object]) -> tuple[object, ...]:
    """What tells one fit from the others."""
    return tuple(fit[name] for name in ("set", "method", "factor", "settings", "seed"))


def fitted(set: str, method: str, factor: float, settings: str, seed: int) -> dict[str, object]:  # noqa: A002
    """Fit once: rate, loss before and at best, accuracy, seconds of the processor."""
    task = task_of(set)
    model = load("taskfit-tiny", dtype="float32", device="cpu")
    default = parse(f"{method}({settings})")
    rate = default.weights.rate(model) * factor  # type: ignore[attr-defined]
    before = mean_loss(
        model,
        build_training_set(model, task, ZeroShot().prepare(task, seed=0), Full(), seed=0).held_out,
    )
    lines: list[str] = []
    started = time.process_time()
    predictor = parse(f"{method}({settings}, learning_rate={rate:.6g})").fit(
        model, task, seed=seed, budget=Budget(say=lines.append)
    )
    spent = time.process_time() - started
    losses = [float(found[1]) for line in lines if (found := re.search(r"validation ([\d.]+)", line))]
    gold = [next(iter(task.definition.gold(row))) for row in task.test]
    right = [one.answer == label for one, label in zip(predictor.predict(task.test), gold, strict=True)]
    return {
        "rate": rate,
        "before": round(before, 4),
        "loss": min(losses),
        "accuracy": round(fmean(right), 4),
        "cpu_s": round(spent, 1),
    }


def task_of(name: str) -> Task:
    """The task with samples of its rows, always the same."""
    if name == "support":
        return load_task(ROOT / "examples" / "support" / "task.yaml")
    folder = ROOT / "build" / "benchmarks" / "method_rates_task"
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.yaml"
    whole.write_text(TREC.replace("DATA", str(shared(name))), encoding="utf-8")
    task = load_task(whole)
    taken = {split: take_rows(task.definition, rows, ROWS[split], 0, of=split) for split, rows in task.splits.items()}
    return replace(task, splits=taken)


def table(fits: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """One row a method, set and settings; losses of the rates beside each other, means over seeds."""
    groups = sorted({(str(one["set"]), str(one["settings"]), str(one["method"])) for one in fits})
    for name, settings, method in groups:
        same = [one for one in fits if (one["set"], one["settings"], one["method"]) == (name, settings, method)]
        for factor in sorted({float(str(one["factor"])) for one in same}):
            own = [one for one in same if one["factor"] == factor]
            means = {entry: fmean(float(str(one[entry])) for one in own) for entry in ("rate", "before", "loss")}
            yield {
                "set": name,
                "method": method,
                "settings": settings,
                "rate": f"{means['rate']:.2g}",
                "factor": factor,
                "seeds": len(own),
                "before": round(means["before"], 3),
                "loss": round(means["loss"], 3),
                "accuracy": round(fmean(float(str(one["accuracy"])) for one in own), 3),
            }


if __name__ == "__main__":
    main()
