"""Predict all rows of some files into a folder of shards: resumable, in constant memory, in the rows' order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError
from taskfit.serving.inputs import InputFile, find_inputs, read_rows
from taskfit.serving.output import Counts, Plan, claimed, finish, journal_of, shard_counts, write_shard
from taskfit.serving.questions import Unread, cut
from taskfit.serving.shard import predict_shard

if TYPE_CHECKING:
    from taskfit.strategy.contract import Predictor
    from taskfit.tasks.task import Row

__all__ = ["SHARD_ROWS", "Progress", "Shard", "predict_rows"]

SHARD_ROWS = 16_384
"""Rows of a shard: what is in memory at once, is sorted by length together, and is predicted once where it repeats."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: rows, those of an earlier run with them.
        total: about how many there are; None: nobody knows, as the files are compressed.
        rows_per_s: of this run; 0 before the first.
        left_s: seconds left, None where nothing says.
    """

    done: int
    total: int | None
    rows_per_s: float
    left_s: float | None


@dataclass(frozen=True)
class Shard:
    """A shard's number, from 0, and its rows."""

    number: int
    rows: list[Row | Unread]


def predict_rows(
    predictor: str | Path,
    rows: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    shard_rows: int = SHARD_ROWS,
    cluster: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Counts:
    """Predict the rows of files into ``out``: Parquet shards of id, answer, probability, cut tokens and error.

    Killed at any moment and called again, it goes on: each row is written once, and the files are those of a run in one
    go, byte for byte, on this machine and with these versions. What rows of one shard ask twice is predicted once.

    Args:
        predictor: a predictor folder, or one of an exported predictor.
        rows: a path or glob; see :func:`taskfit.tasks.reading.read_file` for the formats.
        out: a new folder, or one of the same run.
        model: the base model, where the folder's own word for it shall not do.
        shard_rows: most rows of a shard.
        cluster: ``local``, or the address of a Ray cluster whose machines see the predictor's folder; None: predict in
            this process.
        on_progress: told after every chunk.

    Returns:
        How many rows there are, how many of them failed (their ``error`` says why), and how many lost tokens.

    Raises:
        DataError: see :func:`taskfit.serving.inputs.find_inputs` and :func:`taskfit.serving.output.claimed`.
        PredictorError: the folder cannot be loaded, or all of the first rows fail.
        MissingExtraError: ``cluster`` without Ray.
    """
    from taskfit.strategy.manifest import read_manifest

    if shard_rows < 1:
        raise ConfigError(f"a shard must have at least 1 row (got {shard_rows})")
    folder, out = Path(predictor), Path(out)
    manifest = read_manifest(folder)
    inputs = find_inputs(rows, manifest.definition)
    plan = Plan.of(folder, manifest.strategy, model, inputs, shard_rows)
    with claimed(out, plan):
        clock = _Clock(inputs, on_progress)
        counts, number = Counts(), 0
        shards = _Shards(out, cut(read_rows(inputs), shard_rows), clock)
        if cluster is None:
            _predict_here(folder, model, out, shards, clock)
        else:
            from taskfit.serving.cluster import predict_on_cluster

            predict_on_cluster(cluster, folder, model, out, shards, clock.advance)
        for number in range(shards.count):
            counts += shard_counts(out, number) or Counts()
        finish(out, plan, shards.count, counts)
    return counts


def _predict_here(folder: Path, model: str | None, out: Path, shards: _Shards, clock: _Clock) -> None:
    """Predict the shards that are missing, one after the other; the next is read meanwhile."""
    predictor: Predictor | None = None
    with ThreadPoolExecutor(1, "reader") as reader:
        coming = reader.submit(next, shards, None)
        while (shard := coming.result()) is not None:
            coming = reader.submit(next, shards, None)
            predictor = predictor or load(folder, model)  # a finished run needs none
            answers = predict_shard(predictor, shard.rows, journal_of(out, shard.number), clock.advance)
            write_shard(out, shard.number, shard.rows, answers)


def load(folder: Path, model: str | None) -> Predictor:
    """Load the predictor, on the base model that the user named or on its own."""
    from taskfit.models import load as load_model
    from taskfit.strategy.predictor import load_predictor

    return load_predictor(folder, model=None if model is None else load_model(model))


class _Shards:
    """Yields the shards that are not yet written; counts all of them."""

    def __init__(self, out: Path, shards: Iterator[Sequence[Row | Unread]], clock: _Clock) -> None:
        self._out, self._shards, self._clock = out, shards, clock
        self.count = 0

    def __iter__(self) -> _Shards:
        return self

    def __next__(self) -> Shard:
        for rows in self._shards:
            self.count += 1
            if shard_counts(self._out, self.count - 1) is None:
                return Shard(self.count - 1, list(rows))
            self._clock.found(len(rows))
        raise StopIteration


class _Clock:
    """Turns rows done into progress."""

    def __init__(self, inputs: Sequence[InputFile], tell: Callable[[Progress], None]) -> None:
        known = [file.rows for file in inputs if file.rows is not None]
        self._total = sum(known) if len(known) == len(inputs) else None
        self._tell = tell
        self._earlier = self._now = 0
        self._started = time.monotonic()

    def found(self, rows: int) -> None:
        """Count rows of an earlier run."""
        self._earlier += rows

    def advance(self, rows: int) -> None:
        """Count rows of this run, and tell."""
        self._now += rows
        speed = self._now / max(1e-9, time.monotonic() - self._started)
        done = self._earlier + self._now
        left = None if self._total is None or not speed else max(0, self._total - done) / speed
        self._tell(Progress(done, self._total, speed, left))
