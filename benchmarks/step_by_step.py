"""Distilling step-by-step (Hsieh et al. 2023): does a rationale as a second target help a small model?

``distill_cqa`` (choice among five answers) and ``distill_svamp`` (the expression that solves a word problem), both with
PaLM's rationales: the embedded decoder, all weights tuned, learns the label alone or label and rationale, at several
numbers of training rows. Every fit is kept in ``build/benchmarks/step_by_step-MODEL.jsonl``, MODEL being the first
digits of the model's fingerprint: the benchmark goes on where it was stopped; ``--minutes`` ends it after so many
minutes of processor time.
"""

from __future__ import annotations

import argparse
import time
from random import Random

import numpy as np
from common import ROOT, finish
from teachers import KeptFits, read

from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import DataReport, Row, Task, TeacherAnswer

KEPT = ROOT / "build" / "benchmarks"
MODEL = "taskfit-tiny"
SIZES = (100, 400, 800)
TEST = 200
WAYS = {"label": "full(epochs=3)", "label and rationale": "full(epochs=3, rationale=1.0)"}


def cqa() -> tuple[TaskDefinition, list[Row], list[Row]]:
    """Return the definition, training and test rows of commonsense questions with five choices."""
    wording = Wording(
        "default",
        "{{ question }}\nChoices: {{ answer_choices | join(', ') }}\nAnswer:",
        "{{ answer }}",
        {},
        "{{ choices | unique | list }}",
    )
    definition = TaskDefinition("cqa", "choice", (wording,), "{{ question }}", ("{{ answer }}",), (), ("accuracy",))
    return definition, *_rows("distill_cqa", "answer")


def svamp() -> tuple[TaskDefinition, list[Row], list[Row]]:
    """Return the same of word problems, whose answer is an expression."""
    wording = Wording("default", "{{ input }}\nExpression:", "{{ label }}", {})
    definition = TaskDefinition(
        "svamp",
        "generation",
        (wording,),
        "{{ input }}",
        ("{{ label }}",),
        (),
        ("exact_match",),
        max_answer_tokens=24,
    )
    return definition, *_rows("distill_svamp", "label")


SETS = {"svamp": svamp, "cqa": cqa}


def _rows(name: str, answer: str) -> tuple[list[Row], list[Row]]:
    """Return rows with people's answers; those of training also with the teacher's reasons, where it gave some."""
    train, test = read(name, "train"), read(name, "test")
    taught = [
        Row(f"train/{n}", one, TeacherAnswer(str(one[answer]), rationale=str(one["llm_rationale"])))
        for n, one in enumerate(train)
        if one["llm_rationale"]
    ]
    return taught, [Row(f"test/{n}", one) for n, one in enumerate(test)]


def run(fits: KeptFits, name: str, seeds: int, sizes: tuple[int, ...], tests: int, stop_at_s: float) -> None:
    """Fit what is missing of one set, until the time is over."""
    from taskfit.models import load

    definition, train, test = SETS[name]()
    known = {(one["set"], one["way"], one["rows"], one["seed"]) for one in fits.all()}
    asked = Random(1).sample(test, min(tests, len(test)))
    for size in sizes:
        for seed in range(seeds):
            drawn = tuple(Random(10 + seed).sample(train, min(size, len(train))))
            splits = {"train": drawn, "validation": (), "test": tuple(asked)}
            task = Task(definition, splits, "0" * 64, DataReport())
            for way, strategy in WAYS.items():
                if (name, way, size, seed) in known or time.process_time() > stop_at_s:
                    continue
                started = time.process_time()
                fitted = parse(strategy).fit(load(MODEL), task, seed=seed, budget=Budget())
                found = fitted.predict(asked)
                right = [int(_same(one.answer, definition.gold(row))) for one, row in zip(found, asked, strict=True)]
                record = {"set": name, "way": way, "rows": size, "seed": seed, "right": right}
                fits.add(record | {"cpu_s": time.process_time() - started})
                print(f"{name}, {size} rows, {way}, seed {seed}: {np.mean(right):.3f}", flush=True)


def _same(answer: str, golds: tuple[str, ...]) -> bool:
    """Return whether an answer is right but for spaces and the zeros of whole numbers."""
    return _plain(answer) in {_plain(gold) for gold in golds}


def _plain(text: str) -> str:
    return text.replace(" ", "").replace(".0", "").strip("().")


def table(records: list[dict]) -> list[dict]:
    """Return for each size both ways and their difference, paired by seed and row, with its 95 % bootstrap interval."""
    groups: dict[tuple[str, int], dict[str, dict[int, list[int]]]] = {}
    for one in records:
        groups.setdefault((one["set"], one["rows"]), {}).setdefault(one["way"], {})[one["seed"]] = one["right"]
    found = []
    for (name, size), ways in sorted(groups.items()):
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in ways.values()))) if len(ways) == 2 else []
        if not seeds:
            continue
        label, both = (np.array([ways[way][seed] for seed in seeds], dtype=float) for way in WAYS)
        random, gains = np.random.default_rng(0), []
        for _ in range(2000):
            rows = random.integers(label.shape[1], size=label.shape[1])
            drawn = random.integers(len(seeds), size=len(seeds))
            gains.append((both - label)[drawn][:, rows].mean())
        low, high = np.quantile(gains, [0.025, 0.975])
        found.append(
            {
                "set": name,
                "rows": size,
                "seeds": len(seeds),
                "label": round(float(label.mean()), 4),
                "label_and_rationale": round(float(both.mean()), 4),
                "gain_low": round(float(low), 4),
                "gain_high": round(float(high), 4),
            }
        )
    return found


def main() -> None:
    """Run what is missing, print the table and the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute; nothing is kept")
    parser.add_argument("--only", choices=SETS, help="one data set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60.0, help="most processor time of this run")
    chosen = parser.parse_args()
    import torch

    from taskfit.models import load

    torch.set_num_threads(1)
    names = [chosen.only] if chosen.only else (["svamp"] if chosen.quick else list(SETS))
    kept = KEPT / f"step_by_step-{load(MODEL).fingerprint[:10]}.jsonl"
    fits = KeptFits(kept, ("set", "way", "rows", "seed"), quick=chosen.quick)
    seeds, sizes, tests = (1, (20,), 10) if chosen.quick else (chosen.seeds, SIZES, TEST)
    for name in names:
        run(fits, name, seeds, sizes, tests, 60 * chosen.minutes)
    lines = table(fits.all())
    for one in lines:
        print(
            "{set:6} {rows:4} rows: label {label:.3f}, with rationale {label_and_rationale:.3f} "
            "(gain {gain_low:+.3f} to {gain_high:+.3f}, {seeds} seeds)".format(**one)
        )
    finish("step_by_step", list(range(seeds)), {"model": MODEL, "ways": WAYS, "table": lines})


if __name__ == "__main__":
    main()
