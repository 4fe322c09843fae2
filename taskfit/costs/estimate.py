"""What a strategy will take on a device, before it runs: memory, hours, money, energy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskfit.costs.catalogue import find_architecture
from taskfit.costs.device import Device, find_device
from taskfit.costs.duration import training_step
from taskfit.costs.energy import Energy, energy
from taskfit.costs.job import Job, trainable_parameters
from taskfit.costs.memory import Memory, memory
from taskfit.costs.need import Need
from taskfit.costs.prices import PriceTable, label_price, load_prices
from taskfit.costs.strategies import SHOTS, plan_job, read_strategy

__all__ = ["Estimate", "estimate", "trained_tokens"]

MEMORY_SPREAD = 0.13
"""Nine in ten published measurements lie within this share of the estimate (benchmarks/estimator.py)."""

_PER_PARAMETER = 20  # tokens of a compute-optimal pre-training (Hoffmann et al. 2022, table 3)


@dataclass(frozen=True)
class Estimate:
    """What a strategy will take.

    Attributes:
        strategy, model, hardware: as given.
        parameters, trained: numbers of them.
        devices: how many devices work.
        sharding: how they share the states: ``none``, ``ddp``, ``zero1``, ``zero2`` or ``fsdp``.
        micro_batch: rows that one device takes at a time.
        memory: peak of one device.
        fits: whether that is within the device.
        hours: low, middle and high; of all devices together at work, on the clock.
        usd: the same; None where there is no price for the hardware.
        energy: of the middle.
        tokens: trained on.
        labels: rows that people must have answered: those trained on, or shown.
        usd_labels: what they cost.
        checkpointing: of activations.
        basis: a sentence on how far to trust it.
    """

    strategy: str
    model: str
    hardware: str
    parameters: int
    trained: int
    devices: int
    sharding: str
    micro_batch: int
    memory: Memory
    fits: bool
    hours: tuple[float, float, float]
    usd: tuple[float, float, float] | None
    energy: Energy
    tokens: float
    labels: int
    usd_labels: float
    checkpointing: str
    basis: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": 1, **asdict(self)}


def estimate(
    model: str,
    strategy: str = "lora",
    *,
    hardware: str = "gpu-a100-80gb",
    need: Need | None = None,
    prices: Path | PriceTable | None = None,
    number_format: str = "",
    devices: int = 0,
    sharding: str = "",
    labels: str = "",
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
        sharding: ``ddp``, ``zero1``, ``zero2`` or ``fsdp``; empty: the least that fits.
        labels: whose price a label has (``crowd``, ``expert``, or the user's own); empty: labels cost nothing.
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
    job = plan_job(
        architecture,
        strategy,
        need,
        device.accelerator,
        number_format=number_format,
        devices=devices,
        sharding=sharding,
    )
    tokens = trained_tokens(job, need)
    found = memory(job)
    hours = _hours(job, need, device, tokens)
    device_hours = tuple(one * job.devices for one in hours)
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
        devices=job.devices,
        sharding=job.sharding,
        micro_batch=job.batch,
        memory=found,
        fits=found.system <= device.accelerator.memory_bytes,
        hours=hours,
        usd=usd,  # type: ignore[arg-type]
        energy=spent,
        tokens=tokens,
        labels=_labels(strategy, need),
        usd_labels=_labels(strategy, need) * label_price(table, labels).usd_per_label if labels else 0.0,
        checkpointing=job.checkpointing,
        basis=_basis(device),
    )


def _basis(device: Device) -> str:
    how = "rates measured on this machine" if device.probed else "the device's peak rates and shares of them"
    return (
        f"memory within {MEMORY_SPREAD:.0%} for nine in ten published measurements; time from {how}: "
        f"between {1 / device.shares[2]:.1f} and {1 / device.shares[0]:.1f} times the ideal (docs/costs.md)"
    )


def trained_tokens(job: Job, need: Need) -> float:
    """Return the tokens that a job trains on; 0 where nothing is trained."""
    if job.method == "pretraining":
        return need.tokens or _PER_PARAMETER * float(job.architecture.active_parameters)
    if job.method == "continued-pretraining":
        return need.tokens or 1e9
    if job.method == "prompting":
        return 0.0
    return need.tokens or float(need.rows * need.epochs * need.length)


def _labels(strategy: str, need: Need) -> int:
    """Rows that need a person's answer; a student learns from its teacher's, plain text from itself."""
    name, settings = read_strategy(strategy)
    if name == "few-shot":
        return int(settings.get("k", SHOTS))
    return 0 if name in ("zero-shot", "pretraining", "continued-pretraining", "distillation") else need.rows


def _hours(job: Job, need: Need, device: Device, tokens: float) -> tuple[float, float, float]:
    """Hours on the clock to train on so many tokens; 0 for what only asks."""
    if tokens == 0:
        return (0.0, 0.0, 0.0)
    step, devices = training_step(job, device.accelerator), job.devices
    accumulation = max(1.0, need.batch / (job.batch * devices))
    seconds = tokens / (step.tokens_per_s(accumulation) * devices)
    if job.teacher is not None and job.method == "distillation":
        reading = 2.0 * job.teacher.active_parameters * tokens / devices
        seconds += reading / (device.accelerator.peak(job.weights) * 0.6)
    low, middle, high = device.shares
    return (seconds / high / 3600, seconds / middle / 3600, seconds / low / 3600)
