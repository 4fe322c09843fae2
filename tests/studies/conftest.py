"""One finished study of fakes, shared by the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskfit.studies.compare_study import Study, run_study
from taskfit.studies.process import start_server
from taskfit.studies.spec import StudyConfig
from tests.studies.fakes import FAKES, HOSTILE, write_task

STRATEGIES = ("right(0.9)", "right(0.91)", "model-right(0.93)", "right(0.5)", "bug")


@pytest.fixture(scope="session", autouse=True)
def _server() -> None:
    """Start the fork server with everything that any test here needs; the first start in a process decides."""
    start_server(has_models=True)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of 120 test rows with two near equals, one clearly worse and one failing strategy."""
    folder: Path = tmp_path_factory.mktemp("study")
    task_path = write_task(folder / "task.json", test=120, metrics=("macro_f1", "accuracy"))
    config = StudyConfig(
        strategies=STRATEGIES, models=("tiny", "encoder-one"), seeds=2, max_seeds=2, runs_all_seeds=True, volume=5000
    )
    return run_study(task_path, config, folder / "out", rooms=FAKES)


@pytest.fixture(scope="session")
def sized_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with two training sizes and rows whose texts are markup and script."""
    folder: Path = tmp_path_factory.mktemp("sized")
    task_path = write_task(folder / "task.json", test=90, metrics=("accuracy", "macro_f1"), text=HOSTILE)
    strategies = ("right(0.9)", "right(0.6)", "model-right(0.8)", "right(0.4)")
    config = StudyConfig(strategies=strategies, models=("tiny",), seeds=2, volume=5000, train_sizes=(8, None))
    return run_study(task_path, config, folder / "out", rooms=FAKES)
