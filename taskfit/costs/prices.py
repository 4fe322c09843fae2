"""What an hour of a machine and a service's tokens cost: a dated table that the user can replace, entry by entry."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taskfit.errors import ConfigError, Faults, nearest

__all__ = [
    "DEFAULT_MACHINE",
    "LabelPrice",
    "Machine",
    "PriceTable",
    "ServicePrice",
    "age_in_days",
    "age_warning",
    "label_price",
    "load_prices",
    "machine",
    "money",
]

DEFAULT_MACHINE = "this-machine"
_SHIPPED = Path(__file__).with_name("hardware.yaml")
_OLD_AFTER_DAYS = 90
_KNOWN_KEYS = ("format", "date", "currency", "note", "machines", "services", "labels")
_MACHINE_KEYS = ("price_usd_per_hour", "cores", "memory_gb", "gpu", "gpu_memory_gb", "source")
_SERVICE_KEYS = ("usd_per_mtok_in", "usd_per_mtok_out", "source")
_LISTS = ("machines", "services", "labels")
_LABEL_KEYS = ("usd_per_label", "source")


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
class ServicePrice:
    """What the tokens of a service cost.

    Attributes:
        name: the service's host, or ``host/model``.
        usd_per_mtok_in, usd_per_mtok_out: US dollars per million tokens read and written.
        source: where the price is from.
        date: of the price.
    """

    name: str
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    source: str
    date: datetime.date

    def usd(self, tokens_in: float, tokens_out: float) -> float:
        """US dollars of some tokens."""
        return (tokens_in * self.usd_per_mtok_in + tokens_out * self.usd_per_mtok_out) / 1e6


@dataclass(frozen=True)
class LabelPrice:
    """What a person's answer to one row costs.

    Attributes:
        name: who answers, as users choose it.
        source: where the price is from.
        date: of the price.
    """

    name: str
    usd_per_label: float
    source: str
    date: datetime.date


@dataclass(frozen=True)
class PriceTable:
    """All machines, services and labels by name, from the shipped table and the user's file, whose entries win."""

    machines: Mapping[str, Machine]
    services: Mapping[str, ServicePrice] = field(default_factory=dict)
    labels: Mapping[str, LabelPrice] = field(default_factory=dict)


def load_prices(override: Path | None = None) -> PriceTable:
    """Read the shipped table, and over it the user's file, which has the same form and may hold fewer entries.

    An entry of the user's replaces the shipped one of its name; what it does not say of the machine itself (cores,
    memory, GPU) stays as shipped.

    Raises:
        ConfigError: the file cannot be read, lacks its date or currency, is in another currency than USD, or has
            unknown keys or impossible values. All faults are reported together.
    """
    shipped = _read(_SHIPPED)
    if override is None:
        return shipped
    own = _read(override)
    machines = {name: _completed(one, shipped.machines.get(name)) for name, one in own.machines.items()}
    return PriceTable(
        {**shipped.machines, **machines},
        {**shipped.services, **own.services},
        {**shipped.labels, **own.labels},
    )


def _completed(own: Machine, shipped: Machine | None) -> Machine:
    """Return the user's entry with what the shipped one says of the machine, where the user says nothing."""
    if shipped is None:
        return own
    of_gpu = own if own.gpu else shipped
    return replace(
        own,
        cores=own.cores or shipped.cores,
        memory_gb=own.memory_gb or shipped.memory_gb,
        gpu=of_gpu.gpu,
        gpu_memory_gb=own.gpu_memory_gb or of_gpu.gpu_memory_gb,
    )


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


def label_price(table: PriceTable, name: str) -> LabelPrice:
    """Return what a label costs.

    Raises:
        ConfigError: there is none of that name; the message names the nearest and how to add one.
    """
    if name not in table.labels:
        raise ConfigError(
            f"no price for labels by {name!r}{nearest(name, table.labels)}; known are {', '.join(table.labels)}",
            "choose a known one, or add yours under labels in a price file and pass it with --prices FILE",
        )
    return table.labels[name]


def age_warning(priced: Machine, today: datetime.date | None = None) -> str | None:
    """Return a sentence where the machine's price is older than 90 days, else None."""
    days = age_in_days(priced.date, today)
    if days is None:
        return None
    return (
        f"the price of {priced.name} ({priced.price_usd_per_hour:.2f} USD an hour) is from {priced.date}, {days} days "
        "ago; check it and give your own with --prices FILE"
    )


def age_in_days(date: datetime.date, today: datetime.date | None = None) -> int | None:
    """Return the age of a price that is older than 90 days, else None."""
    days = ((today or datetime.date.today()) - date).days
    return days if days > _OLD_AFTER_DAYS else None


def money(seconds: float, priced: Machine) -> float:
    """Return the USD of some seconds of the whole machine, however much of it was used."""
    return seconds / 3600 * priced.price_usd_per_hour


def _read(path: Path) -> PriceTable:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a date of the 45th is a ValueError
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
    listed = {key: _entries(values, key, faults) for key in _LISTS}
    machines = {name: _machine(name, entry, date, faults) for name, entry in listed["machines"].items()}
    services = {name: _service(name, entry, date, faults) for name, entry in listed["services"].items()}
    labels = {name: _label(name, entry, date, faults) for name, entry in listed["labels"].items()}
    faults.raise_as(ConfigError)
    return PriceTable(machines, services, labels)


def _entries(values: Mapping[str, Any], key: str, faults: Faults) -> dict[str, Any]:
    """Return the entries under a key; a file may have only one of the three."""
    entries = values.get(key, {} if {*_LISTS} & {*values} else None)
    if not isinstance(entries, dict):
        faults.add(f"{key} must map names to prices (got {type(entries).__name__})")
        return {}
    return {str(name): entry for name, entry in entries.items()}


def _service(name: str, entry: Any, date: datetime.date, faults: Faults) -> ServicePrice:
    """Check one entry; on a fault, note it and return a free service."""
    if not isinstance(entry, dict):
        faults.add(f"{name} must have usd_per_mtok_in and usd_per_mtok_out (got {entry!r})")
        return ServicePrice(name, 0.0, 0.0, "", date)
    for key in entry:
        if key not in _SERVICE_KEYS:
            faults.add(f"{name}: unknown key {key!r}{nearest(str(key), _SERVICE_KEYS)}")
    read, written = (_amount(name, key, entry.get(key), faults) for key in _SERVICE_KEYS[:2])
    return ServicePrice(name, read, written, str(entry.get("source", "")), date)


def _label(name: str, entry: Any, date: datetime.date, faults: Faults) -> LabelPrice:
    """Check one entry; on a fault, note it and return a free label."""
    if not isinstance(entry, dict):
        faults.add(f"{name} must have a usd_per_label (got {entry!r})")
        return LabelPrice(name, 0.0, "", date)
    for key in entry:
        if key not in _LABEL_KEYS:
            faults.add(f"{name}: unknown key {key!r}{nearest(str(key), _LABEL_KEYS)}")
    price = _amount(name, "usd_per_label", entry.get("usd_per_label"), faults)
    return LabelPrice(name, price, str(entry.get("source", "")), date)


def _amount(name: str, key: str, value: object, faults: Faults) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        faults.add(f"{name}: {key} must be a number of at least 0 (got {value!r})")
        return 0.0
    return float(value)


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
        numbers[key] = _amount(name, key, entry.get(key, 0 if key != "price_usd_per_hour" else None), faults)
    return replace(
        free,
        source=str(entry.get("source", "")),
        gpu=str(entry.get("gpu", "")),
        price_usd_per_hour=numbers["price_usd_per_hour"],
        cores=int(numbers["cores"]),
        memory_gb=numbers["memory_gb"],
        gpu_memory_gb=numbers["gpu_memory_gb"],
    )
