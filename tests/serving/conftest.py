"""A small saved predictor, rows for it, and a predictor that can be slow or fail."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from taskfit.models.work import Work
from taskfit.strategy.contract import Budget, Prediction
from taskfit.strategy.grammar import parse
from taskfit.tasks import Row, load_task
from tests.cli.conftest import TASK, topic_rows, write_rows


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A fitted ``linear`` predictor of two topics."""
    folder = tmp_path / "data"
    folder.mkdir()
    for start, name in ((0, "train"), (100, "validation"), (200, "test")):
        write_rows(folder / f"{name}.jsonl", topic_rows(24, start))
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    task = load_task(folder / "task.yaml")
    parse("linear").fit(None, task, seed=0, budget=Budget()).save(tmp_path / "saved")
    return tmp_path / "saved"


class Slow:
    """Answers with a function of the text, a little later; fails where the text says so; counts what it is asked."""

    strategy = "slow"
    fit_work = predict_work = Work()

    def __init__(self, definition: Any, seconds: float = 0.0, is_thread_safe: bool = False) -> None:
        self.definition = definition
        self.seconds = seconds
        self.is_thread_safe = is_thread_safe
        self.asked: list[str] = []

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row."""
        time.sleep(self.seconds)
        for row in rows:
            text = self.definition.input_text(row)
            self.asked.append(text)
            if "FAIL" in text:
                raise RuntimeError(f"cannot read {text}")
            share = (sum(map(ord, text)) % 997) / 997
            answer = "food" if share > 0.5 else "music"
            yield Prediction(row.id, answer, {answer: share, "other": 1 - share}, is_parsed="NONSENSE" not in text)

    def save(self, folder: Path) -> None:
        """Not needed."""
        raise NotImplementedError


def table(out: Path) -> list[dict[str, Any]]:
    """All rows that were written, in order of the shards."""
    return [row for path in sorted(out.glob("part-*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
