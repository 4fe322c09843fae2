"""Which rank, and which matrices? LoRA at ranks 1 to 64 on attention, MLP and all, on the example or your own task.

    python benchmarks/lora_ranks.py my/task.yaml --model path/to/model --seeds 3

The model may be an encoder, such as ``minilm``, for tasks of labels. Each row has quality with its interval, what
trained, and how much of the rank the updates use (effective rank). A run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from common import ROOT, finish

from taskfit.cli.output import print_table
from taskfit.cli.progress import Progress
from taskfit.studies.compare_study import run_study
from taskfit.studies.result import trial_folder
from taskfit.studies.rooms import ROOMS
from taskfit.studies.spec import StudyConfig
from taskfit.tuning.inspect import inspect_predictor

RANKS = "1,2,4,8,16,32,64"
TARGETS = "attention,mlp,all"


def main() -> None:
    """Run the sweep and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", type=Path, default=ROOT / "examples" / "support" / "task.yaml")
    parser.add_argument("--model", default="taskfit-tiny")
    parser.add_argument("--ranks", default=RANKS)
    parser.add_argument("--targets", default=TARGETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", default="", help="further parameters of lora, such as: learning_rate=0.002")
    parser.add_argument("--quick", action="store_true", help="two ranks of attention, eight steps, one seed")
    chosen = parser.parse_args()
    started = time.perf_counter()
    ranks = ["1", "4"] if chosen.quick else chosen.ranks.split(",")
    targets = ["attention"] if chosen.quick else chosen.targets.split(",")
    settings = "min_steps=8, max_steps=8" if chosen.quick else chosen.settings
    is_encoder = ROOMS.describe_model(chosen.model).architecture == "encoder"
    names = [named(rank, target, settings, is_encoder=is_encoder) for target in targets for rank in ranks]
    seeds = 1 if chosen.quick else chosen.seeds
    config = StudyConfig(
        strategies=tuple(names),
        models=(chosen.model,),
        seeds=seeds,
        max_seeds=seeds,
        runs_all_seeds=True,
        retain=("none",),
    )
    key = hashlib.sha256(repr((chosen.task.resolve(), config)).encode()).hexdigest()[:10]
    with Progress() as progress:
        study = run_study(chosen.task, config, ROOT / "build" / "benchmarks" / f"ranks-{key}", on_event=progress.show)
    table = []
    for one in study.comparison.candidates:
        interval = one.metrics[study.comparison.metric]
        folder = trial_folder(study.folder, one.results[0].spec.id) / "predictor"
        updates = inspect_predictor(folder).updates
        table.append(
            {
                "targets": _lora(one.strategy).targets,
                "rank": _lora(one.strategy).rank,
                study.comparison.metric: round(interval.value, 3),
                "low": round(interval.low, 3),
                "high": round(interval.high, 3),
                "effective_rank": round(fmean(update.effective for update in updates), 2),
                "for_90_percent": round(fmean(update.for_90_percent for update in updates), 2),
                "file_kb": round(one.cost.artefact_bytes / 1e3, 1),
                "fit_s": round(one.cost.fit_s, 1),
            }
        )
    table.sort(key=lambda row: (str(row["targets"]), int(str(row["rank"]))))
    columns = tuple(table[0]) if table else ()
    print_table(columns, [tuple(str(row[name]) for name in columns) for row in table])
    wall_s = round(time.perf_counter() - started, 1)
    finish("lora_ranks", list(range(seeds)), {"task": chosen.task.name, "wall_s": wall_s, "table": table})


def named(rank: str, targets: str, settings: str, *, is_encoder: bool) -> str:
    """Return the strategy that tunes by LoRA of this rank on these matrices."""
    further = f", {settings}" if settings else ""
    if is_encoder:
        return f"encoder(tune=lora(rank={rank}, targets={targets}){further})"
    return f"lora(rank={rank}, targets={targets}{further})"


def _lora(strategy: str) -> Any:
    """The strategy's low-rank update."""
    from taskfit.strategy.grammar import parse

    found: Any = parse(strategy)
    return found.weights if hasattr(found, "weights") else found.method


if __name__ == "__main__":
    main()
