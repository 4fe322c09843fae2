"""Fakes that trials' processes import: a task of one JSON file, and strategies that behave well or badly."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from taskfit.errors import ConfigError, ModelError, TrainingError
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget, Prediction
from taskfit.studies.rooms import Rooms
from taskfit.studies.spec import ModelFacts
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import DataReport, Row, Task

WORK = Work()
LABELS = ("billing", "login", "other")


def definition(metrics=("accuracy",)) -> TaskDefinition:
    wording = Wording("default", "{{ text }}", "{{ label }}", {})
    return TaskDefinition("fake", "classification", (wording,), "{{ text }}", ("{{ label }}",), LABELS, tuple(metrics))


HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>${alert(3)} | **x** &amp;"
"""What a row, a label or a name may hold that must stay a text."""


def write_task(path: Path, train: int = 30, test: int = 24, metrics=("accuracy",), text: str = "") -> Path:
    """Write a task file of our own kind: every third row has the same label, the text says which."""
    splits = {
        split: [{"text": f"{text}{LABELS[i % 3]} {split} {i}", "label": LABELS[i % 3]} for i in range(rows)]
        for split, rows in (("train", train), ("validation", 6), ("test", test))
    }
    path.write_text(json.dumps({"metrics": list(metrics), "splits": splits}), encoding="utf-8")
    return path


def load_task(path: Path) -> Task:
    content = path.read_text(encoding="utf-8")
    values = json.loads(content)
    splits = {
        split: tuple(Row(f"{split}-{i}", fields) for i, fields in enumerate(rows))
        for split, rows in values["splits"].items()
    }
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    return Task(definition(values["metrics"]), splits, fingerprint, DataReport(files={path.name: 60}), path)


def take_train(task: Task, size: int | None, seed: int) -> Task:
    splits = {**task.splits, "train": task.train[: len(task.train) if size is None else size]}
    return Task(task.definition, splits, task.fingerprint, task.report, task.path)


@dataclass
class FakePredictor:
    """Right on a share of rows that depends on the row and the seed alone."""

    strategy: str
    definition: TaskDefinition
    share: float
    seed: int
    fit_work: Work = WORK
    predict_work: Work = WORK

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        for row in rows:
            gold = str(row.fields["label"])
            drawn = hashlib.sha256(f"{self.strategy} {self.seed} {row.id}".encode()).digest()[0] / 256
            answer = gold if drawn < self.share else LABELS[(LABELS.index(gold) + 1) % 3]
            rest = {label: 0.1 for label in LABELS if label != answer}
            yield Prediction(row.id, answer, {answer: 0.8, **rest}, tokens_in=7, tokens_out=1)

    def save(self, folder: Path) -> None:
        if self.strategy == "full-disk" and (folder.parents[2] / "is-full").exists():
            raise OSError(errno.ENOSPC, "no space left")
        folder.mkdir()
        (folder / "fake.json").write_text(json.dumps({"share": self.share}), encoding="utf-8")


@dataclass(frozen=True)
class FakeStrategy:
    """``right(0.8)`` and its like; what it does besides is in ``behaviour``."""

    name: str
    behaviour: str
    amount: float
    architectures: frozenset = frozenset()
    kinds: frozenset = frozenset({"classification"})

    def fit(self, model, task: Task, *, seed: int, budget: Budget) -> FakePredictor:
        budget.say(f"fitting with {len(task.train)} rows")
        BEHAVIOURS[self.behaviour](self.amount, budget)
        return FakePredictor(self.name, task.definition, self.amount if self.behaviour == "right" else 0.5, seed)


def _sleep_by_steps(seconds: float, budget: Budget) -> None:
    """Sleep, and go on where the last try was killed."""
    done = budget.folder / "steps"
    steps = int(done.read_text()) if done.exists() else 0
    budget.say(f"process {os.getpid()}")
    budget.say(f"starting at step {steps}")
    while steps < 10:
        time.sleep(seconds / 10)
        steps += 1
        done.write_text(str(steps))


def _raise_bug(amount: float, budget: Budget) -> None:
    raise ZeroDivisionError("a bug")


def _raise_ours(amount: float, budget: Budget) -> None:
    raise TrainingError("the loss is not finite at step 3", "lower learning_rate")


def _crash(amount: float, budget: Budget) -> None:
    ctypes.string_at(0)


def _kill(amount: float, budget: Budget) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_once(amount: float, budget: Budget) -> None:
    mark = budget.folder / "killed"
    if not mark.exists():
        mark.write_text("yes")
        os.kill(os.getpid(), signal.SIGKILL)


def _exit(amount: float, budget: Budget) -> None:
    os._exit(3)


BEHAVIOURS = {
    "right": lambda amount, budget: None,
    "sleep": _sleep_by_steps,
    "bug": _raise_bug,
    "ours": _raise_ours,
    "crash": _crash,
    "kill": _kill,
    "kill-once": _kill_once,
    "exit": _exit,
    "full-disk": lambda amount, budget: None,
}


def parse(name: str) -> FakeStrategy:
    head, _, rest = name.partition("(")
    if head.removeprefix("model-") not in BEHAVIOURS:
        raise ConfigError(f"unknown strategy {name!r}")
    amount = float(rest.rstrip(")")) if rest else 0.5
    if head.startswith("model-"):
        return FakeStrategy(name, head.removeprefix("model-"), amount, frozenset({"decoder"}))
    return FakeStrategy(name, head, amount)


@dataclass
class FakeModel:
    name: str
    fingerprint: str
    architecture: str = "decoder"
    module: object = None


def load_model(name: str) -> FakeModel:
    if name == "broken":
        raise ModelError("model folder broken has no tokenizer", "save the tokenizer into the folder")
    return FakeModel(name, f"fingerprint of {name}", "encoder" if name.startswith("encoder") else "decoder")


def describe_model(name: str) -> ModelFacts:
    model = load_model(name)
    return ModelFacts(name, model.architecture, model.fingerprint, 512, 1000, {})


FAKES = Rooms(load_task, take_train, parse, load_model, describe_model)


def say_hello(name, say):
    """Greet, in another process."""
    say(f"hello {name}")
    print("printed")  # noqa: T201
    return len(name)


def raise_it(how, say):
    """Fail in one of several ways, in another process."""
    if how == "ours":
        raise TrainingError("too hot", "cool it")
    if how == "memory":
        raise MemoryError
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("a bug")


def start_sleeper(seconds, say):
    """Start a process of its own, and wait for it."""
    sleeper = subprocess.Popen(["sleep", seconds])
    say(str(sleeper.pid))
    sleeper.wait()
