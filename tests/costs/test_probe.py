from __future__ import annotations

from pathlib import Path

import pytest

from taskfit.costs.probe import Probe, load_probe, probe_file, probe_machine, save_probe
from taskfit.errors import ConfigError

PROBE = Probe("cpu", {"float32": 1e11}, 1e10, 1e-6, 8e9, 2)


def test_a_probe_measures_plausible_rates() -> None:
    """Between a slow core and a large server."""
    found = probe_machine(0.2)
    assert found.device
    assert 1e8 < found.flops_per_s["float32"] < 1e16
    assert 1e8 < found.bytes_per_s < 1e14
    assert 1e-8 < found.launch_s < 1e-2
    assert found.memory_bytes > 1e8


def test_a_kept_probe_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the cache folder; none before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_probe() is None
    assert save_probe(PROBE) == probe_file() == tmp_path / "taskfit" / "machine.json"
    assert load_probe() == PROBE
    device = PROBE.as_accelerator()
    assert device.peak("float32") == 1e11
    assert device.launch_s == 1e-6


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "device": "cpu", "flops_per_s": {}, "bytes_per_s": 1,'
     ' "launch_s": 1, "memory_bytes": 1}'],
)  # fmt: skip
def test_a_damaged_probe_is_told(tmp_path: Path, text: str) -> None:
    """With what to do."""
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot read") as error:
        load_probe(path)
    assert error.value.hint == "measure again: taskfit doctor"
