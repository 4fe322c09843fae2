"""Where the recipe reads and writes, the room it needs there, and how every step's command begins and ends."""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from taskfit.errors import DataError, ResourceError, TaskfitError
from taskfit.files import appearing, is_disk_full, write_text

__all__ = ["ROOT", "Places", "options", "read_lines", "run_step", "say", "write_json", "write_rows"]

ROOT = Path(__file__).resolve().parents[2]
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.xz")


@dataclass(frozen=True)
class Places:
    """The two folders of a run.

    Attributes:
        data: the data sets, one folder each.
        build: what the steps make; every step finds there what those before it left.
    """

    data: Path
    build: Path

    def split_path(self, name: str, split: str) -> Path | None:
        """Return the file of a split of a data set, whichever ending it has; None where there is none.

        Raises:
            DataError: the data folder, or the data set in it, is not there.
        """
        folder = self.data / name
        if not folder.is_dir():
            remedy = f"Put the data sets into {self.data}, or name their folder with --data."
            raise DataError(f"expected the data set {name!r} as the folder {folder}, which is not there", remedy)
        found = [folder / f"{split}{ending}" for ending in ENDINGS]
        return next((path for path in found if path.exists()), None)

    def rows(self, name: str, split: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a split of a data set, one at a time.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        path = self.split_path(name, split)
        if path is None:
            raise DataError(f"{self.data / name} has no split {split!r} (any of {', '.join(ENDINGS)})")
        yield from read_lines(path)

    def need(self, name: str, step: str) -> Path:
        """Return the path of what an earlier step made.

        Raises:
            DataError: it is not there; the message names the step.
        """
        path = self.build / name
        if not path.exists():
            raise DataError(f"{path} is missing", f"Run {step} first; README.md has the order of the steps.")
        return path

    def built(self, name: str, step: str) -> dict[str, Any]:
        """Return the JSON object that an earlier step left.

        Raises:
            DataError: it is not there.
        """
        return dict(json.loads(self.need(name, step).read_text(encoding="utf-8")))

    def check_room(self, what: str, *, disk_bytes: float, memory_bytes: float) -> None:
        """Say what a step needs of disk and memory, and refuse it where that is not there.

        Raises:
            ResourceError: less is free than needed; nothing was written.
        """
        self.build.mkdir(parents=True, exist_ok=True)
        free_disk, free_memory = shutil.disk_usage(self.build).free, _free_memory()
        say(
            f"{what} needs {_gigabytes(disk_bytes)} of disk ({_gigabytes(free_disk)} free) and "
            f"{_gigabytes(memory_bytes)} of memory ({_gigabytes(free_memory)} free)"
        )
        if free_disk < disk_bytes:
            raise ResourceError(
                f"{what} needs {_gigabytes(disk_bytes)} of disk in {self.build}, {_gigabytes(free_disk)} are free",
                "Make room there, or name another folder with --build.",
            )
        if free_memory < memory_bytes:
            raise ResourceError(
                f"{what} needs {_gigabytes(memory_bytes)} of memory, {_gigabytes(free_memory)} are free",
                "Close other programs; the step goes on where it was.",
            )


def options(description: str) -> argparse.ArgumentParser:
    """Return the parser of a step's command, with the options that all steps have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "embedded_model", help="folder of what is made")
    return parser


def run_step(parser: argparse.ArgumentParser, step: Callable[[argparse.Namespace, Places], None]) -> None:
    """Parse the command, run its step, and end with 2 and one line where the user must mend something."""
    chosen = parser.parse_args()
    try:
        step(chosen, Places(chosen.data.resolve(), chosen.build.resolve()))
    except TaskfitError as error:
        _end(error.message, error.hint)
    except OSError as error:
        if not is_disk_full(error):
            raise
        _end(f"the disk of {chosen.build} is full", "Make room and run the step again; it goes on where it was.")
    except KeyboardInterrupt:
        _end("stopped", "Run the same command again; it goes on where it was.")


def say(text: str) -> None:
    """Print a line of progress on the error stream."""
    print(text, file=sys.stderr, flush=True)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON Lines file, packed or not.

    Raises:
        DataError: a line is not a JSON object; it is named.
    """
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
            yield row


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSON Lines, whole or not at all."""
    with appearing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8")


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _end(message: str, hint: str | None) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    sys.exit(2)
