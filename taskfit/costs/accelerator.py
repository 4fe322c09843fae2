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
    """Return the device that a name means, as people write names (``A100-80GB``, ``RTX 4090``, ``gpu-h100``).

    The device must stand in the name as words of its own, so that an L40 is not taken for an L4. An A100 has 80 GB
    unless its name says 40.
    """
    known = accelerators()
    words = re.findall(r"[a-z0-9]+", name.lower().removeprefix("gpu-"))
    short, spaced = "".join(words), " ".join(words)
    for key in known:
        plain = key.replace("-", "")
        if short == plain or short.removeprefix("rtx") == plain.removeprefix("rtx"):
            return known[key]
    for key in sorted(known, key=len, reverse=True):
        if _stands_in(key, spaced):
            return known[key]
    if not _stands_in("a100", spaced):
        return None
    return known["a100-40gb" if re.search(r"\b40( ?gb?)?\b", spaced) else "a100-80gb"]


def _stands_in(key: str, words: str) -> bool:
    """Say whether a device stands among words, joined or apart, with or without a number of them (``8xH100``)."""
    parts = re.findall(r"[a-z]+|[0-9]+", key)
    return re.search(rf"\b(?:\d+x)?{' ?'.join(parts)}\b", words) is not None
