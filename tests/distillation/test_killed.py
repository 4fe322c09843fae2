"""Killed at random moments: nothing is paid twice, nothing is lost, and the cap in money holds all the while."""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskfit.testing.service import FakeService, Fault
from tests.distillation.kill_worker import work

TASK = """
name: moods
kind: classification
unlabelled: rows.jsonl
input: "{{ text }}"
target: "{{ mood }}"
labels: [glad, sad]
"""
ROWS = 48
KILLS = 12


@pytest.fixture(scope="module")
def forked() -> Iterator[multiprocessing.context.BaseContext]:
    """Processes forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.distillation.kill_worker"])
    yield context


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Rows without any answer."""
    return write_task(tmp_path)


def write_task(folder: Path) -> Path:
    """Write a task file and its rows."""
    texts = [f"a {'bright' if n % 3 else 'dull'} day, number {n}" for n in range(ROWS)]
    lines = [json.dumps({"id": f"r{n}", "text": text}) for n, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = folder / "task.yaml"
    path.write_text(TASK, encoding="utf-8")
    return path


def _answer(text: str) -> str:
    return "glad" if "bright" in text else "sad"


def _ledger(out: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as connection:
        return connection.execute(query).fetchall()


def kill_at_random(
    task: Path, out: Path, kills: int, context: multiprocessing.context.BaseContext, seed: int
) -> Counter[str]:
    """Annotate while being killed; return how often each prompt was answered. Concurrency is 2."""
    moments = random.Random(seed)
    faults = [Fault(delay_s=0.01)] * 100_000
    with FakeService(_answer, faults=faults) as service:
        name = service.name(concurrency=2, usd_in=1000, usd_out=1000, max_usd=100)
        for _ in range(kills):
            process = context.Process(target=work, args=(task, out, name, ROWS))  # type: ignore[attr-defined]
            process.start()
            asked = len(service.bodies)
            step = moments.randrange(2 * ROWS // kills + 1)
            deadline = time.monotonic() + 20
            while len(service.bodies) < asked + step and process.is_alive() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(moments.random() * 0.02)
            process.kill()
            process.join()
        last = context.Process(target=work, args=(task, out, name, ROWS))  # type: ignore[attr-defined]
        last.start()
        last.join()
        assert last.exitcode == 0
        real_usd = sum(_usd(service, body, number) for number, body in enumerate(service.bodies))
        (spent,) = _ledger(out, "SELECT usd FROM purse")[0]
        assert float(str(spent)) >= real_usd - 1e-9
        return Counter(body["messages"][-1]["content"] for body in service.bodies)


def _usd(service: FakeService, body: dict[str, object], number: int) -> float:
    usage = service.reply("/chat/completions", body, number)["usage"]
    return float((usage["prompt_tokens"] + usage["completion_tokens"]) * 1000 / 1e6)


def check(out: Path, asked: Counter[str], kills: int) -> None:
    """Every row has its one label, and only calls under way at a kill (two at most) were made again."""
    labels = _ledger(out, "SELECT id, answer FROM rows JOIN annotations ON row = position")
    assert len(labels) == ROWS
    assert dict(labels) == {f"r{n}": "glad" if n % 3 else "sad" for n in range(ROWS)}  # type: ignore[comparison-overlap]
    assert len(asked) == ROWS
    assert asked.total() - ROWS <= 2 * kills
    assert {row for (row,) in _ledger(out, "SELECT row FROM attempts WHERE outcome = 'accepted'")} == set(
        range(1, ROWS + 1)
    )
    assert _ledger(out, "SELECT count(*) FROM attempts WHERE outcome IS NULL") == [(0,)]
    data = [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["id"]: row["mood"] for row in data} == dict(labels)


def test_a_run_killed_at_random_moments_pays_no_answer_twice_and_loses_none(
    task: Path, tmp_path: Path, forked: multiprocessing.context.BaseContext
) -> None:
    """An answer that arrived is never asked for again; of 12 kills, each may cost the calls under way."""
    asked = kill_at_random(task, tmp_path / "out", KILLS, forked, seed=0)
    check(tmp_path / "out", asked, KILLS)


def test_several_processes_share_one_ledger(
    task: Path, tmp_path: Path, forked: multiprocessing.context.BaseContext
) -> None:
    """Three at once: each row is asked about once, by one of them."""
    with FakeService(_answer, faults=[Fault(delay_s=0.02)] * 1000) as service:
        name = service.name(concurrency=1, usd_in=1000, usd_out=1000)
        processes = [
            forked.Process(target=work, args=(task, tmp_path / "out", name, ROWS))  # type: ignore[attr-defined]
            for _ in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        check(tmp_path / "out", Counter(body["messages"][-1]["content"] for body in service.bodies), 0)
        assert len({worker for (worker,) in _ledger(tmp_path / "out", "SELECT worker FROM attempts")}) > 1
