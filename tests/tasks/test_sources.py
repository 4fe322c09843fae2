"""Data sets of the hub, with a stand-in for the package that loads them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from taskfit.errors import DataError, MissingExtraError
from taskfit.tasks import load_task, rows_from
from taskfit.tasks.sources import HubSource, hub_split_names, read_source

from .conftest import WriteTask, sentiment_rows

TASK = "name: t\nkind: classification\ndata: {}\ninput: text\ntarget: label\n"


class FakeDatasets(ModuleType):
    """Knows one data set with the splits train and dev."""

    def __init__(self) -> None:
        super().__init__("datasets")
        self.calls: list[tuple[object, ...]] = []

    def get_dataset_split_names(self, name: str, config: str | None, *, revision: str | None) -> list[str]:
        if name != "owner/name":
            raise FileNotFoundError(f"no data set {name}")
        return ["train", "dev", "extra"]

    def load_dataset(
        self, name: str, config: str | None, *, split: str, revision: str | None
    ) -> list[dict[str, object]]:
        self.get_dataset_split_names(name, config, revision=revision)
        self.calls.append((name, config, split, revision))
        return sentiment_rows(30) if split == "train" else sentiment_rows(8, start=30)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> FakeDatasets:
    """Stand in for the package datasets."""
    fake = FakeDatasets()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def test_a_data_set_brings_its_own_splits(write_task: WriteTask, datasets: FakeDatasets) -> None:
    """Its dev is our validation; the missing test is cut from train."""
    task = load_task(write_task(TASK.format("{hub: owner/name, config: c, revision: r}")))
    assert datasets.calls == [("owner/name", "c", "dev", "r"), ("owner/name", "c", "train", "r")]
    assert [len(task.train), len(task.validation), len(task.test)] == [24, 8, 6]
    assert set(task.report.files) == {"owner/name/train", "owner/name/dev"}


def test_a_named_split_is_cut_like_a_file(write_task: WriteTask, datasets: FakeDatasets) -> None:
    """One source for all rows."""
    task = load_task(write_task(TASK.format("{hub: owner/name, split: train}")))
    assert len(task.train) + len(task.validation) + len(task.test) == 30


def test_a_hub_source_can_be_predicted_over(datasets: FakeDatasets) -> None:
    """The same readers."""
    assert len(list(rows_from(HubSource("owner/name", split="dev")))) == 8


def test_an_unknown_data_set_is_a_data_error(datasets: FakeDatasets) -> None:
    """Whatever the package raises."""
    with pytest.raises(DataError, match="data set owner/nam: cannot be loaded: no data set owner/nam"):
        list(read_source(HubSource("owner/nam")))
    with pytest.raises(DataError, match="no data set owner/nam"):
        hub_split_names(HubSource("owner/nam"))


def test_without_the_package_the_message_holds_the_command(
    write_task: WriteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optional dependency is named with its extra."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    for data in ("{hub: owner/name}", "{hub: owner/name, split: train}"):
        with pytest.raises(MissingExtraError, match=r"pip install 'taskfit\[hub\]'"):
            load_task(write_task(TASK.format(data)))


def test_importing_tasks_loads_nothing_heavy(tmp_path: Path) -> None:
    """The command line must answer at once."""
    import subprocess

    heavy = "('torch', 'transformers', 'jinja2', 'yaml', 'pyarrow', 'pydantic', 'numpy', 'datasets')"
    code = f"import sys, taskfit.tasks; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
