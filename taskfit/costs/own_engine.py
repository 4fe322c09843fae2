"""What this package's own engine takes: the constants of its training loop and of its scoring, in one place.

A phase of a trial is put down as amounts (operations, bytes moved, layers started, rows handled); its seconds are
the amounts divided by the machine's measured rates, each times a constant. Change the engine, then fit the constants
again: ``python benchmarks/cost.py --fit`` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.costs.accelerator import Accelerator

__all__ = ["ENGINE", "MEMORY", "Amounts", "EngineConstants", "EngineMemory", "seconds", "terms"]


@dataclass(frozen=True)
class EngineConstants:
    """By how much each ideal time is exceeded, and what stands in no roofline.

    Attributes:
        matrix: seconds of matrix products, for each second at the measured rate.
        traffic: the same of what is kept, written and read beside them.
        layer: seconds of starting one layer's kernels once, for each measured second of starting one small kernel.
        optimiser: seconds of the optimiser's traffic, for each second at the measured bandwidth.
        allocate: the same of what a training makes and saves once (states, copies), page by page.
        row_s: seconds of Python for each row that is encoded, asked and read.
        start_s: seconds of what happens once: first batches, checks of the model.
    """

    matrix: float
    traffic: float
    layer: float
    optimiser: float
    allocate: float
    row_s: float
    start_s: float


ENGINE = EngineConstants(matrix=1.05, traffic=10.2, layer=349, optimiser=1, allocate=5.04, row_s=0.000591, start_s=0.0)


@dataclass(frozen=True)
class EngineMemory:
    """What a trial's process holds beside what the model of memory counts.

    Attributes:
        process_bytes: Python, torch and transformers, and what the first pass through a model loads.
        copies: of what is trained: one for a second try with smaller micro-batches, one of the best weights so far.
        padding: tokens of the largest micro-batch for each real one of a mean one.
        slack: resident bytes for each kept one, by method; ``""`` for all others. On a processor the system's
            allocator keeps blocks between those of low-rank updates that later ones do not fill (with each block
            mapped for itself the factor is 1.2, and a step takes a sixth longer).
        packed: the same, by method, where the trainer computes rows without padding in layers of its own.
        packed_families: model types whose decoders it does that for (``tuning.packed.LAYER_KINDS``).
        laid_out_bytes: most that it holds of frozen weights laid out once more for each direction
            (``tuning.projection.MOST_BYTES``).
    """

    process_bytes: float
    copies: int
    padding: float
    slack: Mapping[str, float]
    packed: Mapping[str, float]
    packed_families: frozenset[str]
    laid_out_bytes: float

    def slack_of(self, family: str, method: str) -> float:
        """Return the resident bytes for each kept one."""
        if family in self.packed_families and method in self.packed:
            return self.packed[method]
        return self.slack.get(method, self.slack[""])

    def laid_out(self, family: str, method: str, weight_bytes: float) -> float:
        """Return the bytes of frozen weights laid out for the processor."""
        is_laid_out = family in self.packed_families and method == "lora"
        return min(self.laid_out_bytes, 2 * weight_bytes) if is_laid_out else 0.0


MEMORY = EngineMemory(
    process_bytes=530e6,
    copies=2,
    padding=1.2,
    slack={"lora": 1.95, "dora": 1.5, "full": 1.2, "": 1.05},
    packed={"lora": 0.7, "full": 0.9},
    packed_families=frozenset({"gemma", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"}),
    laid_out_bytes=2 * 2**30,
)


@dataclass(frozen=True)
class Amounts:
    """What one phase asks of a machine.

    Attributes:
        flops: operations of matrix products.
        traffic_bytes: written and read by everything between the products.
        layer_calls: layers started, forward; a backward pass counts as two.
        optimiser_bytes: read and written by the optimiser.
        allocated_bytes: made once.
        rows: encoded, asked and read.
        starts: 1 where a model is used for the first time.
    """

    flops: float = 0.0
    traffic_bytes: float = 0.0
    layer_calls: float = 0.0
    optimiser_bytes: float = 0.0
    allocated_bytes: float = 0.0
    rows: float = 0.0
    starts: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        """Return the sum, field by field."""
        return Amounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def terms(amounts: Amounts, device: Accelerator, number_format: str) -> tuple[float, ...]:
    """Return ideal seconds in the order of ``EngineConstants``; their product with the constants is the forecast.

    Raises:
        ConfigError: the device lacks the number format.
    """
    return (
        amounts.flops / device.peak(number_format),
        amounts.traffic_bytes / device.bytes_per_s,
        amounts.layer_calls * device.launch_s,
        amounts.optimiser_bytes / device.bytes_per_s,
        amounts.allocated_bytes / device.bytes_per_s,
        amounts.rows,
        amounts.starts,
    )


def seconds(amounts: Amounts, device: Accelerator, number_format: str, constants: EngineConstants = ENGINE) -> float:
    """Return the seconds that a phase takes on a device."""
    weights = [float(getattr(constants, one.name)) for one in fields(constants)]
    parts = zip(weights, terms(amounts, device, number_format), strict=True)
    return sum(weight * term for weight, term in parts)
