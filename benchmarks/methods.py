"""All tuning methods on three tasks with equal effort: quality, trained parameters, tokens/s, memory, file size.

Every method searches the same number of points on validation. The first seed of everything comes first, so that a
run that is stopped has whole tables of fewer seeds; run again, it goes on where it was. ``--table`` only reads.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from common import ROOT, finish, shared

from taskfit.cli.output import print_table, say
from taskfit.cli.progress import Progress
from taskfit.costs.trial_cost import TrialCost
from taskfit.studies.candidate import Candidate
from taskfit.studies.compare import compare_study
from taskfit.studies.jobs import usable_cores
from taskfit.studies.plan import plan
from taskfit.studies.rooms import ROOMS
from taskfit.studies.run import run
from taskfit.studies.search import with_search
from taskfit.studies.spec import Plan, StudyConfig
from taskfit.studies.study_file import open_folder
from taskfit.tasks import take_rows

DECODER = [
    "full",
    "last-layers",
    "head-only",
    "norms",
    "random-mask",
    "lora",
    "rslora",
    "dora",
    "pissa",
    "vera",
    "adalora",
    "ia3",
    "adapter",
    "prompt-tuning",
    "p-tuning",
    "prefix-tuning",
    "p-tuning-v2",
]
"""bitfit is tried on the encoder only: the embedded model has no biases. qlora packs a base that does not fit."""

ENCODER = ["lora", "rslora", "dora", "vera", "ia3", "adapter", "bitfit", "norms", "last-layers", "head-only"]
"""Inside ``encoder(tune=...)``; ``encoder`` alone tunes it whole."""

FLOORS = ["linear", "zero-shot"]

BATCH = 8


@dataclass(frozen=True)
class Set:
    """A data set: its files, its fields, how many rows are taken of each split, and steps of each kind of model."""

    name: str
    text: str
    label: str
    question: str
    train: int
    validation: int
    test: int
    decoder_steps: int
    encoder_steps: int


SETS = [
    Set("trec", "text", "coarse_label", "What kind of answer does this question ask for?", 240, 60, 300, 120, 60),
    Set(
        "sst2", "sentence", "label", "Is this sentence from a film review positive or negative?", 240, 60, 300, 120, 60
    ),
    Set("banking77", "text", "category", "What does this bank customer want?", 308, 77, 154, 120, 120),
]


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task, two methods, one seed, no search")
    parser.add_argument("--tries", type=int, default=4, help="points tried for each method")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="run nothing: tell what there is")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time, each with its share of the cores")
    chosen = parser.parse_args()
    started = time.perf_counter()
    sets = SETS[:1] if chosen.quick else SETS
    seeds, tries = (1, 1) if chosen.quick else (chosen.seeds, chosen.tries)
    folder = ROOT / "build" / "benchmarks" / f"methods-{'quick' if chosen.quick else tries}"
    if not chosen.table:
        run_all(sets, folder, seeds, tries, chosen.jobs, is_quick=chosen.quick)
    tables = {one.name: table(folder / one.name / "study") for one in sets if (folder / one.name / "study").is_dir()}
    finish(
        "methods",
        list(range(seeds)),
        {"tries": tries, "wall_s": round(time.perf_counter() - started, 1), "tables": tables},
    )


def run_all(sets: list[Set], folder: Path, seeds: int, tries: int, jobs: int, *, is_quick: bool) -> None:
    """Run what is missing, the first seed of everything first."""
    plans = {one.name: planned(one, folder / one.name, seeds, tries, jobs, is_quick=is_quick) for one in sets}
    for seed in range(seeds):
        for name, whole in plans.items():
            say(f"{name}, seed {seed}")
            part = replace(whole, trials=tuple(spec for spec in whole.trials if spec.seed == seed))
            with Progress() as progress:
                run(part, folder / name / "study", on_event=progress.show)


def planned(one: Set, folder: Path, seeds: int, tries: int, jobs: int, *, is_quick: bool) -> Plan:
    """Write the task's files, plan its study and open its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    task = ROOMS.load_task(write_task(one, folder))
    decoder, encoder = (["head-only"], []) if is_quick else (DECODER, ENCODER)
    slow, quick = (pace(4 if is_quick else steps) for steps in (one.decoder_steps, one.encoder_steps))
    names = [*FLOORS, *(f"{name}({slow})" for name in decoder), f"encoder({quick})"]
    names += [f"encoder(tune={name}, {quick})" for name in encoder]
    config = StudyConfig(
        strategies=tuple(with_search(name, tries=tries, seconds=None) for name in names),
        models=("taskfit-tiny", "minilm"),
        seeds=seeds,
        max_seeds=seeds,
        runs_all_seeds=True,
        jobs=jobs,
        retain=("none",),
    )
    made = plan(task, config)
    pairs = [spec for spec in made.trials if belongs(spec.strategy, spec.model)]
    made = replace(made, trials=tuple(pairs), threads=max(1, usable_cores() // jobs))
    open_folder(made, task, folder / "study")
    return made


def pace(steps: int) -> str:
    """Return the settings that give every method so many steps."""
    return f"batch={BATCH}, min_steps={steps}, max_steps={steps}"


def belongs(strategy: str, model: str | None) -> bool:
    """Return whether this pair is asked for: a prompt on the encoder is another question."""
    return strategy != "zero-shot" or model == "taskfit-tiny"


def write_task(one: Set, folder: Path) -> Path:
    """Write a task file over samples of the set's rows, drawn once, stratified by label."""
    source = folder / "whole.yaml"
    data = shared(one.name)
    splits = {split: next(data.glob(f"{split}.jsonl*"), None) for split in ("train", "validation", "test")}
    lines = [f"  {split}: {path}" for split, path in splits.items() if path is not None]
    body = (
        f"version: 1\nname: {one.name}\nkind: classification\ninstruction: {one.question}\n"
        f'input: "{{{{ {one.text} }}}}"\ntarget: "{{{{ {one.label} }}}}"\nmetrics: [accuracy, macro_f1]\n'
    )
    source.write_text(f"{body}data:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    task = ROOMS.load_task(source)
    for split, size in (("train", one.train), ("validation", one.validation), ("test", one.test)):
        rows = take_rows(task.definition, task.splits[split], size, 0, of=split)  # type: ignore[index]
        text = "".join(json.dumps(dict(row.fields), ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    path = folder / "task.yaml"
    labels = f"labels: [{', '.join(json.dumps(label) for label in task.definition.labels)}]\n"
    path.write_text(
        f"{body}{labels}data: {{train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}\n",
        encoding="utf-8",
    )
    return path


def table(study: Path) -> list[dict[str, object]]:
    """Print and return one record a method: means over its finished seeds."""
    compared = compare_study(study)
    records = [record(one, compared.metric) for one in compared.candidates]
    columns = list(records[0]) if records else []
    print(f"\n{compared.definition.name}: {compared.rows} test rows, {compared.missing} trials have not run")
    print_table(tuple(columns), [tuple(str(one[name]) for name in columns) for one in records])
    return records


def record(one: Candidate, metric: str) -> dict[str, object]:
    """Return what the table says of a method on a model."""
    costs = [TrialCost.from_json(result.cost) for result in one.results]
    found = one.metrics[metric]
    bought = [match for result in one.results for match in gains(result.notes)]
    trained = [count for result in one.results[:1] for count in trained_values(result.notes)]
    return {
        "method": short(one.strategy),
        "model": one.model_shown or "",
        "seeds": len(one.results),
        metric: round(found.value, 3),
        "low": round(found.low, 3),
        "high": round(found.high, 3),
        "search_bought": round(fmean(bought), 3) if bought else "",
        "trained": trained[0] if trained else "",
        "tokens_per_cpu_s": round(fmean(cost.fit_work.computed_tokens / max(cost.fit.cpu_s, 1e-9) for cost in costs)),
        "fit_cpu_s": round(fmean(cost.fit.cpu_s for cost in costs), 1),
        "memory_mb": round(max(cost.peak_memory_bytes for cost in costs) / 1e6),
        "file_kb": round(fmean(cost.artefact_bytes for cost in costs) / 1e3, 1),
    }


def short(strategy: str) -> str:
    """Return a strategy's name without the settings that all of them share."""
    inner = re.sub(r"^tune\(strategy=(.*), tries=\d+\)$", r"\1", strategy)
    return re.sub(r"\(\)$", "", re.sub(r"(, )?(batch|min_steps|max_steps)=\d+", "", inner).replace("(, ", "("))


def gains(notes: tuple[str, ...]) -> Iterator[float]:
    """Yield what a search says that it bought on validation."""
    for note in notes:
        if note.startswith("search over"):
            match = re.search(r": ([+-][\d.e-]+) \(95 %", note)
            yield float(match[1]) if match else 0.0


def trained_values(notes: tuple[str, ...]) -> Iterator[int]:
    """Yield how many values train, as the method says it."""
    for note in notes:
        match = re.search(r"(?:trains|layer) ([\d,]+) of ([\d,]+) values", note)
        if match:
            yield int(match[1].replace(",", ""))


if __name__ == "__main__":
    main()
