"""Checkpoints on disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from taskfit.errors import StudyError
from taskfit.tuning.checkpoint import CHECKPOINT_NAME, TrainState, check_same_run, load_state, save_state


@pytest.fixture
def state() -> TrainState:
    """A state with something in every field."""
    weight = torch.arange(6.0).reshape(2, 3)
    return TrainState(
        step=3,
        run={"steps": 9, "betas": [0.9, 0.99]},
        weights={"layer.weight": weight},
        optimizer={"layer.weight": {"step": torch.tensor(3.0), "exp_avg": weight / 7}},
        best_weights={"layer.weight": weight + 1},
        best_step=2,
        best_validation=1 / 3,
        misses=1,
        stopped_early=False,
        curve=((0.1, None), (0.2, 1 / 3), (0.3, 0.5)),
    )


def same(left, right) -> bool:
    """Equal keys with bit-identical tensors, however deep."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.dtype == right.dtype
    if left and isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


def test_state_read_is_the_state_written(tmp_path, state):
    """Every field survives, floats and tensors to the bit."""
    save_state(tmp_path / "new" / "folder", state)
    found = load_state(tmp_path / "new" / "folder")
    assert all(same(getattr(state, name), getattr(found, name)) for name in vars(state))


def test_folder_without_checkpoint_gives_none(tmp_path):
    """Nothing to resume is no error."""
    assert load_state(tmp_path) is None


def test_saving_again_replaces_and_leaves_no_other_file(tmp_path, state):
    """One file only, the newest."""
    save_state(tmp_path, state)
    save_state(tmp_path, replace(state, step=4))
    found = load_state(tmp_path)
    assert found is not None and found.step == 4
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_failed_write_keeps_the_old_checkpoint(tmp_path, state, monkeypatch):
    """The old file is only touched by the final rename."""
    save_state(tmp_path, state)

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("taskfit.tuning.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_state(tmp_path, replace(state, step=4))
    found = load_state(tmp_path)
    assert found is not None and found.step == 3


@pytest.mark.parametrize("keep", [0, 5, 100, 400])
def test_cut_file_is_a_study_error_with_its_path(tmp_path, state, keep):
    """A damaged file is named, and never read as a shorter training."""
    save_state(tmp_path, state)
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StudyError, match=CHECKPOINT_NAME):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"taskfit": "not json"},
        {"taskfit": "{}"},
        {"taskfit": '{"format": 1, "step": "three", "run": {}}'},
        {"other": "{}"},
    ],
)
def test_strange_header_is_a_study_error(tmp_path, metadata):
    """Any safetensors file may lie there; only ours is read."""
    save_file({"weights/a": torch.zeros(1)}, tmp_path / CHECKPOINT_NAME, metadata=metadata)
    with pytest.raises(StudyError, match="not a readable training checkpoint"):
        load_state(tmp_path)


def test_strange_tensor_name_is_a_study_error(tmp_path, state):
    """A tensor that belongs to no group is not ours."""
    save_state(tmp_path, replace(state, optimizer={}, best_weights={}, weights={}))
    from safetensors import safe_open

    with safe_open(tmp_path / CHECKPOINT_NAME, framework="pt") as file:
        metadata = file.metadata()
    save_file({"elsewhere/a": torch.zeros(1)}, tmp_path / CHECKPOINT_NAME, metadata=metadata)
    with pytest.raises(StudyError, match="elsewhere"):
        load_state(tmp_path)


def test_other_format_is_refused_with_both_versions(tmp_path):
    """A newer file is not misread as an old one."""
    save_file({}, tmp_path / CHECKPOINT_NAME, metadata={"taskfit": '{"format": 2}'})
    with pytest.raises(StudyError, match=r"format 2; this version reads format 1"):
        load_state(tmp_path)


def test_run_that_differs_is_refused_naming_every_difference(tmp_path):
    """Both values of each differing entry are in the message, equal ones are not."""
    with pytest.raises(StudyError) as caught:
        check_same_run(tmp_path, {"steps": 9, "seed": 0, "old": 1}, {"steps": 10, "seed": 0, "new": 2})
    message = str(caught.value)
    assert "steps was 9, now 10" in message
    assert "old was 1, now None" in message
    assert "new was None, now 2" in message
    assert "seed" not in message


def test_tuples_count_as_the_lists_they_become_on_disk(tmp_path):
    """The betas of a config are a tuple in memory and a list in the file."""
    assert check_same_run(tmp_path, {"betas": [0.9, 0.99]}, {"betas": (0.9, 0.99)}) is None
