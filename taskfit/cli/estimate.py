"""``taskfit estimate``: what strategies will take, before anything runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskfit.cli.compare import split_names
from taskfit.cli.output import print_data, print_json, print_table, say

if TYPE_CHECKING:
    from taskfit.costs.device import Device
    from taskfit.costs.estimate import Estimate
    from taskfit.costs.fits import FittingMethod
    from taskfit.costs.need import Need

__all__ = ["estimate"]

_COLUMNS = (
    "model",
    "strategy",
    "trained",
    "devices",
    "rows at once",
    "memory each",
    "time",
    "USD",
    "USD labels",
    "kWh",
    "kg CO2e",
)
_SERVING = ("strategy", "prompt", "shared", "rows at once", "USD per million rows", "USD, beginning shared")


def estimate(
    model: Annotated[str, typer.Option(help="A known name, a plain size (7B), or a folder with a config.json.")] = "7B",
    strategies: Annotated[str, typer.Option(help="Comma-separated, as lora(rank=16),full; or all.")] = "all",
    hardware: Annotated[str, typer.Option(help="An accelerator, a machine with a price, or this-machine.")] = (
        "gpu-a100-80gb"
    ),
    sizes: Annotated[str, typer.Option(help="Plain sizes, as 100M,10B,150B: a table over all of them.")] = "",
    fits: Annotated[str, typer.Option(help="Memory, as 24GB: say what fits.")] = "",
    rows: Annotated[int, typer.Option(help="Training rows.")] = 1000,
    length: Annotated[int, typer.Option(help="Tokens of a row, answer included.")] = 512,
    answer: Annotated[int, typer.Option(help="Tokens of an answer.")] = 16,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = 3.0,
    batch: Annotated[int, typer.Option(help="Rows of one optimiser step.")] = 16,
    tokens: Annotated[float, typer.Option(help="Tokens of (continued) pre-training; 0: 20 a parameter.")] = 0.0,
    devices: Annotated[int, typer.Option(help="Devices at work; more where the memory needs it.")] = 0,
    sharding: Annotated[str, typer.Option(help="ddp, zero1, zero2 or fsdp; else the least that fits.")] = "",
    number_format: Annotated[str, typer.Option("--format", help="float32, float16 or bfloat16.")] = "",
    prices: Annotated[Path | None, typer.Option(help="Your own price file.")] = None,
    labels: Annotated[str, typer.Option(help="Who labels rows: crowd, expert, your own; none: they cost nothing.")] = (
        "crowd"
    ),
    grid: Annotated[str, typer.Option(help="Whose electricity: world, us, china, germany, ...")] = "",
    grams_per_kwh: Annotated[float | None, typer.Option(help="Grams of CO2e for a kWh, where you know them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what strategies will take in memory, hours, money and energy; nothing is loaded, nothing runs."""
    from taskfit.costs.device import find_device
    from taskfit.costs.need import Need
    from taskfit.costs.prices import age_warning, load_prices

    table = load_prices(prices)
    device = find_device(hardware, table)
    need = Need(rows=rows, length=length, answer=answer, epochs=epochs, batch=batch, tokens=tokens)
    if device.price is not None and (warning := age_warning(device.price)):
        say(f"warning: {warning}")
    if fits:
        _print_fits(model, strategies, need, device, fits, as_json)
        return
    settings: dict[str, Any] = {"hardware": hardware, "need": need, "prices": table, "number_format": number_format}
    settings |= {"devices": devices, "sharding": sharding, "grid": grid, "grams_per_kwh": grams_per_kwh}
    settings["labels"] = "" if labels == "none" else labels
    models = split_names(sizes) if sizes else [model]
    found: list[Estimate] = []
    left_out: dict[str, list[str]] = {}
    for name in models:
        found += _estimates(name, strategies, settings, left_out)
    for line, of in left_out.items():
        say(f"left out {line}" if len(of) == len(models) else f"left out {line} ({', '.join(of)})")
    served = [] if sizes else _served(model, strategies, hardware, need, table)
    if as_json:
        from dataclasses import asdict

        both = {"estimates": [one.to_json() for one in found], "serving": [asdict(one) for one in served]}
        print_json({"format": 1, **both})
        return
    if len(found) == 1:
        _print_one(found[0])
    else:
        print_table(_COLUMNS, _rows(found), dict.fromkeys(_COLUMNS[2:], True))
    if served:
        print_data("")
        print_table(_SERVING, [_serving_row(one) for one in served], dict.fromkeys(_SERVING[1:], True))
    if found:
        print_data("")
        print_data(found[0].basis)


def _estimates(model: str, strategies: str, settings: dict[str, Any], left_out: dict[str, list[str]]) -> list[Estimate]:
    """Estimate each strategy; of all, those that the model allows. To ``left_out`` the model is added by the reason."""
    from taskfit.costs.estimate import estimate
    from taskfit.costs.strategies import STRATEGIES
    from taskfit.errors import ConfigError

    if strategies != "all":
        return [estimate(model, name, **settings) for name in split_names(strategies)]
    found = []
    for name in STRATEGIES:
        try:
            found.append(estimate(model, name, **settings))
        except ConfigError as error:
            if not error.message.startswith("estimate: "):  # not about the method and the model
                raise
            left_out.setdefault(f"{name}: {error.message.removeprefix('estimate: ')}", []).append(model)
    return found


def _served(model: str, strategies: str, hardware: str, need: Need, table: Any) -> list[Any]:
    from taskfit.costs.serving import serving
    from taskfit.errors import ConfigError

    names = ("zero-shot", "few-shot(k=4)", "lora", "soft-prompt") if strategies == "all" else split_names(strategies)
    found = []
    for name in names:
        try:
            found.append(serving(model, name, hardware=hardware, need=need, prices=table))
        except ConfigError as error:
            say(f"no price for answering with {name}: {error.message}")
    return found


def _rows(found: list[Estimate]) -> list[list[str]]:
    """One line an estimate; the model's name only where it changes."""
    lines = [_row(one) for one in found]
    repeated = [before.model == one.model for before, one in pairwise(found)]
    return [[("" if again else line[0]), *line[1:]] for line, again in zip(lines, [False, *repeated], strict=True)]


def _row(one: Estimate) -> list[str]:
    return [
        one.model,
        one.strategy,
        _count(one.trained),
        str(one.devices) + (f" {one.sharding}" if one.devices > 1 else ""),
        str(one.micro_batch),
        f"{one.memory.system / 1e9:.1f} GB" + ("" if one.fits else " too much"),
        _time(one.hours),
        "no price" if one.usd is None else _range(one.usd),
        f"{one.usd_labels:,.2f}" if one.usd_labels else "0",
        f"{one.energy.kwh:.3g}",
        f"{one.energy.kg_co2e:.3g}",
    ]


def _print_one(one: Estimate) -> None:
    """Show a single estimate in full, its memory by part and the three figures apart."""
    memory = one.memory
    parts = ("weights", "gradients", "optimiser", "activations", "working")
    held = ", ".join(f"{name} {getattr(memory, name) / 1e9:.2f}" for name in parts if getattr(memory, name))
    figures = ", ".join(f"{name} {getattr(memory, name) / 1e9:.2f}" for name in ("allocated", "reserved", "system"))
    dear = "no price for this hardware" if one.usd is None else f"{_range(one.usd)} USD"
    rows = [
        ("model", f"{one.model}, {_count(one.parameters)} parameters"),
        ("strategy", f"{one.strategy}, {_count(one.trained)} parameters trained on {_count(one.tokens)} tokens"),
        ("hardware", f"{one.devices} x {one.hardware}" + (f", {one.sharding}" if one.devices > 1 else "")),
        ("rows at once", f"{one.micro_batch} on a device, activations recomputed: {one.checkpointing}"),
        ("parts, GB", held),
        ("peak of one device, GB", f"{figures} ({memory.phase})" + ("" if one.fits else ": more than it has")),
        ("time", _time(one.hours)),
        ("machines", dear),
        ("labels", f"{one.labels:,} rows, {one.usd_labels:,.2f} USD"),
        ("energy", f"{one.energy.kwh:.3g} kWh, {one.energy.kg_co2e:.3g} kg CO2e"),
    ]
    print_table(("what", "estimate"), rows)


def _serving_row(one: Any) -> list[str]:
    usd = [
        "no price" if value is None else f"{value:.2f}" for value in (one.usd_per_million, one.usd_per_million_shared)
    ]
    return [one.strategy, str(one.prompt), str(one.shared), str(one.batch), *usd]


def _range(three: tuple[float, float, float]) -> str:
    """Middle, and low to high in brackets."""
    low, middle, high = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in three)
    return f"{middle} ({low} to {high})" if three[2] else "0"


def _time(hours: tuple[float, float, float]) -> str:
    """The same of hours, in the unit that suits the middle."""
    unit, size = next((one for one in _UNITS_OF_TIME if hours[1] >= one[1]), _UNITS_OF_TIME[-1])
    low, middle, high = (hours[place] / size for place in range(3))
    return f"{_range((low, middle, high))} {unit}" if hours[2] else "0"


_UNITS_OF_TIME = (("h", 1.0), ("min", 1 / 60), ("s", 1 / 3600))


def _count(number: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _bytes(text: str) -> float:
    """Read an amount of memory: 24GB, 24 GiB, 500MB."""
    import re

    from taskfit.errors import ConfigError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"--fits must be an amount of memory, as 24GB or 16GiB (got {text!r})")
    power = " kmgt".index(match[2]) if match[2] else 3
    return float(match[1]) * float((1024 if match[3] else 1000) ** power)


def _print_fits(model: str, strategies: str, need: Need, device: Device, fits: str, as_json: bool) -> None:
    """Say which strategies fit for the model, how many rows at once, and the largest models for each strategy."""
    from dataclasses import asdict

    from taskfit.costs.catalogue import find_architecture
    from taskfit.costs.fits import fitting_methods, fitting_models

    room, named = _bytes(fits), [] if strategies == "all" else split_names(strategies)
    methods = fitting_methods(find_architecture(model), need, device.accelerator, room, named)
    names = named or ("full", "lora", "qlora", "zero-shot")
    largest = {name: fitting_models(name, need, device.accelerator, room)[:3] for name in names}
    hourly = None if device.price is None else device.price.price_usd_per_hour
    if as_json:
        each = [asdict(one) | {"usd": hourly and hourly * one.seconds / 3600} for one in methods]
        best = {name: [{"model": one, "parameters": size} for one, size in found] for name, found in largest.items()}
        print_json({"format": 1, "bytes": room, "model": model, "methods": each, "largest": best})
        return
    if methods:
        print_data(f"{model} in {fits} ({device.accelerator.name}); the cheapest first:")
        columns = ("strategy", "rows at once", "recomputes", "memory", "hours, ideal", "USD, ideal")
        print_table(columns, [_method_row(one, hourly) for one in methods], dict.fromkeys(columns[1:], True))
    else:
        print_data(f"no strategy trains {model} in {fits} on one device")
    print_data("")
    cells = [
        [name, ", ".join(f"{one} ({_count(size)})" for one, size in found) or "none known"]
        for name, found in largest.items()
    ]
    print_table(("strategy", f"largest models in {fits}"), cells)


def _method_row(one: FittingMethod, hourly: float | None) -> list[str]:
    hours = one.seconds / 3600
    usd = "no price" if hourly is None else f"{hours * hourly:.2g}"
    kept = "no" if one.checkpointing == "none" else one.checkpointing
    return [one.strategy, str(one.micro_batch), kept, f"{one.memory_bytes / 1e9:.1f} GB", f"{hours:.2g}", usd]
