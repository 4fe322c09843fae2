"""What a phase of a trial took: seconds, memory, bytes on disk. Measured, not guessed."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

__all__ = ["Measured", "Meter", "folder_bytes"]

_SAMPLE_S = 0.02


@dataclass(frozen=True)
class Measured:
    """What one phase took.

    Attributes:
        phase: ``fit`` or ``predict``.
        wall_s: seconds on the clock.
        cpu_s: seconds of processor time of all threads, and of child processes that ended during the phase.
        peak_memory_bytes: most resident memory of this process during the phase, what was there before included.
        start_memory_bytes: resident memory when the phase began.
        peak_gpu_bytes: most memory that torch held on the GPUs during the phase, added over GPUs; 0 without GPU.
        memory_method: ``kernel`` (the operating system kept the peak) or ``sampled`` (read every 20 ms; a shorter
            peak may be missed).
    """

    phase: str
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    start_memory_bytes: int
    peak_gpu_bytes: int = 0
    memory_method: str = "sampled"


class Meter:
    """Measures the phase inside ``with``; ``measured`` holds the result afterwards, also when the phase failed.

    Meters may be nested. Use from one thread.

    >>> with Meter("fit") as meter:
    ...     numbers = sorted(range(1000))
    >>> meter.measured.phase
    'fit'
    """

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self._measured: Measured | None = None

    @property
    def measured(self) -> Measured:
        """The result, once the phase is over."""
        if self._measured is None:
            raise RuntimeError(f"the phase {self.phase!r} is not over yet")
        return self._measured

    def __enter__(self) -> Meter:
        self._memory = _start_memory_peak()
        self._start_memory = _resident_bytes()
        _start_gpu_peak()
        self._cpu_s, self._wall_s = _cpu_s(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gpu_bytes = _gpu_peak_bytes()
        wall_s, cpu_s = time.perf_counter() - self._wall_s, _cpu_s() - self._cpu_s
        peak, method = self._memory.stop(), self._memory.method
        self._measured = Measured(self.phase, wall_s, cpu_s, peak, self._start_memory, gpu_bytes, method)


def folder_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder and below; links are not followed."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


class _KernelPeak:
    """The peak as Linux keeps it (VmHWM), set back at the start; nested ones hand their peaks to the outer ones."""

    method = "kernel"
    _active: ClassVar[list[_KernelPeak]] = []

    def __init__(self) -> None:
        self._peak = 0

    def start(self) -> bool:
        """Set the kernel's peak back; false where that is not possible."""
        try:
            before = _status_bytes("VmHWM")
            Path("/proc/self/clear_refs").write_text("5")
            if _status_bytes("VmHWM") > _status_bytes("VmRSS") + 2**24:
                return False  # the file could be written, but nothing was set back
        except (OSError, ValueError):
            return False
        self._hand_out(before)
        self._active.append(self)
        return True

    def stop(self) -> int:
        self._hand_out(_status_bytes("VmHWM"))
        self._active.remove(self)
        return self._peak

    def _hand_out(self, peak: int) -> None:
        for meter in self._active:
            meter._peak = max(meter._peak, peak)


class _SampledPeak:
    """The largest of many readings, taken by a thread."""

    method = "sampled"

    def start(self) -> None:
        self._peak = _resident_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="memory-meter", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return max(self._peak, _resident_bytes())

    def _read(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._peak = max(self._peak, _resident_bytes())


def _start_memory_peak() -> _KernelPeak | _SampledPeak:
    kernel = _KernelPeak()
    if sys.platform == "linux" and kernel.start():
        return kernel
    sampled = _SampledPeak()
    sampled.start()
    return sampled


def _status_bytes(key: str) -> int:
    """Read a value of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {key}")


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _cpu_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _start_gpu_peak() -> None:
    for cuda, device in _gpus():
        cuda.synchronize(device)
        cuda.reset_peak_memory_stats(device)


def _gpu_peak_bytes() -> int:
    """Wait for the GPUs' work to end, then return their peaks' sum."""
    total = 0
    for cuda, device in _gpus():
        cuda.synchronize(device)
        total += int(cuda.max_memory_allocated(device))
    return total


def _gpus() -> list[tuple[Any, int]]:  # torch.cuda, untyped so that torch is not loaded for it
    """Return ``torch.cuda`` with each device's number, where torch is loaded already and sees GPUs."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [(torch.cuda, device) for device in range(torch.cuda.device_count())]
