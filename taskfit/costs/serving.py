"""What answering costs: a million rows, with and without sharing the beginning of their prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from taskfit.costs.catalogue import find_architecture
from taskfit.costs.device import find_device
from taskfit.costs.duration import decoding
from taskfit.costs.job import Job
from taskfit.costs.need import Need
from taskfit.costs.prices import PriceTable, load_prices
from taskfit.costs.strategies import SHOTS, STRATEGIES, fitting_batch, format_of, read_strategy
from taskfit.errors import ConfigError

__all__ = ["Serving", "serving"]


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
    shots = int(settings.get("k", SHOTS)) if name == "few-shot" else 0
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
        weights=format_of(device.accelerator),
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
