"""Electricity and its emissions: from a device's power, its server, the building and the grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from taskfit.errors import ConfigError, nearest

__all__ = ["Energy", "energy", "grids"]

_FILE = Path(__file__).with_name("energy.yaml")


@dataclass(frozen=True)
class Energy:
    """Electricity of a job.

    Attributes:
        kwh: with server and building.
        kg_co2e: at the grid's mean.
        grid: whose mean; empty where a figure was given.
    """

    kwh: float
    kg_co2e: float
    grid: str


@cache
def _values() -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return values


def grids() -> dict[str, int]:
    """Return grams of CO2 equivalent for a kilowatt-hour, by grid."""
    found: dict[str, int] = _values()["grams_per_kwh"]
    return found


def energy(device_hours: float, watts: float, *, grid: str = "", grams_per_kwh: float | None = None) -> Energy:
    """Return electricity and emissions of so many hours of devices of that power.

    Raises:
        ConfigError: an unknown grid, or a figure below 0.
    Source of the shares: ``taskfit/costs/energy.yaml``, which also holds its date.
    """
    values = _values()
    grid = grid or ("" if grams_per_kwh is not None else values["default"])
    if grams_per_kwh is None:
        if grid not in grids():
            raise ConfigError(f"unknown grid {grid!r}{nearest(grid, grids())}; known are {', '.join(grids())}")
        grams_per_kwh = grids()[grid]
    if not 0 <= grams_per_kwh < float("inf"):
        raise ConfigError(f"grams of CO2e per kWh must be at least 0 and finite (got {grams_per_kwh})")
    kwh = device_hours * watts / 1000 * values["server_share"] * values["building_share"]
    return Energy(kwh, kwh * grams_per_kwh / 1000, grid)
