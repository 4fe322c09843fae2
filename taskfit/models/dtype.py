"""The number format this machine computes fastest in, measured once and remembered."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError
from taskfit.files import write_text

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPE_NAMES", "fast_dtype", "named_dtype"]

DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")
"""What ``dtype`` may be."""

_SHAPES = ((256, 768, 768), (1024, 384, 1536), (64, 1024, 4096))  # (tokens, inputs, outputs), as in layers
_WORTH_IT = 1.3
_TRIES = 6
_measured: dict[str, float] = {}


def named_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the torch dtype of a name; ``auto`` is the fast one of the device.

    Raises:
        ConfigError: the name is not one of ``DTYPE_NAMES``.
    """
    import torch

    if name not in DTYPE_NAMES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPE_NAMES)} (got {name!r})")
    if name == "auto":
        return fast_dtype(device)[0]
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def fast_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """Return the number format to infer in on a device, and a sentence saying why.

    bfloat16 when it multiplies matrices at least 1.3 times as fast as float32 here, else float32: below that, its
    three digits are not worth it. Measured once (about 0.2 s) and kept in the user's cache folder, by processor, torch
    version and number of threads.
    """
    import torch

    key = f"{_device_name(device)} | torch {torch.__version__} | {torch.get_num_threads()} threads"
    if key not in _measured:
        known = _read_cache().get(key)
        ratio = known if known is not None else _speed_ratio(device)
        _measured[key] = ratio
        if known is None:
            _write_cache(key, ratio)
    ratio = _measured[key]
    chosen = torch.bfloat16 if ratio >= _WORTH_IT else torch.float32
    name = str(chosen).removeprefix("torch.")
    return chosen, f"{name}: bfloat16 is {ratio:.1f} times as fast as float32 here"


def _speed_ratio(device: torch.device) -> float:
    """Seconds of float32 over seconds of bfloat16, over all shapes; the best of a few tries of each."""
    import torch

    seconds = {torch.float32: 0.0, torch.bfloat16: 0.0}
    for rows, inputs, outputs in _SHAPES:
        best = dict.fromkeys(seconds, float("inf"))
        for _ in range(_TRIES):  # in turns, so that other programs disturb both alike
            for dtype in best:
                left = torch.ones(rows, inputs, dtype=dtype, device=device)
                right = torch.ones(outputs, inputs, dtype=dtype, device=device)
                best[dtype] = min(best[dtype], _matmul_s(left, right))
        for dtype, best_s in best.items():
            seconds[dtype] += best_s
    return seconds[torch.float32] / max(seconds[torch.bfloat16], 1e-9)


def _matmul_s(left: torch.Tensor, right: torch.Tensor) -> float:
    import torch

    start = time.perf_counter()
    torch.nn.functional.linear(left, right)
    if left.device.type == "cuda":
        torch.cuda.synchronize(left.device)
    return time.perf_counter() - start


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} {torch.backends.cpu.get_cpu_capability()}"
    return name


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "taskfit" / "dtype.json"


def _read_cache() -> dict[str, float]:
    """Return key to ratio; anything unexpected in the file counts as not there."""
    try:
        value = json.loads(_cache_file().read_text(encoding="utf-8"))
        ratios = value["ratios"] if value["format"] == 1 else {}
        return {str(key): float(ratio) for key, ratio in ratios.items() if 0 < float(ratio) < 1000}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write_cache(key: str, ratio: float) -> None:
    """Remember a ratio. A home that cannot be written to costs 0.2 s next time, so it is no error."""
    path = _cache_file()
    content = json.dumps({"format": 1, "ratios": _read_cache() | {key: round(ratio, 3)}}, indent=1)
    with suppress(OSError):
        write_text(path, content)
