"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from taskfit import files
from taskfit.errors import ResourceError, StudyError
from taskfit.files import remove_unfinished
from taskfit.studies.folder import read_json, staged, write_json, write_text
from taskfit.studies.predictions import StoredPrediction, parquet_bytes, read_predictions
from taskfit.studies.result import read_result, trial_folder
from taskfit.studies.run import run
from tests.studies.fakes import FAKES, load_task, write_task
from tests.studies.test_run import make_plan


def fail_with(number):
    def fail(*_):
        raise OSError(number, "injected")

    return fail


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    """A file that cannot be written whole stays as it was, and the error names folder and bytes."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(files.os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(ResourceError, match=f"disk is full: {tmp_path} needs 14 bytes"):
        write_text(path, "something new\n")
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_full_disk_leaves_no_half_folder(tmp_path, monkeypatch):
    """Nothing of a folder is left when its last byte does not fit; an older folder stays."""
    target = tmp_path / "trial"
    with staged(target) as staging:
        (staging / "old").write_text("old")
    monkeypatch.setattr(files.os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(ResourceError, match=r"trial needs 103 bytes or more"), staged(target, 100) as staging:
        (staging / "new").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["trial"] and (target / "old").exists()


def test_other_errors_pass_and_leave_nothing(tmp_path, monkeypatch):
    """Only a full disk becomes a ResourceError."""
    with pytest.raises(KeyError), staged(tmp_path / "a"):
        raise KeyError("mine")
    monkeypatch.setattr(files.os, "fsync", fail_with(errno.EIO))
    with pytest.raises(OSError, match="injected"), staged(tmp_path / "a") as staging:
        (staging / "x").write_text("x")
    with pytest.raises(OSError, match="injected"):
        write_text(tmp_path / "b", "x")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    """Half-written files and folders go, whole ones stay."""
    (tmp_path / ".unfinished-a-1").mkdir()
    (tmp_path / ".unfinished-b-2").write_text("x")
    (tmp_path / "whole").mkdir()
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]


LIMITED = """
import resource, sys
from pathlib import Path
from taskfit.errors import ResourceError
from taskfit.studies.folder import staged
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with staged(Path(sys.argv[1]) / "trial") as folder:
        (folder / "big").write_bytes(b"x" * 5000)
except ResourceError as error:
    print(error.message)
"""


def test_real_file_size_limit_leaves_nothing(tmp_path):
    """The same with a limit that the system itself enforces."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000
    said = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"the disk is full: {tmp_path}/trial needs" in said.stdout
    assert list(tmp_path.iterdir()) == []


def test_disk_full_while_a_trial_is_written_costs_that_trial_and_it_can_run_again(tmp_path, monkeypatch):
    """The predictor does not fit: nothing is half-written, the trial says so, and runs well once there is space."""
    plan = make_plan(write_task(tmp_path / "task.json"), ["full-disk", "right(0.9)"])
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "is-full").touch()
    first = run(plan, tmp_path / "s", rooms=FAKES)
    assert [(r.status, r.reason) for r in first] == [("failed", "ResourceError"), ("done", "")]
    assert str(trial_folder(tmp_path / "s", plan.trials[0].id)) in first[0].message and "bytes" in first[0].message
    assert not (trial_folder(tmp_path / "s", plan.trials[0].id) / "predictor").exists()
    (tmp_path / "s" / "is-full").unlink()
    assert [r.status for r in run(plan, tmp_path / "s", rooms=FAKES)] == ["done", "done"]
    assert read_result(tmp_path / "s", plan.trials[0]).is_done
    assert load_task(plan.task_path).fingerprint == plan.task_fingerprint


@pytest.mark.parametrize("text", [None, "{", "[1]", "\xff", "1" * 5000, "[" * 200_000])
def test_broken_json_is_named(tmp_path, text):
    """Missing, cut, of another shape, in another encoding, too long a number or too deep: one error with the path."""
    path = tmp_path / "x.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StudyError, match=r"x\.json"):
        read_json(path)


def test_json_refuses_what_json_cannot_say(tmp_path):
    """NaN would make a file that others cannot read."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})


def test_predictions_survive_their_file(tmp_path):
    """Every column comes back, missing probabilities and several right answers too."""
    rows = [
        StoredPrediction("a", ("x", "y"), "x", 0.5, True, 3, 1, 0, {"x": 0.5, "ü|": 0.5}),
        StoredPrediction("b", ("",), "", None, False, 0, 0, 9, None),
    ]
    path = tmp_path / "p.parquet"
    path.write_bytes(parquet_bytes(rows))
    assert read_predictions(path) == rows
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StudyError, match="cannot be read"):
        read_predictions(path)


def test_parquet_with_other_columns_is_refused(tmp_path):
    """A file of another kind is no list of predictions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path: Path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StudyError, match="must have the columns"):
        read_predictions(path)
