"""A function in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskfit.errors import ResourceError, TaskfitError, TrainingError
from taskfit.studies.process import Raised, call, start, start_server, wait_any
from tests.studies import fakes


def run_here(function, argument, tmp_path, lines=None):
    return call(function, argument, tmp_path / "log.txt", (lambda _: None) if lines is None else lines.append)


def test_value_lines_and_prints_come_back(tmp_path):
    """The value is returned, lines reach the caller, what is printed is in the log."""
    lines: list[str] = []
    assert run_here(fakes.say_hello, "world", tmp_path, lines) == 5
    assert lines == ["hello world"] and (tmp_path / "log.txt").read_text() == "printed\n"


def test_errors_come_back_as_they_were(tmp_path):
    """A user's error keeps its class and hint, a bug keeps its name, memory and death become ResourceErrors."""
    with pytest.raises(TrainingError, match="too hot") as caught:
        run_here(fakes.raise_it, "ours", tmp_path)
    assert caught.value.hint == "cool it"
    with pytest.raises(TaskfitError, match="ValueError: a bug"):
        run_here(fakes.raise_it, "bug", tmp_path)
    with pytest.raises(ResourceError, match="memory ran out"):
        run_here(fakes.raise_it, "memory", tmp_path)
    with pytest.raises(ResourceError, match="SIGKILL"):
        run_here(fakes.raise_it, "die", tmp_path)


def test_signals_without_a_name_are_numbered():
    """Real-time signals have no name in Python's table."""
    assert Raised("X", "m", None, is_bug=True).error().message == "X: m"


def test_kill_ends_what_the_child_has_started(tmp_path):
    """No grandchild is left."""
    child = start(fakes.start_sleeper, "60", tmp_path / "log.txt")
    lines: list[str] = []
    while not lines:
        wait_any([child], 5)
        lines += child.lines()
    child.kill()
    assert child.signal_name == "SIGKILL" and child.has_ended
    child.close()
    deadline = time.monotonic() + 5
    while is_running(int(lines[0])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(int(lines[0]))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_server_leaves_the_environment_as_it_was(monkeypatch):
    """The thread setting is for the server alone; a user's own choice stays."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    start_server(has_models=False)
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    start_server(has_models=False)
    assert os.environ["GOMP_SPINCOUNT"] == "7"


SCRIPT = """
from pathlib import Path
import sys
print("main runs")
from tests.studies.fakes import say_hello
from taskfit.studies.process import call
print(call(say_hello, "world", Path(sys.argv[1]), lambda line: None))
"""


def test_script_without_a_guard_is_not_run_again(tmp_path):
    """A user's script needs no ``if __name__ == "__main__"``: children never load it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    said = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "log.txt")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "main runs\n5\n", "")
