"""Where a tuned model differs from its base: share and norm of the change, tensor by tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["BlockChange", "Change", "by_block", "changes"]


@dataclass(frozen=True)
class Change:
    """One tensor of the base.

    Attributes:
        name: its full name.
        values: how many it has.
        changed: how many differ.
        norm: length of the difference.
        base_norm: length of what was there.
    """

    name: str
    values: int
    changed: int
    norm: float
    base_norm: float


@dataclass(frozen=True)
class BlockChange:
    """All tensors of one block, or of a part outside the blocks; as in :class:`Change`."""

    block: str
    values: int
    changed: int
    norm: float
    base_norm: float

    @property
    def relative(self) -> float:
        """Length of the change over that of what was there; 0 where nothing was."""
        return self.norm / self.base_norm if self.base_norm else 0.0


def changes(base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor]) -> list[Change]:
    """Return the change of every tensor, in the base's order; what both share under two names counts once.

    Args:
        base: name to tensor.
        tuned: the same names, and perhaps others.
    """
    found = []
    seen: set[tuple[int, int]] = set()
    for name, before in base.items():
        after = tuned[name]
        place = (before.data_ptr(), after.data_ptr())
        if place in seen or not before.is_floating_point():
            continue
        seen.add(place)
        one, other = before.detach().cpu().double(), after.detach().cpu().double()
        gap = other - one
        found.append(Change(name, one.numel(), int((gap != 0).sum()), float(gap.norm()), float(one.norm())))
    return found


def by_block(found: Iterable[Change]) -> list[BlockChange]:
    """Return the changes added up over blocks, in the order in which the blocks come."""
    groups: dict[str, list[Change]] = {}
    for one in found:
        groups.setdefault(_block_of(one.name), []).append(one)
    return [_sum(block, members) for block, members in groups.items()]


def _sum(block: str, members: Sequence[Change]) -> BlockChange:
    def length(norms: Iterable[float]) -> float:
        return math.hypot(*norms)

    return BlockChange(
        block,
        sum(one.values for one in members),
        sum(one.changed for one in members),
        length(one.norm for one in members),
        length(one.base_norm for one in members),
    )


def _block_of(name: str) -> str:
    """The name as far as its first number; outside the blocks, without its last part."""
    match = re.match(r"(.*?\.\d+)\.", name)
    return match[1] if match else name.rpartition(".")[0] or name
