"""What the machine at hand really does: matrix products by format, memory traffic, the cost of starting a kernel."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from taskfit.costs.accelerator import Accelerator
from taskfit.errors import ConfigError
from taskfit.files import write_text

__all__ = ["Probe", "load_probe", "probe_file", "probe_machine", "save_probe"]

_SHARE = {"float32": 0.5, "bfloat16": 0.3, "float16": 0.2}  # of the probe's time
_ASSUMED_WATTS_PER_CORE = 15.0

Clock = Callable[[], float]
"""Gives seconds."""


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        device: ``cpu`` or the accelerator's name.
        flops_per_s: of matrix products, by number format.
        bytes_per_s: of copying large arrays, reading and writing counted.
        launch_s: of one tiny operation, started from Python.
        memory_bytes: that the device offers.
        cores: threads that computed; 0 for an accelerator.
    """

    device: str
    flops_per_s: dict[str, float]
    bytes_per_s: float
    launch_s: float
    memory_bytes: float
    cores: int = 0

    def as_accelerator(self) -> Accelerator:
        """Return the machine as a device; what was measured counts as what is reached at most."""
        watts = max(1, self.cores) * _ASSUMED_WATTS_PER_CORE
        return Accelerator(
            "this-machine",
            f"this machine ({self.device})",
            self.memory_bytes,
            self.bytes_per_s,
            self.flops_per_s,
            self.bytes_per_s,
            watts,
            self.launch_s,
        )


def probe_machine(seconds: float = 5.0, *, clock: Clock = time.perf_counter) -> Probe:
    """Measure for about ``seconds``, with the threads that torch has now; medians, so that a busy moment counts little.

    ``clock`` may be ``time.process_time`` with one thread: then other programs disturb it less.

    A format in which the device is slower than a twentieth of float32 is left out, for nobody would use it.
    """
    import psutil
    import torch

    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    flops = {name: _product_rate(name, device, seconds * 0.6 * share, clock) for name, share in _SHARE.items()}
    flops = {name: rate for name, rate in flops.items() if rate > flops["float32"] / 20}
    if has_gpu:
        memory = float(torch.cuda.get_device_properties(device).total_memory)
        name, cores = torch.cuda.get_device_name(device), 0
    else:
        memory, name, cores = float(psutil.virtual_memory().total), "cpu", torch.get_num_threads()
    return Probe(
        name, flops, _copy_rate(device, seconds * 0.25, clock), _launch_s(device, seconds * 0.1, clock), memory, cores
    )


def probe_file() -> Path:
    """Return where the last probe is kept: ``$XDG_CACHE_HOME/taskfit/machine.json``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "taskfit" / "machine.json"


def save_probe(probe: Probe, path: Path | None = None) -> Path:
    """Keep a probe for later estimates; return where."""
    path = path or probe_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": 1, **asdict(probe)}, indent=1) + "\n")
    return path


def load_probe(path: Path | None = None) -> Probe | None:
    """Return the kept probe; None where there is none.

    Raises:
        ConfigError: the file is damaged.
    """
    path = path or probe_file()
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != 1:
            raise ValueError("format must be 1")
        found = Probe(**values)
        rates = [*found.flops_per_s.values(), found.bytes_per_s, found.launch_s, found.memory_bytes]
        if not found.flops_per_s or not all(float(rate) > 0 for rate in rates):
            raise ValueError("rates must be above 0")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "measure again: taskfit doctor") from error
    return found


def _product_rate(name: str, device: Any, seconds: float, clock: Clock) -> float:
    """Operations a second of square matrix products, as large as the time allows (some formats are very slow)."""
    import torch

    size, largest = 128, 1024 if device.type == "cpu" else 8192
    left = torch.rand(largest, largest, device=device).to(getattr(torch, name))

    def product() -> float:
        return float((left[:size, :size] @ left[:size, :size])[0, 0])

    while size < largest and _median_s(product, 0.0, clock) < seconds / 40:
        size *= 2
    return 2.0 * size**3 / _median_s(product, seconds, clock)


def _copy_rate(device: Any, seconds: float, clock: Clock) -> float:
    """Bytes a second, of a copy larger than any cache."""
    import torch

    source = torch.zeros(2**25 if device.type == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        float(target[0])  # reading a value waits for the device

    return 2.0 * source.numel() * source.element_size() / _median_s(copy, seconds, clock)


def _launch_s(device: Any, seconds: float, clock: Clock) -> float:
    """Seconds of one operation on a handful of values, many in a row."""
    import torch

    values = torch.zeros(8, device=device)

    def many() -> None:
        for _ in range(200):
            values.add_(1)
        float(values[0])

    return _median_s(many, seconds, clock) / 200


def _median_s(run: Callable[[], Any], seconds: float, clock: Clock) -> float:
    """Median seconds of a run, the first one left out."""
    run()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = clock()
        run()
        taken.append(clock() - start)
    return median(taken)
