"""What every benchmark shares: the machine it ran on, the data folder beside the checkout, and the last line it prints."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
PACKAGES = ("taskfit", "torch", "transformers", "peft", "tokenizers", "numpy", "scikit-learn")


def arguments(description: str) -> argparse.Namespace:
    """Parse the one option that all benchmarks have: ``--quick`` ends in under a minute."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    return parser.parse_args()


def shared(name: str) -> Path:
    """Return the folder of a shared data set, or stop with a message (exit code 0: nothing failed) where there is none."""
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
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {"processor": processor, "cores": os.cpu_count() or 1, "memory_gib": memory_gib}


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on, and the commit."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {**found, "commit": commit or "unknown"}


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
                "versions": versions(),
            }
        )
    )
