"""Runs the command line in this process, as a user would, and writes small task folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from taskfit.cli.main import main
from taskfit.testing import tiny_decoder
from tests.cli.topic_engine import TopicEngine

_TOPICS = {"food": ("soup", "bread", "cheese", "apple"), "music": ("drum", "violin", "song", "choir")}


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


Taskfit = Callable[..., Ran]


@pytest.fixture
def taskfit(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Taskfit:
    """Run ``taskfit`` with the given words, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["taskfit", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 0
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def topic_rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Rows of two topics that a keyword gives away; all texts differ."""
    labels = list(_TOPICS)
    rows = []
    for number in range(start, start + count):
        label = labels[number % 2]
        word = _TOPICS[label][number // 2 % 4]
        rows.append({"id": f"r{number}", "text": f"we talked about the {word}, time {number}", "topic": label})
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


TASK = """
name: topics
kind: classification
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
input: "{{ text }}"
target: "{{ topic }}"
labels: [food, music]
metrics: [accuracy]
"""


@pytest.fixture
def topics(tmp_path: Path) -> Path:
    """A small task on disk: 24 training, 8 validation and 24 test rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder / "train.jsonl", topic_rows(24))
    write_rows(folder / "validation.jsonl", topic_rows(8, start=100))
    write_rows(folder / "test.jsonl", topic_rows(24, start=200))
    path = folder / "task.yaml"
    path.write_text(TASK, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder, for its tokenizer; what it says comes from the engine below."""
    return tiny_decoder(tmp_path_factory.mktemp("models") / "decoder")


@pytest.fixture
def topic_engine(monkeypatch: pytest.MonkeyPatch) -> TopicEngine:
    """Every program asks this engine."""
    made = TopicEngine()
    monkeypatch.setattr("taskfit.strategy.predictor.engine_for", made.engine)
    return made
