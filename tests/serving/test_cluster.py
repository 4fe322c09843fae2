"""The same files from several workers, one of which is killed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskfit.errors import MissingExtraError, ModelError, ResourceError
from taskfit.serving.bulk import predict_rows
from tests.cli.conftest import topic_rows, write_rows
from tests.serving.conftest import contents


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Two workers on this machine: starting them takes a few seconds, so once."""
    found = pytest.importorskip("ray", reason="Ray is not installed: pip install 'taskfit[cluster]'")
    found.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield found
    found.shutdown()


def workers() -> list[psutil.Process]:
    """Processes of Ray that predict."""
    return [process for process in psutil.Process().children(recursive=True) if "ray::_answer" in process.name()]


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_worker_changes_no_byte(ray: Any, saved: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(1200))
    predict_rows(saved, rows, tmp_path / "here", shard_rows=20)
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for process in workers()[:1]:
                process.kill()
                killed.append(process.pid)
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    counts = predict_rows(saved, rows, tmp_path / "there", shard_rows=20, cluster="local")
    killer.join(5)
    assert killed
    assert counts.rows == 1200
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.filterwarnings("ignore")
def test_an_error_of_a_worker_is_told_as_it_is(ray: Any, saved: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(40))
    with pytest.raises(ModelError, match="no-such-model"):
        predict_rows(saved, rows, tmp_path / "out", model="no-such-model", cluster="local")


def test_without_ray_the_command_to_install_it_is_told(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(3))
    with pytest.raises(MissingExtraError, match=r"pip install 'taskfit\[cluster\]'"):
        predict_rows(saved, rows, tmp_path / "out", cluster="local")


class _LostError(Exception):
    """As Ray's."""


class _FakeRay:
    """A cluster that cannot be reached, or loses everything."""

    class exceptions:  # noqa: N801
        """As Ray's."""

        RayError = _LostError
        RayTaskError = type("RayTaskError", (_LostError,), {})

    def __init__(self, is_reached: bool) -> None:
        self.is_reached = is_reached

    def is_initialized(self) -> bool:
        """No."""
        return False

    def init(self, **settings: Any) -> None:
        """Connect."""
        if not self.is_reached:
            raise ConnectionError("nobody answers")

    def shutdown(self) -> None:
        """Disconnect."""

    def cluster_resources(self) -> dict[str, float]:
        """None known."""
        return {}

    def remote(self, **options: Any) -> Any:
        """Make a task of a function."""
        return lambda function: type("Task", (), {"remote": lambda self, *arguments: object()})()

    def wait(self, running: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        """Say that the first is done."""
        return running[:1], running[1:]

    def get(self, done: Any) -> Any:
        """Lose it."""
        raise _LostError("the node died")


@pytest.mark.parametrize(
    ("is_reached", "said"), [(False, "cannot be reached: nobody"), (True, "lost a shard 20 times")]
)
def test_a_cluster_that_is_away_or_dies_is_told(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reached: bool, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", _FakeRay(is_reached))
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(3))
    with pytest.raises(ResourceError, match=said):
        predict_rows(saved, rows, tmp_path / "out", cluster="host:1")
