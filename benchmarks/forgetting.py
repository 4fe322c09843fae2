"""Does tuning on one task make the embedded model forget, and do adapters and mixtures forget less?

Tunes ``taskfit-tiny`` to name the kind of a question (trec, which it never saw): fully, by LoRA at several ranks, and
fully on a mixture with instructions it was once tuned on. Target: exact match on 500 test questions. Retained: the
shipped suite. One command: ``python benchmarks/forgetting.py`` (``--quick``: two short fits), two fits at a time with a
thread each unless ``--jobs`` says otherwise. Needs ``../shared/data``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import multiprocessing
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean

from common import ROOT, finish, shared

from taskfit.evaluation.forgetting import Forgetting
from taskfit.evaluation.outcomes import outcomes_of
from taskfit.evaluation.retained import read_retained
from taskfit.files import write_text
from taskfit.studies.fit import fit
from taskfit.tasks import load_task

NAMES = {
    "DESC": "description",
    "ENTY": "thing",
    "ABBR": "abbreviation",
    "HUM": "person",
    "LOC": "place",
    "NUM": "number",
}
ARMS = {
    "full": ("one", "full(epochs=3)"),
    "full, a quarter of the rate": ("one", "full(epochs=3, learning_rate=0.0002)"),
    "lora, rank 32": ("one", "lora(rank=32, epochs=3)"),
    "lora, rank 8": ("one", "lora(rank=8, epochs=3)"),
    "lora, rank 2": ("one", "lora(rank=2, epochs=3)"),
    "full, mixture": ("mixed", "full(epochs=3)"),
    "full, a quarter of the rate, mixture": ("mixed", "full(epochs=3, learning_rate=0.0002)"),
}
TASK = """
name: {name}
kind: generation
data: {{train: {name}.jsonl, validation: validation.jsonl, test: test.jsonl}}
templates:
  - {{name: plain, prompt: "{{{{ question }}}}", target: "{{{{ answer }}}}"}}
metrics: [exact_match]
max_answer_tokens: 8
"""
Pair = dict[str, str]


def questions(split: str) -> list[Pair]:
    """Questions of trec with the kind of answer they ask for."""
    ask = f"What does the question ask for? Answer with one of: {', '.join(NAMES.values())}."
    lines = (shared("trec") / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{"question": f"{ask}\n\n{row['text']}", "answer": NAMES[row["coarse_label"]]} for row in rows]


def instructions(count: int) -> list[Pair]:
    """Short instructions of many tasks, as the embedded model was tuned on."""
    found: list[Pair] = []
    with lzma.open(shared("instructions") / "train.jsonl.xz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            answer = row["output"] if isinstance(row["output"], str) else row["output"][0]
            question = f"{row['definition']}\n\n{row['input']}"
            if len(question) <= 500 and 0 < len(answer) <= 200:
                found.append({"question": question, "answer": answer})
            if len(found) == count:
                break
    return found


def write_tasks(folder: Path, rows: int) -> dict[str, Path]:
    """Write the task alone, and mixed with as many instructions; validation and test are the same."""
    pool = questions("train")
    random.Random(0).shuffle(pool)
    parts = {
        "one": pool[:rows],
        "mixed": [*pool[:rows], *instructions(rows)],
        "validation": pool[rows : rows + 100],
        "test": questions("test"),
    }
    for name, pairs in parts.items():
        lines = [json.dumps({"id": f"{name}-{number}"} | pair) for number, pair in enumerate(pairs)]
        write_text(folder / f"{name}.jsonl", "\n".join(lines) + "\n")
    for name in ("one", "mixed"):
        write_text(folder / f"{name}.yaml", TASK.format(name=name))
    return {name: folder / f"{name}.yaml" for name in ("one", "mixed")}


def run(task: Path, strategy: str, seed: int) -> dict[str, object]:
    """Fit once on one thread; return the target's exact match, and what was forgotten."""
    import torch

    from taskfit.evaluation.forgetting import forgotten, look
    from taskfit.evaluation.metrics import score
    from taskfit.models import load

    torch.set_num_threads(1)
    parts = read_retained(["suite"])
    before = look(load("taskfit-tiny"), parts)
    started = time.process_time()
    predictor = fit(task, strategy, model="taskfit-tiny", seed=seed, retain=["none"])
    cpu_s = time.process_time() - started
    loaded = load_task(task)
    found = outcomes_of(loaded.definition, loaded.test, predictor.predict(loaded.test))
    lost: Forgetting = forgotten(parts, before, look(predictor.model, parts), is_reversible=False)  # type: ignore[attr-defined]
    losses = {part.name: [round(x, 4) for x in (part.loss, part.low, part.high)] for part in lost.parts}
    return {"seed": seed, "exact_match": round(score("exact_match", found), 4), "cpu_s": round(cpu_s, 1), **losses}


def summary(runs: Sequence[dict[str, object]]) -> dict[str, float]:
    """Return the means over seeds of the target, and of what was lost of both parts of the suite."""
    return {
        "exact_match": fmean(float(str(each["exact_match"])) for each in runs),
        "text": fmean(each["text"][0] for each in runs),  # type: ignore[index]
        "answers": fmean(each["answers"][0] for each in runs),  # type: ignore[index]
    }


def main() -> None:
    """Run all arms and print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time")
    chosen = parser.parse_args()
    rows, seeds = (64, [0]) if chosen.quick else (400, [0, 1, 2])
    arms = {name: ARMS[name] for name in (["full", "lora, rank 2"] if chosen.quick else ARMS)}
    if chosen.quick:
        arms = {name: (task, strategy.replace("epochs=3", "epochs=1")) for name, (task, strategy) in arms.items()}
    tasks = write_tasks(ROOT / "build" / "benchmarks" / "forgetting", rows)
    table: list[dict[str, object]] = []
    with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
        asked = {
            name: [pool.submit(run, tasks[task], strategy, seed) for seed in seeds]
            for name, (task, strategy) in arms.items()
        }
        for name, fits in asked.items():
            runs = [each.result() for each in fits]
            means = summary(runs)
            table.append({"arm": name, **{key: round(value, 4) for key, value in means.items()}, "runs": runs})
            print(
                f"{name:36} exact match {means['exact_match']:.3f}, text {means['text']:+.1%}, "
                f"answers {means['answers']:+.1%}",
                runs,
                flush=True,
            )
    finish("forgetting", seeds, {"train_rows": rows, "table": table})


if __name__ == "__main__":
    main()
