"""What a strategy will take on a device, before it runs: memory, hours, money, energy; and what fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from taskfit.costs.accelerator import Accelerator, accelerator, find_accelerator
from taskfit.costs.architecture import Architecture
from taskfit.costs.catalogue import catalogue, find_architecture
from taskfit.costs.duration import decoding, training_step
from taskfit.costs.energy import Energy, energy
from taskfit.costs.job import Job, trainable_parameters
from taskfit.costs.memory import Memory, memory
from taskfit.costs.prices import DEFAULT_MACHINE, Machine, PriceTable, load_prices
from taskfit.errors import ConfigError, ModelError, nearest

__all__ = [
    "STRATEGIES",
    "Estimate",
    "Need",
    "Serving",
    "estimate",
    "find_device",
    "fitting_batch",
    "fitting_methods",
    "fitting_models",
    "plan_job",
    "read_strategy",
    "serving",
]

STRATEGIES: dict[str, dict[str, Any]] = {
    "pretraining": {"method": "pretraining"},
    "full": {"method": "full"},
    "continued-pretraining": {"method": "continued-pretraining"},
    "lora": {"method": "lora"},
    "qlora": {"method": "lora", "quantised": "nf4"},
    "dora": {"method": "dora"},
    "adapters": {"method": "adapters"},
    "ia3": {"method": "ia3"},
    "bitfit": {"method": "bitfit"},
    "layer-norm": {"method": "layer-norm"},
    "prefix": {"method": "prefix"},
    "soft-prompt": {"method": "soft-prompt"},
    "distillation": {"method": "distillation"},
    "zero-shot": {"method": "prompting"},
    "few-shot": {"method": "prompting"},
}
"""Strategies that can be estimated, and what they set."""

MEMORY_SPREAD = 0.13
"""Nine in ten published measurements lie within this share of the estimate (benchmarks/estimator.py)."""

_SHARE_REACHED = (0.5, 0.82, 1.1)  # of the modelled rate, by stacks of the benchmark: low, middle, high
_SHARE_PROBED = (0.5, 0.75, 1.0)  # of probed rates, by whole models
_MOST_DEVICES = 16_384
_PER_PARAMETER = 20  # tokens of a compute-optimal pre-training (Hoffmann et al. 2022, table 3)


@dataclass(frozen=True)
class Need:
    """How much is to be done.

    Attributes:
        rows: training rows; with ``epochs`` they give the tokens trained.
        length: tokens of a row, answer included.
        answer: tokens of an answer: what the loss reads, and what is generated.
        epochs: passes over the rows.
        batch: rows of an optimiser step.
        tokens: of (continued) pre-training; 0: 20 for each parameter of a pre-training (Hoffmann et al. 2022), a
            billion for a continued one.
    """

    rows: int = 1000
    length: int = 512
    answer: int = 16
    epochs: float = 3.0
    batch: int = 16
    tokens: float = 0.0

    def __post_init__(self) -> None:
        wrong = [f"{one.name} must be above 0 (got {getattr(self, one.name)})" for one in fields(self)[:5]]
        wrong = [sentence for sentence, one in zip(wrong, fields(self), strict=False) if getattr(self, one.name) <= 0]
        if self.answer > self.length:
            wrong.append(f"answer must be at most length (got {self.answer} and {self.length})")
        if wrong:
            raise ConfigError("estimate: " + "; ".join(wrong))


@dataclass(frozen=True)
class Estimate:
    """What a strategy will take.

    Attributes:
        strategy, model, hardware: as given.
        parameters, trained: numbers of them.
        devices: how many devices are needed at least, fully sharded where more than one.
        micro_batch: rows that one device takes at a time.
        memory: peak of one device.
        fits: whether that is within the device.
        hours: low, middle and high; of all devices together at work, on the clock.
        usd: the same; None where there is no price for the hardware.
        energy: of the middle.
        tokens: trained on.
        checkpointing: of activations.
        basis: a sentence on how far to trust it.
    """

    strategy: str
    model: str
    hardware: str
    parameters: int
    trained: int
    devices: int
    micro_batch: int
    memory: Memory
    fits: bool
    hours: tuple[float, float, float]
    usd: tuple[float, float, float] | None
    energy: Energy
    tokens: float
    checkpointing: str
    basis: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": 1, **asdict(self)}


@dataclass(frozen=True)
class Device:
    """A device, what an hour of it costs, and how much of its modelled rate is reached.

    ``probed`` is true for this machine after ``taskfit doctor`` measured it.
    """

    accelerator: Accelerator
    price: Machine | None
    probed: bool = False

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the modelled rate: low, middle, high."""
        return _SHARE_PROBED if self.probed else _SHARE_REACHED


def find_device(hardware: str, prices: PriceTable | None = None) -> Device:
    """Return the device that a name means: an accelerator, a machine with a price, or ``this-machine``.

    Raises:
        ConfigError: none of them; this machine, and it has not been measured.
    """
    prices = prices or load_prices()
    if hardware in (DEFAULT_MACHINE, "this machine"):
        from taskfit.costs.probe import load_probe

        probe = load_probe()
        if probe is None:
            raise ConfigError("this machine has not been measured", "run `taskfit doctor` once; it takes 5 seconds")
        return Device(probe.as_accelerator(), prices.machines.get(DEFAULT_MACHINE), probed=True)
    machine = prices.machines.get(hardware)
    if machine is not None and not machine.gpu:
        core = accelerator("cpu-core")
        cores = max(1, machine.cores)
        rates = {name: rate * cores for name, rate in core.flops_per_s.items()}
        held = replace(core, key=hardware, name=hardware, memory_bytes=machine.memory_gb * 1e9, flops_per_s=rates)
        return Device(replace(held, bytes_per_s=core.bytes_per_s * min(cores, 16), watts=core.watts * cores), machine)
    found = find_accelerator(machine.gpu if machine is not None else hardware)
    if found is None:
        known = [*prices.machines, *_keys()]
        raise ConfigError(f"unknown hardware {hardware!r}{nearest(hardware, known)}; known are {', '.join(known)}")
    priced = machine or next((one for one in prices.machines.values() if find_accelerator(one.name) == found), None)
    return Device(found, priced)


def _keys() -> list[str]:
    from taskfit.costs.accelerator import accelerators

    return list(accelerators())


def read_strategy(text: str) -> tuple[str, dict[str, Any]]:
    """Return a strategy's name and settings: ``lora(rank=16, targets=qv)``.

    Raises:
        ConfigError: an unknown strategy or setting.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    name = match[1] if match else text
    if match is None or name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}; known are {', '.join(STRATEGIES)}")
    known = {one.name: str(one.type) for one in fields(Job) if one.name not in ("architecture", "teacher", "method")}
    settings: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in (match[2] or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if name == "few-shot" and key == "k":
            settings["k"] = _whole(key, value)
        elif key not in known:
            raise ConfigError(f"{name}: unknown setting {key!r}{nearest(key, known)}")
        else:
            settings[key] = _whole(key, value) if known[key] == "int" else value
    return name, settings


def _whole(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise ConfigError(f"{key} must be a whole number (got {value!r})") from error


def plan_job(
    architecture: Architecture, strategy: str, need: Need, device: Accelerator, *, number_format: str = ""
) -> Job:
    """Return the job of a strategy on a device: number format, kept activations and micro-batch as they fit.

    The format is bfloat16 where the device has it, else float16; float32 on processors. All weights are trained with
    float32 copies. Activations are kept where that fits, else computed again; the micro-batch is the largest that
    fits, and one row where nothing does.
    """
    name, settings = read_strategy(strategy)
    settings = {key: value for key, value in settings.items() if key != "k"}
    weights = number_format or _format_of(device)
    device.peak(weights)
    trained = "float32" if STRATEGIES[name]["method"] in ("full", "pretraining", "continued-pretraining") else ""
    chosen: dict[str, Any] = {"weights": weights, "trained_weights": trained, "profile": "taskfit"}
    is_plain_text = name in ("pretraining", "continued-pretraining")
    chosen["supervised"] = 1.0 if is_plain_text else min(1.0, need.answer / need.length)
    if name == "distillation":
        chosen |= {"teacher": architecture, "architecture": _student(architecture)}
    if name in ("zero-shot", "few-shot"):
        chosen["new_tokens"] = 0 if architecture.kind == "encoder" else need.answer
    chosen = {"architecture": architecture, "length": need.length, **STRATEGIES[name], **chosen, **settings}
    job = Job(**{"batch": 1, **chosen})
    return _fitted(job, need.batch, device.memory_bytes)


def _format_of(device: Accelerator) -> str:
    if device.key == "this-machine" or device.key.startswith("cpu"):
        return "float32"
    return "bfloat16" if "bfloat16" in device.flops_per_s else "float16"


def _student(teacher: Architecture) -> Architecture:
    """A student of a tenth of the teacher's parameters, where nothing else is said."""
    from taskfit.costs.catalogue import plain_size

    return plain_size(max(1e7, teacher.parameters.total / 10))


def _fitted(job: Job, batch: int, room: float) -> Job:
    """Choose devices, checkpointing and micro-batch."""
    for devices in _powers():
        sharded = replace(job, devices=devices, sharding="fsdp" if devices > 1 else job.sharding)
        for checkpointing in ("none", "full") if job.method != "prompting" else ("none",):
            tried = replace(sharded, checkpointing=checkpointing)
            most = fitting_batch(tried, room, most=max(1, batch // devices))
            if most:
                return replace(tried, batch=most)
    return replace(job, checkpointing="full" if job.method != "prompting" else "none")


def _powers() -> Iterator[int]:
    devices = 1
    while devices <= _MOST_DEVICES:
        yield devices
        devices *= 2


def fitting_batch(job: Job, room: float, *, most: int = 4096) -> int:
    """Return the largest micro-batch whose memory, as the system shows it, is within ``room`` bytes; 0: none."""
    if memory(replace(job, batch=1)).system > room:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if memory(replace(job, batch=middle)).system <= room else (low, middle - 1)
    return low


def estimate(
    model: str,
    strategy: str = "lora",
    *,
    hardware: str = "gpu-a100-80gb",
    need: Need | None = None,
    prices: Path | PriceTable | None = None,
    number_format: str = "",
    devices: int = 0,
    grid: str = "",
    grams_per_kwh: float | None = None,
) -> Estimate:
    """Estimate a strategy before it runs.

    Args:
        model: a well-known name, a plain size (``7B``), or a folder with a ``config.json``.
        strategy: a key of ``STRATEGIES``, with settings in brackets: ``lora(rank=16)``.
        hardware: an accelerator (``a100-80gb``), a machine of the price table (``gpu-l4``), or ``this-machine``.
        need: rows, lengths, epochs.
        prices: the user's price file, or a table that was read.
        number_format: of weights; chosen by the device where empty.
        devices: how many work at least; more where the memory needs it.
        grid: whose electricity, for the emissions.
        grams_per_kwh: the same as a figure of your own.

    >>> found = estimate("llama-3.1-8b", "qlora", hardware="gpu-l4", need=Need(rows=2000))
    >>> found.devices, found.fits
    (1, True)

    Raises:
        ConfigError, ModelError: something unknown, or a method that the architecture or device does not allow.
    """
    need = need or Need()
    table = prices if isinstance(prices, PriceTable) else load_prices(prices)
    device = find_device(hardware, table)
    architecture = find_architecture(model)
    job = plan_job(architecture, strategy, need, device.accelerator, number_format=number_format)
    tokens = _tokens(job, need)
    found = memory(job)
    working = max(devices, job.devices)
    hours = _hours(job, need, device, tokens, working)
    device_hours = tuple(one * working for one in hours)
    usd = None
    if device.price is not None:
        usd = tuple(one * device.price.price_usd_per_hour for one in device_hours)
    spent = energy(device_hours[1], device.accelerator.watts, grid=grid, grams_per_kwh=grams_per_kwh)
    return Estimate(
        strategy=strategy,
        model=model,
        hardware=hardware,
        parameters=job.architecture.parameters.total,
        trained=trainable_parameters(job),
        devices=working,
        micro_batch=job.batch,
        memory=found,
        fits=found.system <= device.accelerator.memory_bytes,
        hours=hours,
        usd=usd,  # type: ignore[arg-type]
        energy=spent,
        tokens=tokens,
        checkpointing=job.checkpointing,
        basis=_basis(device),
    )


def _basis(device: Device) -> str:
    how = "rates measured on this machine" if device.probed else "the device's peak rates and shares of them"
    return (
        f"memory within {MEMORY_SPREAD:.0%} for nine in ten published measurements; time from {how}: "
        f"between {1 / device.shares[2]:.1f} and {1 / device.shares[0]:.1f} times the ideal (docs/costs.md)"
    )


def _tokens(job: Job, need: Need) -> float:
    if job.method == "pretraining":
        return need.tokens or _PER_PARAMETER * float(job.architecture.active_parameters)
    if job.method == "continued-pretraining":
        return need.tokens or 1e9
    if job.method == "prompting":
        return 0.0
    return need.tokens or float(need.rows * need.epochs * need.length)


def _hours(job: Job, need: Need, device: Device, tokens: float, devices: int) -> tuple[float, float, float]:
    """Hours on the clock to train on so many tokens, on so many devices; 0 for what only asks."""
    if tokens == 0:
        return (0.0, 0.0, 0.0)
    step = training_step(job, device.accelerator)
    accumulation = max(1.0, need.batch / (job.batch * devices))
    seconds = tokens / (step.tokens_per_s(accumulation) * devices)
    if job.teacher is not None and job.method == "distillation":
        reading = 2.0 * job.teacher.active_parameters * tokens / devices
        seconds += reading / (device.accelerator.peak(job.weights) * 0.6)
    low, middle, high = device.shares
    return (seconds / high / 3600, seconds / middle / 3600, seconds / low / 3600)


@dataclass(frozen=True)
class Serving:
    """What answering costs.

    Attributes:
        strategy: as given.
        prompt: tokens of a prompt, worked examples included.
        shared: of them, the same for all rows.
        batch: rows at once.
        s_per_million, usd_per_million: of a million rows, each prompt read whole.
        s_per_million_shared, usd_per_million_shared: the shared beginning read once.
    """

    strategy: str
    prompt: int
    shared: int
    batch: int
    s_per_million: float
    usd_per_million: float | None
    s_per_million_shared: float
    usd_per_million_shared: float | None


def serving(
    model: str,
    strategy: str = "zero-shot",
    *,
    hardware: str = "gpu-a100-80gb",
    need: Need | None = None,
    instruction: int = 60,
    prices: Path | PriceTable | None = None,
    batch: int = 64,
) -> Serving:
    """Estimate what a million rows cost to answer, with and without sharing the beginning of their prompts.

    Args:
        model: as in ``estimate``.
        strategy: what is asked with; ``few-shot(k=8)`` brings eight worked examples of a row's length each.
        hardware: as in ``estimate``.
        need: ``length`` is a row's question with its answer, ``answer`` what is generated.
        instruction: tokens before the question that all rows share.
        prices: as in ``estimate``.
        batch: rows at once, fewer where they do not fit.

    Raises:
        ConfigError, ModelError: as in ``estimate``.
    """
    need = need or Need()
    table = prices if isinstance(prices, PriceTable) else load_prices(prices)
    device, architecture = find_device(hardware, table), find_architecture(model)
    name, settings = read_strategy(strategy)
    shots = int(settings.get("k", 4)) if name == "few-shot" else 0
    question = max(1, need.length - need.answer)
    is_adapted = STRATEGIES[name]["method"] != "prompting"
    shared = (0 if is_adapted else instruction) + shots * need.length
    if STRATEGIES[name]["method"] == "soft-prompt":
        shared += int(settings.get("virtual_tokens", 20))
    written = 0 if architecture.kind == "encoder" else need.answer
    quantised = str(STRATEGIES[name].get("quantised", ""))
    job = Job(
        architecture,
        "prompting",
        length=question + shared,
        new_tokens=written,
        weights=_format_of(device.accelerator),
        quantised=quantised,
    )
    rows = fitting_batch(job, device.accelerator.memory_bytes, most=batch)
    if not rows:
        raise ConfigError(
            f"{model} does not fit {device.accelerator.name} with prompts of {job.length} tokens",
            "choose larger hardware, a smaller model, or fewer worked examples",
        )
    job = replace(job, batch=rows)
    full = decoding(job, device.accelerator)
    own = decoding(replace(job, length=question), device.accelerator)
    million = [1e6 / rows * (part.prefill_s + full.token_s * written) / device.shares[1] for part in (full, own)]
    hourly = device.price.price_usd_per_hour if device.price else None
    usd = [None if hourly is None else one / 3600 * hourly for one in million]
    return Serving(strategy, job.length, shared, rows, million[0], usd[0], million[1], usd[1])


def fitting_methods(
    architecture: Architecture, need: Need, device: Accelerator, room: float
) -> list[tuple[str, int, float]]:
    """Return the trained strategies that fit one device with ``room`` bytes: name, micro-batch, FLOP-like cost.

    Sorted by the seconds that the training would take, the cheapest first.
    """
    held, found = replace(device, memory_bytes=room), []
    for name in STRATEGIES:
        if name in ("zero-shot", "few-shot", "pretraining", "distillation"):
            continue
        try:
            job = plan_job(architecture, name, need, held)
        except ConfigError:
            continue  # the architecture does not allow it
        if job.devices == 1 and memory(job).system <= room:
            seconds = _tokens(job, need) / training_step(job, device).tokens_per_s(max(1.0, need.batch / job.batch))
            found.append((name, job.batch, seconds))
    return sorted(found, key=lambda one: one[2])


def fitting_models(strategy: str, need: Need, device: Accelerator, room: float) -> list[tuple[str, int]]:
    """Return the well-known models that fit one device of ``room`` bytes with a strategy, the largest first."""
    held, found = replace(device, memory_bytes=room), []
    for name in catalogue():
        architecture = find_architecture(name)
        try:
            job = plan_job(architecture, strategy, need, held)
        except (ConfigError, ModelError):
            continue
        if job.devices == 1 and memory(job).system <= room:
            found.append((name, architecture.parameters.total))
    return sorted(found, key=lambda one: -one[1])
