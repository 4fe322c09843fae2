"""What a device can do: number formats, operations and bytes a second, memory, power."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from taskfit.errors import ConfigError, nearest

__all__ = ["Accelerator", "accelerator", "accelerators", "find_accelerator"]

_FILE = Path(__file__).with_name("accelerators.yaml")


@dataclass(frozen=True)
class Accelerator:
    """One device.

    Attributes:
        key: as users choose it.
        name: for people.
        memory_bytes: what the device offers.
        bytes_per_s: of its memory, at most.
        flops_per_s: of dense matrix products, at most, by number format.
        link_bytes_per_s: between devices of one machine.
        watts: at most, of the device alone.
        launch_s: of starting one kernel.
    """

    key: str
    name: str
    memory_bytes: float
    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    link_bytes_per_s: float
    watts: float
    launch_s: float = 6e-6

    def peak(self, number_format: str) -> float:
        """Return the operations a second in a format.

        Raises:
            ConfigError: the device lacks the format; the message names those it has.
        """
        if number_format not in self.flops_per_s:
            has = ", ".join(self.flops_per_s)
            instead = "float16" if "float16" in self.flops_per_s else "float32"
            raise ConfigError(
                f"{self.name} does not compute in {number_format}; it has {has}",
                f"choose another format, as in --format {instead}, or newer hardware",
            )
        return self.flops_per_s[number_format]


@cache
def accelerators() -> dict[str, Accelerator]:
    """Return all devices by key."""
    import yaml

    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["accelerators"]
    return {
        key: Accelerator(
            key,
            one["name"],
            one["gb"] * 1e9,
            one["bandwidth_gb_s"] * 1e9,
            {name: value * 1e12 for name, value in one["tflops"].items()},
            one["link_gb_s"] * 1e9,
            float(one["watts"]),
        )
        for key, one in entries.items()
    }


def accelerator(name: str) -> Accelerator:
    """Return the device that a name means.

    Raises:
        ConfigError: none; the message names the nearest.
    """
    found = find_accelerator(name)
    if found is None:
        known = accelerators()
        raise ConfigError(f"unknown hardware {name!r}{nearest(name, known)}; known are {', '.join(known)}")
    return found


def find_accelerator(name: str) -> Accelerator | None:
    """Return the device that a name means, as people write names (``A100-80GB``, ``RTX 4090``, ``gpu-h100``)."""
    known = accelerators()
    short = re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("gpu-"))
    for key in sorted(known, key=len, reverse=True):
        plain = key.replace("-", "")
        if short == plain or short.removeprefix("rtx") == plain.removeprefix("rtx"):
            return known[key]
    for key in sorted(known, key=len, reverse=True):
        if re.sub(r"[^a-z0-9]", "", key) in short:
            return known[key]
    return known["a100-80gb"] if short.startswith("a100") else None
