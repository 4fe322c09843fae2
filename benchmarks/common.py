"""What every benchmark shares: the machine, the data folder beside the checkout, and the last line it prints."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from taskfit.versions import versions

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def arguments(description: str) -> argparse.Namespace:
    """Parse the one option that all benchmarks have: ``--quick`` ends in under a minute."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    return parser.parse_args()


def shared(name: str) -> Path:
    """Return the folder of a shared data set; where there is none, stop with a message and exit code 0."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        print(f"skipped: the data set {name!r} is not at ../shared/data/{name}")
        print(json.dumps({"skipped": name}))
        sys.exit(0)
    return folder


def machine() -> dict[str, str | int]:
    """Say what this machine is: processor, cores, memory in GiB."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {"processor": processor, "cores": os.cpu_count() or 1, "memory_gib": memory_gib}


def versions_and_commit() -> dict[str, str]:
    """Return the versions of what the figures depend on, and the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {**versions(("trl",)), "commit": commit or "unknown"}


def finish(benchmark: str, seeds: list[int], figures: dict[str, object]) -> None:
    """Print the last line: one JSON object with the figures, machine, versions and seeds."""
    print(
        json.dumps(
            {
                "benchmark": benchmark,
                "date": time.strftime("%Y-%m-%d"),
                **figures,
                "seeds": seeds,
                "machine": machine(),
                "versions": versions_and_commit(),
            }
        )
    )


def compare_shared(
    benchmark: str, task_file: str, strategies: list[str], seeds: int, train_rows: int, description: str
) -> None:
    """Run ``compare`` on a shared data set, print the table and the verdict, and the last line.

    ``--quick``: floors, one seed and few rows only. ``--jobs``: so many trials at a time, each with its share of the
    cores; small models get more done so, and are charged by processor time.

    Args:
        benchmark: the data set's name, and the benchmark's.
        task_file: YAML text; ``DATA`` in it stands for the data set's folder.
        strategies: names of strategies.
        seeds: seeds of each strategy.
        train_rows: size of the training subset.
        description: for ``--help``.
    """
    from taskfit.cli.compare import table_lines
    from taskfit.cli.output import print_table, say
    from taskfit.cli.progress import Progress
    from taskfit.studies.compare_study import open_study
    from taskfit.studies.events import StudyPlanned
    from taskfit.studies.jobs import usable_cores
    from taskfit.studies.plan import plan
    from taskfit.studies.rooms import ROOMS
    from taskfit.studies.run import run
    from taskfit.studies.spec import StudyConfig
    from taskfit.studies.study_file import open_folder

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, each with its share of the cores")
    chosen = parser.parse_args()
    quick = chosen.quick
    text = task_file.replace("DATA", str(shared(benchmark)))
    folder = ROOT / "build" / "benchmarks" / (f"{benchmark}-quick" if quick else benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    config = StudyConfig(
        strategies=("majority", "linear")
        if quick and "linear" in strategies
        else tuple(strategies[:2] if quick else strategies),
        seeds=1 if quick else seeds,
        train_sizes=(min(train_rows, 500) if quick else train_rows,),
        jobs=chosen.jobs,
        is_retrying_failed=True,
    )
    started = time.perf_counter()
    task = ROOMS.load_task(path)
    planned = replace(plan(task, config), threads=max(1, usable_cores() // chosen.jobs))
    with Progress() as progress:
        planned = open_folder(planned, task, folder / "study")
        progress.show(StudyPlanned(planned))
        run(planned, folder / "study", on_event=progress.show)
    study = open_study(folder / "study")
    columns, rows = table_lines(study.table, config.volume)
    print_table(columns, rows)
    print(study.recommendation.text)
    say(str(study.report_path))
    finish(
        benchmark,
        list(range(config.seeds)),
        {
            "train_rows": config.train_sizes[0],
            "wall_s": round(time.perf_counter() - started, 1),
            "verdict": study.recommendation.verdict,
            "table": [
                {
                    "strategy": row.label,
                    "metric": row.metric,
                    "value": round(row.value, 4),
                    "low": round(row.low, 4),
                    "high": round(row.high, 4),
                    "others": {name: round(value, 4) for name, value in row.others.items()},
                    "fit_s": round(row.fit_s, 2),
                    "latency_ms": round(row.latency_ms, 3),
                    "memory_mb": round(max(row.fit_memory_bytes, row.predict_memory_bytes) / 1e6),
                    "usd_total": row.usd_total,
                }
                for row in study.table
            ],
        },
    )
