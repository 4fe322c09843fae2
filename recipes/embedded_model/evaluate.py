"""Step 6: measure the finished model against its untuned twin, random weights and the first version.

Three parts, each resumable: ``text`` (bits per character), ``ask`` (held-out tasks without training), ``tune`` (as a
base for LoRA and full tuning). All tasks go through the library's own studies.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured_tasks import MEASURED, TUNED, write_task
from network import document_bits, export, load_tokenizer, new_model, shape_named
from places import ROOT, Places, options, read_lines, run_step, say, write_json
from tables import ask_table, text_table, tune_table
from transformers import AutoModelForCausalLM

from taskfit import parse_strategy
from taskfit.errors import DataError
from taskfit.evaluation.paired import mcnemar
from taskfit.files import appearing, write_text
from taskfit.studies.candidate import Candidate
from taskfit.studies.compare_study import Study, run_study
from taskfit.studies.spec import StudyConfig

__all__ = ["ask", "first_version", "measure_text", "models_of", "tune"]

FIRST_VERSION = "0ef0f16"
"""The commit that the first version's weights came with."""

ASKED = {
    "majority": "majority",
    "zero-shot": "zero-shot(calibrate=batch)",
    "few-shot": "few-shot(calibrate=batch)",
    "wording 1": "zero-shot(wording=1, calibrate=batch)",
    "wording 2": "zero-shot(wording=2, calibrate=batch)",
}
"""Ways of asking by the names that the report has for them. All are calibrated on validation rows, whose labels are not
looked at (Zhou et al. 2024): a small model leans so far to one label, the shorter one or any, that by plain scores it
gives it to nearly every row, and nothing is measured."""

TUNING = ("lora", "full")
TRAIN_SIZES: tuple[int | None, ...] = (32, 128, 512, None)
TEXT_CHARACTERS = 20_000
RESAMPLES = 2000


def models_of(places: Places, first: Path | None) -> dict[str, Path]:
    """Return the folders of the four models by name; the random twin and the first version are made where missing.

    Raises:
        DataError: the trained models are not there, or the first version cannot be had.
    """
    finished = places.need("instructed", "instruct.py")
    random_twin = places.build / "random"
    if not random_twin.exists():
        tokenizer = load_tokenizer(finished)
        size = places.built("pretrain.json", "pretrain.py")["plan"]["size"]
        export(new_model(shape_named(size), tokenizer, seed=12345), tokenizer, random_twin)
    untuned = places.need("pretrained", "pretrain.py")
    found = {"second": finished, "untuned": untuned, "random": random_twin}
    return {**found, "first": first_version(places, first)}


def first_version(places: Places, folder: Path | None) -> Path:
    """Return the folder of the first version: the one named, or what git still has of it.

    Raises:
        DataError: neither is there.
    """
    if folder is not None:
        if not (folder / "model.safetensors").exists():
            raise DataError(f"expected a model folder for the first version, {folder} has no model.safetensors")
        return folder
    target = places.build / "first"
    if target.exists():
        return target
    inside = "taskfit/models/embedded"
    listed = _git("ls-tree", "--name-only", FIRST_VERSION, f"{inside}/").decode().split()
    with appearing(target) as partial:
        partial.mkdir()
        for path in listed:
            (partial / Path(path).name).write_bytes(_git("show", f"{FIRST_VERSION}:{path}"))
    return target


def measure_text(places: Places, models: dict[str, Path], documents: int) -> dict[str, Any]:
    """Return bits per character by kind of held-out text and model, with 95 % intervals over documents.

    ``gain`` is how much better the finished model is than another on the same documents.
    """
    texts: dict[str, list[str]] = {}
    for document in read_lines(places.need("heldout.jsonl", "corpus.py")):
        chosen = texts.setdefault(document["kind"], [])
        if len(chosen) < documents:
            chosen.append(document["text"][:TEXT_CHARACTERS])
    bits: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for name, folder in models.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = load_tokenizer(folder)
        bits[name] = {kind: document_bits(model, tokenizer, some) for kind, some in texts.items()}
        say(f"text: {name} measured")
    report: dict[str, Any] = {}
    for kind in texts:
        own = {name: np.array(bits[name][kind], dtype=np.float64) for name in models}
        weights = _resamples(len(texts[kind]))
        row = {name: _with_interval(weights, values[:, 0], values[:, 1]) for name, values in own.items()}
        lengths = own["second"][:, 1]
        gains = {n: _with_interval(weights, own[n][:, 0] - own["second"][:, 0], lengths) for n in own if n != "second"}
        report[kind] = {"documents": len(texts[kind]), "bits_per_character": row, "gain": gains}
    return report


def ask(places: Places, models: dict[str, Path], names: Sequence[str], test_rows: int, seeds: int) -> dict[str, Any]:
    """Return accuracies without training on held-out tasks, and row-by-row tests against the other models."""
    report: dict[str, Any] = {}
    for name in names:
        folder = places.build / "evaluation" / "ask"
        task = write_task(places, folder, name, test_rows=test_rows, lists_labels=name != "banking77")
        strategies = {parse_strategy(text).name: way for way, text in ASKED.items()}
        asked = _study(task, folder / f"{name}-study", tuple(ASKED.values()), models, (None,), seeds)
        found = {(strategies[strategy], *rest): one for (strategy, *rest), one in asked.items()}
        best = found["zero-shot", "second", None]
        row: dict[str, Any] = {"type": MEASURED[name].type, "rows": len(best.runs[0].answers)}
        row["accuracy"] = {f"{way}|{model}": _figure(one) for (way, model, _), one in found.items()}
        others = [("zero-shot", model, None) for model in models if model != "second"] + [("majority", "", None)]
        row["wins"] = {}
        for key in others:
            test = mcnemar(best.runs[0], found[key].runs[0])
            row["wins"][key[1] or "majority"] = {
                "won": test.only_a_right,
                "lost": test.only_b_right,
                "p": round(test.mid_p, 5),
            }
        report[name] = row
    return report


def tune(
    places: Places,
    models: dict[str, Path],
    names: Sequence[str],
    test_rows: int,
    seeds: int,
    sizes: Sequence[int | None] = TRAIN_SIZES,
) -> dict[str, Any]:
    """Return the figures of LoRA and full tuning from each model, by data set and number of training rows."""
    report: dict[str, Any] = {}
    for name in names:
        folder = places.build / "evaluation" / "tune"
        task = write_task(places, folder, name, test_rows=test_rows, lists_labels=False)
        found = _study(task, folder / f"{name}-study", TUNING, models, tuple(sizes), seeds)
        metric = next(iter(next(iter(found.values())).metrics))
        figures = {
            f"{strategy}|{model}|{rows or 'all'}": _figure(one) for (strategy, model, rows), one in found.items()
        }
        report[name] = {"metric": metric, "figures": figures}
    return report


def _study(
    task: Path,
    folder: Path,
    strategies: Sequence[str],
    models: dict[str, Path],
    sizes: tuple[int | None, ...],
    seeds: int,
) -> dict[tuple[str, str, int | None], Candidate]:
    """Run a study, or what is missing of it, and return its candidates by strategy, model's name and training rows."""
    config = StudyConfig(
        strategies=tuple(strategies),
        models=tuple(str(path) for path in models.values()),
        seeds=seeds,
        max_seeds=seeds,
        runs_all_seeds=True,
        train_sizes=sizes,
        retain=("none",),
    )
    study: Study = run_study(task, config, folder)
    say(f"{folder.name}: {len(study.comparison.candidates)} candidates, {len(study.comparison.failures)} failures")
    by_folder = {str(path): name for name, path in models.items()}
    return {
        (one.strategy, by_folder.get(one.model or "", ""), one.train_rows): one for one in study.comparison.candidates
    }


def _figure(candidate: Candidate) -> list[float]:
    interval = next(iter(candidate.metrics.values()))
    return [round(value, 4) for value in (interval.value, interval.low, interval.high)]


def _resamples(documents: int) -> np.ndarray:
    """How often each document is in each resample, shape (resamples, documents)."""
    return np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), RESAMPLES)


def _with_interval(weights: np.ndarray, over: np.ndarray, under: np.ndarray) -> list[float]:
    """Return the ratio of two sums over documents, and the 2.5th and 97.5th percentile of its resamples."""
    drawn = (weights @ over) / (weights @ under)
    return [round(float(value), 4) for value in (over.sum() / under.sum(), *np.percentile(drawn, [2.5, 97.5]))]


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise DataError(
            f"git has no commit {FIRST_VERSION} with the first version ({done.stderr.decode().strip()})",
            "Name a folder with its files by --first.",
        )
    return done.stdout


def _step(chosen: argparse.Namespace, places: Places) -> None:
    torch.set_num_threads(chosen.threads)
    places.check_room("the evaluation", disk_bytes=3e9, memory_bytes=3e9)
    models = models_of(places, chosen.first)
    tables = {"text": text_table, "ask": ask_table, "tune": tune_table}
    for part in tables if chosen.part == "all" else [chosen.part]:
        if part == "text":
            report = measure_text(places, models, chosen.documents)
        elif part == "ask":
            report = ask(places, models, chosen.sets or tuple(MEASURED), chosen.test_rows, 1)
        else:
            report = tune(places, models, chosen.sets or TUNED, chosen.test_rows, chosen.seeds, chosen.train_sizes)
        write_json(places.build / f"evaluation-{part}.json", report)
        text = tables[part](report)
        write_text(places.build / f"evaluation-{part}.md", text)
        print(text)


def _sizes(text: str) -> list[int | None]:
    return [None if one == "all" else int(one) for one in text.split(",")]


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("part", choices=("all", "text", "ask", "tune"), nargs="?", default="all")
    parser.add_argument("--first", type=Path, help="folder of the first version (default: read from git)")
    parser.add_argument("--sets", type=lambda text: text.split(","), help="only these data sets, with commas")
    parser.add_argument("--documents", type=int, default=40, help="held-out documents of each kind (default: 40)")
    parser.add_argument("--test-rows", type=int, default=500, help="test rows of each set (default: 500)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each tuning (default: 3)")
    parser.add_argument("--train-sizes", type=_sizes, default=TRAIN_SIZES, help="default: 32,128,512,all")
    parser.add_argument("--threads", type=int, default=2)
    run_step(parser, _step)
