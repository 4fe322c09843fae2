"""The number format: measured once, remembered, said in words."""

from __future__ import annotations

import json

import pytest
import torch

from taskfit.models import dtype
from taskfit.models.dtype import fast_dtype, named_dtype

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Use a cache folder of our own; return a function that sets what measuring gives and counts the calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(dtype, "_measured", {})
    calls = []

    def use(ratio):
        monkeypatch.setattr(dtype, "_speed_ratio", lambda device: calls.append(ratio) or ratio)
        return calls

    return use


@pytest.mark.parametrize(("ratio", "expected"), [(2.13, "bfloat16"), (1.3, "bfloat16"), (1.29, "float32")])
def test_bfloat16_must_be_worth_it(measured, ratio, expected):
    """Below 1.3 times the speed, float32 stays."""
    measured(ratio)
    chosen, sentence = fast_dtype(CPU)
    assert chosen == getattr(torch, expected)
    assert sentence == f"{expected}: bfloat16 is {ratio:.1f} times as fast as float32 here"
    assert named_dtype("auto", CPU) == chosen


def test_it_is_measured_once_and_remembered(measured, monkeypatch, tmp_path):
    """The second process reads the file."""
    calls = measured(2.0)
    fast_dtype(CPU)
    fast_dtype(CPU)
    monkeypatch.setattr(dtype, "_measured", {})
    measured(0.5)
    assert fast_dtype(CPU)[0] == torch.bfloat16
    assert calls == [2.0]
    assert json.loads((tmp_path / "taskfit" / "dtype.json").read_text())["format"] == 1
    assert len(list((tmp_path / "taskfit").iterdir())) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "ratios": 3}', '{"format": 1}'])
def test_a_damaged_cache_is_measured_again(measured, tmp_path, content):
    """Nothing in it is believed unchecked."""
    (tmp_path / "taskfit").mkdir()
    (tmp_path / "taskfit" / "dtype.json").write_text(content)
    assert measured(1.5) == []
    assert fast_dtype(CPU)[0] == torch.bfloat16


def test_a_home_that_cannot_be_written_is_no_error(measured, monkeypatch, tmp_path):
    """It only costs the measurement."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    measured(1.5)
    assert fast_dtype(CPU)[0] == torch.bfloat16


def test_measuring_gives_a_ratio(monkeypatch):
    """The real thing, on small shapes."""
    monkeypatch.setattr(dtype, "_SHAPES", ((8, 16, 16),))
    assert 0 < dtype._speed_ratio(CPU) < 1000
    assert "torch" not in dtype._device_name(CPU)
