from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from taskfit.costs import meter as module
from taskfit.costs.meter import Measured, Meter, folder_bytes

MEGABYTE = 2**20


def use(megabytes: int) -> int:
    """Fill memory, give it back."""
    filled = np.ones(megabytes * MEGABYTE, dtype=np.uint8)
    time.sleep(0.06)  # so that a sampling thread gets its turn
    return int(filled[::MEGABYTE].sum())


@pytest.fixture(params=["kernel", "sampled"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to find a peak, whatever this machine offers."""
    if request.param == "sampled":
        monkeypatch.setattr(module._KernelPeak, "start", lambda self: False)
    else:
        with Meter("fit") as probe:
            pass
        if probe.measured.memory_method != "kernel":
            pytest.skip("this kernel does not set its peak back")
    return str(request.param)


def test_the_peak_is_that_of_the_phase_alone(method: str) -> None:
    """A larger phase before does not show in a smaller one after."""
    with Meter("fit") as large:
        use(200)
    with Meter("predict") as small:
        use(40)
    assert large.measured.memory_method == small.measured.memory_method == method
    assert large.measured.peak_memory_bytes - large.measured.start_memory_bytes > 150 * MEGABYTE
    assert 30 * MEGABYTE < small.measured.peak_memory_bytes - small.measured.start_memory_bytes < 120 * MEGABYTE


def test_an_outer_phase_holds_the_peaks_of_the_inner_ones(method: str) -> None:
    """Setting the kernel's peak back inside must not lose what the outer phase saw."""
    with Meter("fit") as outer:
        use(150)
        with Meter("predict") as inner:
            use(20)
    assert outer.measured.memory_method == method
    assert outer.measured.peak_memory_bytes - outer.measured.start_memory_bytes > 120 * MEGABYTE
    assert inner.measured.peak_memory_bytes < outer.measured.peak_memory_bytes


def test_seconds_are_those_of_the_phase() -> None:
    """Sleeping takes wall time and no processor; children that ended count."""
    with Meter("fit") as sleeping:
        time.sleep(0.1)
    assert sleeping.measured.wall_s >= 0.1
    assert sleeping.measured.cpu_s < 0.1
    before = os.times().children_user
    with Meter("fit") as parent:
        subprocess.run([sys.executable, "-c", "sum(i * i for i in range(2_000_000))"], check=True)
    assert parent.measured.cpu_s >= os.times().children_user - before > 0


def test_a_failed_phase_is_measured_too() -> None:
    """What a crash cost is part of the bill."""
    with pytest.raises(ValueError, match="on purpose"), Meter("fit") as failed:
        raise ValueError("on purpose")
    assert failed.measured.phase == "fit"
    assert failed.measured.peak_gpu_bytes == 0


def test_a_running_phase_has_no_result() -> None:
    """Asking too early is our own mistake and says so."""
    with Meter("fit") as early, pytest.raises(RuntimeError, match="not over"):
        _ = early.measured


def test_a_kernel_that_sets_nothing_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sandboxes accept the write and ignore it; then memory is sampled."""
    values = {"VmHWM": 500 * MEGABYTE, "VmRSS": 100 * MEGABYTE}
    monkeypatch.setattr(module, "_status_bytes", values.__getitem__)
    with Meter("fit") as found:
        pass
    assert found.measured.memory_method == "sampled"


def test_a_kernel_without_such_values_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing line of /proc/self/status is no error."""
    if sys.platform == "linux":
        with pytest.raises(ValueError, match="no VmNothing"):
            module._status_bytes("VmNothing")

    def broken(key: str) -> int:
        raise ValueError(key)

    monkeypatch.setattr(module, "_status_bytes", broken)
    with Meter("fit") as found:
        pass
    assert found.measured.memory_method == "sampled"


def test_gpu_peaks_are_set_back_and_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pretended torch of two GPUs; the real one is only asked where it is loaded."""
    calls: list[tuple[str, int]] = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        synchronize=lambda device: calls.append(("wait", device)),
        reset_peak_memory_stats=lambda device: calls.append(("reset", device)),
        max_memory_allocated=lambda device: 100 + device,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    with Meter("fit") as found:
        calls.append(("work", 0))
    assert found.measured.peak_gpu_bytes == 201
    assert calls == [
        *(pair for d in (0, 1) for pair in (("wait", d), ("reset", d))),
        ("work", 0),
        ("wait", 0),
        ("wait", 1),
    ]
    monkeypatch.delitem(sys.modules, "torch")
    with Meter("fit") as without:
        pass
    assert without.measured.peak_gpu_bytes == 0


def test_folder_bytes_adds_files_and_follows_no_links(tmp_path: Path) -> None:
    """A link to a large file outside is not part of the folder."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "one").write_bytes(b"x" * 10)
    (tmp_path / "inner" / "two").write_bytes(b"x" * 5)
    (tmp_path / "link").symlink_to(__file__)
    assert folder_bytes(tmp_path) == 15
    assert folder_bytes(tmp_path / "one") == 10
    assert Measured("fit", 1.0, 1.0, 1, 1).memory_method == "sampled"
