"""Where the recipe reads and writes, and small file helpers shared by its steps."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taskfit.files import appearing, write_text

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
BUILD = ROOT / "build" / "embedded_model"
MODEL = ROOT / "taskfit" / "models" / "embedded"

OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".jsonl": open}


def need(path: Path, step: str) -> Path:
    """``path``, or a clear end of the program naming the step or folder that is missing."""
    if not path.exists():
        sys.exit(f"{path} is missing; {step}")
    return path


def read_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    """Rows of one split of one data set: plain, gzip or xz JSON Lines, whichever is there."""
    folder = need(DATA / name, "the data sets belong into ../shared/data beside this checkout")
    for ending in (".jsonl", ".jsonl.gz", ".jsonl.xz"):
        path = folder / f"{split}{ending}"
        if path.exists():
            with OPENERS[path.suffix](path, "rt", encoding="utf-8") as file:
                yield from map(json.loads, file)
            return
    sys.exit(f"{folder} has no split {split}")


def write_json(path: Path, value: object) -> None:
    """Write ``value`` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    """Write rows atomically as JSON Lines."""
    with appearing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_built_rows(name: str) -> list[dict[str, Any]]:
    """Rows that an earlier step wrote under ``build/embedded_model``."""
    path = need(BUILD / name, "run the earlier steps first (see README.md)")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
