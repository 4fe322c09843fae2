"""What an hour of a machine costs: a dated table that the user can replace, entry by entry."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import ConfigError, Faults, nearest

if TYPE_CHECKING:
    from taskfit.costs.meter import Measured

__all__ = ["DEFAULT_MACHINE", "Machine", "PriceTable", "age_warning", "load_prices", "machine", "money"]

DEFAULT_MACHINE = "this-machine"
_SHIPPED = Path(__file__).with_name("hardware.yaml")
_OLD_AFTER_DAYS = 90
_KNOWN_KEYS = ("format", "date", "currency", "note", "machines")
_MACHINE_KEYS = ("price_usd_per_hour", "cores", "memory_gb", "gpu", "gpu_memory_gb", "source")


@dataclass(frozen=True)
class Machine:
    """One machine that can be rented.

    Attributes:
        name: as users choose it.
        price_usd_per_hour: of the whole machine, however much of it a trial uses.
        source: where the price is from.
        date: of the price.
        cores, memory_gb, gpu, gpu_memory_gb: what it has; 0 or empty where unknown or none.
    """

    name: str
    price_usd_per_hour: float
    source: str
    date: datetime.date
    cores: int = 0
    memory_gb: float = 0.0
    gpu: str = ""
    gpu_memory_gb: float = 0.0


@dataclass(frozen=True)
class PriceTable:
    """All machines by name, from the shipped table and the user's file; the user's entries win."""

    machines: Mapping[str, Machine]


def load_prices(override: Path | None = None) -> PriceTable:
    """Read the shipped table, and over it the user's file, which has the same form and may hold fewer machines.

    Raises:
        ConfigError: the file cannot be read, lacks its date or currency, is in another currency than USD, or has
            unknown keys or impossible values. All faults are reported together.
    """
    machines = _read(_SHIPPED)
    if override is not None:
        machines |= _read(override)
    return PriceTable(machines)


def machine(table: PriceTable, name: str = DEFAULT_MACHINE) -> Machine:
    """Return the machine of that name.

    Raises:
        ConfigError: there is none; the message names the nearest and how to add one.
    """
    if name not in table.machines:
        raise ConfigError(
            f"no price for the machine {name!r}{nearest(name, table.machines)}; known are {', '.join(table.machines)}",
            "choose a known machine, or add yours to a price file and pass it with --prices FILE",
        )
    return table.machines[name]


def age_warning(priced: Machine, today: datetime.date | None = None) -> str | None:
    """Return a sentence where the machine's price is older than 90 days, else None."""
    days = ((today or datetime.date.today()) - priced.date).days
    if days <= _OLD_AFTER_DAYS:
        return None
    return (
        f"the price of {priced.name} ({priced.price_usd_per_hour:.2f} USD an hour) is from {priced.date}, {days} days "
        "ago; check it and give your own with --prices FILE"
    )


def money(measured: Measured, priced: Machine) -> float:
    """Return the USD that a phase cost: its seconds on the clock at the price of the whole machine.

    The whole machine counts even where the phase used one core of it: it was rented, and a study runs one trial at
    a time by default.
    """
    return measured.wall_s / 3600 * priced.price_usd_per_hour


def _read(path: Path) -> dict[str, Machine]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the price file {path}: {error}") from error
    faults = Faults(str(path))
    if not isinstance(values, dict):
        faults.add(f"expected the keys {', '.join(_KNOWN_KEYS)} (got {type(values).__name__})")
        values = {"format": 1, "date": datetime.date.min, "currency": "USD", "machines": {}}
    for key in values:
        if key not in _KNOWN_KEYS:
            faults.add(f"unknown key {key!r}{nearest(str(key), _KNOWN_KEYS)}")
    date = _date(values.get("date"), faults)
    if values.get("format", 1) != 1:
        faults.add(f"format must be 1 (got {values['format']!r})")
    if values.get("currency") != "USD":
        faults.add(f"currency must be USD: convert the prices (got {values.get('currency', 'no currency')!r})")
    entries = values.get("machines")
    if not isinstance(entries, dict):
        faults.add(f"machines must map names to prices (got {type(entries).__name__})")
        entries = {}
    read = {str(name): _machine(str(name), entry, date, faults) for name, entry in entries.items()}
    faults.raise_as(ConfigError)
    return read


def _date(value: object, faults: Faults) -> datetime.date:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    faults.add(f"date must say when the prices were true, as 2026-01-31 (got {value!r})")
    return datetime.date.min


def _machine(name: str, entry: Any, date: datetime.date, faults: Faults) -> Machine:
    """Check one entry; on a fault, note it and return a free machine."""
    free = Machine(name, 0.0, "", date)
    if not isinstance(entry, dict):
        faults.add(f"{name} must have a price_usd_per_hour (got {entry!r})")
        return free
    for key in entry:
        if key not in _MACHINE_KEYS:
            faults.add(f"{name}: unknown key {key!r}{nearest(str(key), _MACHINE_KEYS)}")
    numbers = {}
    for key in ("price_usd_per_hour", "cores", "memory_gb", "gpu_memory_gb"):
        value = entry.get(key, 0 if key != "price_usd_per_hour" else None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            faults.add(f"{name}: {key} must be a number of at least 0 (got {value!r})")
        else:
            numbers[key] = value
    return replace(
        free,
        source=str(entry.get("source", "")),
        gpu=str(entry.get("gpu", "")),
        price_usd_per_hour=float(numbers.get("price_usd_per_hour", 0)),
        cores=int(numbers.get("cores", 0)),
        memory_gb=float(numbers.get("memory_gb", 0)),
        gpu_memory_gb=float(numbers.get("gpu_memory_gb", 0)),
    )
