"""LlamBERT's table (Csanády et al. 2024): a small encoder from gold labels, from a teacher's, from both.

Rows of the table, for the student ``encoder`` on MiniLM: ``gold`` (people's labels of 200 rows), ``teacher`` (a
teacher's labels of the same rows), ``teacher+extra`` (of 400 further rows, too), ``extra then gold`` (first the
teacher's labels of the further rows, then people's of the 200). Teachers: recorded labels of language models where
there are some (``llm_annotations_babe``, ``llm_annotations_global_warming``); elsewhere (sst2, ag_news, imdb) no large
model runs offline, and a linear probe of MiniLM on up to 2,000 other gold rows takes its place.

Every fit is kept in ``build/benchmarks/llambert.jsonl``: the benchmark goes on where it was stopped. ``--minutes``
ends it after so many minutes of processor time, ``--only`` takes one set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
from common import ROOT, finish
from teachers import KeptFits, Labelled, babe, global_warming, plain

from taskfit.distillation.teacher_answers import with_train
from taskfit.strategy.contract import Budget, Predictor
from taskfit.strategy.grammar import parse
from taskfit.tasks.task import Row, Task, TeacherAnswer

KEPT = ROOT / "build" / "benchmarks" / "llambert.jsonl"
ROWS = ("gold", "teacher", "teacher+extra", "extra then gold")
GOLD, EXTRA, TEST = 200, 400, 400
STUDENT = "encoder(epochs=2, min_steps=1, max_tokens=64)"
SETS = {
    "babe": babe,
    "global_warming": global_warming,
    "sst2": lambda: plain("sst2", "sentence"),
    "ag_news": lambda: plain("ag_news"),
    "imdb": lambda: plain("imdb"),
}


def teachers_of(data: Labelled, quick: bool) -> Iterator[tuple[str, dict[str, str], list[Row]]]:
    """Yield each teacher's name, its labels by row, and the rows that it did not learn from."""
    if data.teachers:
        for name, said in list(data.teachers.items())[:1]:
            yield name, said, [row for row in data.train if row.id in said]
        return
    from taskfit.models import load

    rows = list(data.train)
    Random(0).shuffle(rows)
    learnt, rest = rows[: 100 if quick else 2000], rows[100 if quick else 2000 :][: GOLD + EXTRA]
    if len(rest) < GOLD + EXTRA:  # a small set: the teacher learns from the half that is left
        learnt, rest = rows[GOLD + EXTRA :], rows[: GOLD + EXTRA]
    probe = parse("linear-probe(max_tokens=64)").fit(load("minilm"), data.task(learnt, []), seed=0, budget=Budget())
    said = {found.row_id: found.answer for found in probe.predict(rest)}
    yield f"linear-probe on {len(learnt)} rows", said, rest


def fitted(row: str, task: Task, gold: list[Row], taught: dict[str, Row], seed: int) -> Predictor:
    """Return the student of one row of the table."""
    from taskfit.models import load

    student, model, budget = parse(STUDENT), load("minilm"), Budget()
    same = [taught[one.id] for one in gold]
    extra = [one for name, one in taught.items() if name not in {each.id for each in gold}]
    learnt = {"gold": gold, "teacher": same, "teacher+extra": [*same, *extra], "extra then gold": extra}[row]
    found = student.fit(model, with_train(task, learnt), seed=seed, budget=budget)
    if row == "extra then gold":
        found = student.go_on(found, with_train(task, gold), seed=seed, budget=budget)  # type: ignore[attr-defined]
    return found


def run(fits: KeptFits, name: str, seeds: int, quick: bool, stop_at_s: float) -> None:
    """Fit what is missing of one set, until the time is over."""
    data = SETS[name]()
    known = {(one["set"], one["teacher"], one["row"], one["seed"]) for one in fits.all()}
    test = Random(1).sample(data.test, min(len(data.test), 100 if quick else TEST))
    for teacher, said, pool in teachers_of(data, quick):
        agreement = np.mean([said[row.id] == row.fields["label"] for row in pool if row.id in said])
        for seed in range(seeds):
            drawn = Random(100 + seed).sample(pool, min(len(pool), 60 if quick else GOLD + EXTRA))
            taught = {row.id: replace(row, teacher=TeacherAnswer(said[row.id])) for row in drawn}
            gold = drawn[: len(drawn) // 3]
            for row in ROWS:
                if (name, teacher, row, seed) in known or time.process_time() > stop_at_s:
                    continue
                started = time.process_time()
                found = fitted(row, data.task(gold, test), gold, taught, seed).predict(test)
                right = [int(one.answer == each.fields["label"]) for one, each in zip(found, test, strict=True)]
                record = {"set": name, "teacher": teacher, "row": row, "seed": seed, "right": right}
                fits.add(record | {"agreement": float(agreement), "cpu_s": time.process_time() - started})
                print(f"{name}, {teacher}, {row}, seed {seed}: {np.mean(right):.3f}", flush=True)


def table(records: list[dict]) -> list[dict]:
    """Return the mean of each row of the table, with a 95 % interval over seeds and test rows (bootstrap of both)."""
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for one in records:
        groups.setdefault((one["set"], one["teacher"], one["row"]), []).append(one)
    found = []
    for (name, teacher, row), members in groups.items():
        right = np.array([one["right"] for one in sorted(members, key=lambda one: one["seed"])], dtype=float)
        random = np.random.default_rng(0)
        means = []
        for _ in range(2000):
            seeds = random.integers(len(right), size=len(right))
            means.append(right[seeds][:, random.integers(right.shape[1], size=right.shape[1])].mean())
        low, high = np.quantile(means, [0.025, 0.975])
        found.append(
            {
                "set": name,
                "teacher": teacher,
                "teacher_agreement": round(members[0]["agreement"], 4),
                "row": row,
                "seeds": len(right),
                "accuracy": round(float(right.mean()), 4),
                "low": round(float(low), 4),
                "high": round(float(high), 4),
            }
        )
    return found


def main() -> None:
    """Run what is missing, print the table and the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute; nothing is kept")
    parser.add_argument("--only", choices=SETS, help="one data set")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="most processor time of this run")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    names = [chosen.only] if chosen.only else (["babe"] if chosen.quick else list(SETS))
    fits = KeptFits(KEPT, ("set", "teacher", "row", "seed"), quick=chosen.quick)
    seeds = 1 if chosen.quick else chosen.seeds
    for name in names:
        run(fits, name, seeds, chosen.quick, 60 * chosen.minutes)
    lines = table(fits.all())
    for one in lines:
        print("{set:16} {teacher:28} {row:16} {accuracy:.3f}  {low:.3f} to {high:.3f}  ({seeds} seeds)".format(**one))
    settings = {"student": STUDENT, "gold_rows": GOLD, "extra_rows": EXTRA, "test_rows": TEST}
    finish("llambert", list(range(seeds)), {**settings, "table": lines})


if __name__ == "__main__":
    main()
