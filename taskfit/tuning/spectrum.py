"""Singular values of low-rank updates: is the chosen rank used?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

__all__ = ["Spectrum", "effective_rank", "rank_for", "spectra"]

_ADAPTER = "default"


@dataclass(frozen=True)
class Spectrum:
    """The update of one layer.

    Attributes:
        layer: its full name.
        rank: the most directions that the update can have.
        values: singular values of what is added to the weights, the largest first, ``rank`` of them.
        effective: see :func:`effective_rank`.
        for_90_percent: directions that hold 90 % of the squared norm.
    """

    layer: str
    rank: int
    values: tuple[float, ...]
    effective: float
    for_90_percent: int


def effective_rank(values: Sequence[float]) -> float:
    """Return how many directions are used: the exponential of the entropy of the singular values' shares.

    Between 1 (one direction) and the number of values (all alike); 0 where all are 0.

    Source: Roy and Vetterli 2007, "The effective rank", section 3.
    """
    total = math.fsum(values)
    shares = [value / total for value in values if value > 0] if total > 0 else []
    return math.exp(-math.fsum(share * math.log(share) for share in shares)) if shares else 0.0


def rank_for(values: Sequence[float], share: float) -> int:
    """Return how many of the largest values hold this share of the sum of squares; 0 where all are 0."""
    total, held = math.fsum(value**2 for value in values), 0.0
    if total == 0:
        return 0
    for count, value in enumerate(sorted(values, reverse=True), start=1):
        held += value**2
        if held >= share * total * (1 - 1e-12):
            return count
    return len(values)


def spectra(module: torch.nn.Module) -> list[Spectrum]:
    """Return the spectrum of every low-rank update in a wrapped module, in the module's order; none: it has no such."""
    return [_spectrum(name, layer) for name, layer in _updated(module)]


def _updated(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in module.named_modules():
        if hasattr(layer, "get_delta_weight") and _ADAPTER in getattr(layer, "r", {}):
            yield name.removeprefix("base_model.model."), layer


def _spectrum(name: str, layer: Any) -> Spectrum:
    import torch

    rank = int(layer.r[_ADAPTER])
    with torch.no_grad():
        found = _of_factors(layer) if _has_factors(layer) else _of_matrix(layer.get_delta_weight(_ADAPTER))
    values = tuple([float(value) for value in found.tolist()][:rank])
    return Spectrum(name, rank, values, effective_rank(values), rank_for(values, 0.9))


def _has_factors(layer: Any) -> bool:
    """Whether the update is a product of two linear layers and a scale, and nothing else."""
    import torch

    factors = getattr(layer, "lora_A", {})
    return _ADAPTER in factors and isinstance(factors[_ADAPTER], torch.nn.Linear)


def _of_factors(layer: Any) -> torch.Tensor:
    """Singular values of B A times the scale, without ever holding the product."""
    import torch

    a = layer.lora_A[_ADAPTER].weight.double()  # (rank, inputs)
    b = layer.lora_B[_ADAPTER].weight.double()  # (outputs, rank)
    core = torch.linalg.qr(b).R @ torch.linalg.qr(a.T).R.T
    return cast("torch.Tensor", torch.linalg.svdvals(core * float(layer.scaling[_ADAPTER])))


def _of_matrix(delta: torch.Tensor) -> torch.Tensor:
    import torch

    return cast("torch.Tensor", torch.linalg.svdvals(delta.double()))
