"""Where the keys and values of running answers lie: banks of slots, each slot one answer from its first token on.

A slot is filled from the left, so a token's place in it says its position, and nothing is ever shifted. A row writes
its new keys in place; no step copies a cache. When an answer ends, the next one takes its slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from taskfit.inference.trie import Ids

__all__ = ["WORTH_COPYING", "Bank", "common_start", "plan_bank"]

WORTH_COPYING = 16
"""Fewest tokens of a common beginning for which keys and values are copied or shared instead of computed again."""


@dataclass
class Bank:
    """Slots of one length, side by side in one tensor a layer.

    Attributes:
        slots: how many.
        capacity: tokens of each.
        tokens: what each slot holds, as far as it has been computed. It stays when an answer ends, until another
            takes the slot: what begins alike is copied.
        taken: slots whose answers are not finished.
        layers: for each layer keys and values of shape (slots, capacity, heads, head_dim), made when first written.
    """

    slots: int
    capacity: int
    tokens: list[list[int]] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in range(self.slots)]

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write new keys and values of a layer.

        Args:
            layer: its number.
            places: shape (tokens,): slot times capacity plus position.
            keys: shape (tokens, heads, head_dim).
            values: like the keys.
        """
        for store, states in zip(self._stores(layer, keys, values), (keys, values), strict=True):
            store.view(-1, *states.shape[1:]).index_copy_(0, places, states)

    def read(self, layer: int, slots: slice | Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of some slots, shape (slots, heads, length, head_dim); no copy for a slice."""
        keys, values = self.layers[layer]
        return keys[slots, :length].transpose(1, 2), values[slots, :length].transpose(1, 2)

    def copy(self, slot: int, source: Bank, number: int, length: int) -> None:
        """Fill a slot with the first tokens of a slot of this or another bank."""
        self.tokens[slot] = source.tokens[number][:length]
        if source is self and number == slot:
            return
        for layer, (keys, values) in source.layers.items():
            for store, states in zip(self._stores(layer, keys, values), (keys, values), strict=True):
                store[slot, :length] = states[number, :length]

    def _stores(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tensors of a layer; new ones are zeros, for what is masked must be finite all the same."""
        if layer not in self.layers:
            size = (self.slots, self.capacity)
            self.layers[layer] = (
                keys.new_zeros(*size, *keys.shape[-2:]),
                values.new_zeros(*size, *values.shape[-2:]),
            )
        return self.layers[layer]


def plan_bank(needs: Sequence[int], free_tokens: int, free_rows: int) -> tuple[int, int]:
    """Return slots and capacity of the next bank; no slots when not even one fits.

    The bank is as long as the longest row that waits. Only rows at least half as long count for its width, so that no
    more than half of it lies idle behind a single long row.

    Args:
        needs: tokens that each waiting row needs, the longest first.
        free_tokens: what the banks together may still take.
        free_rows: how many more rows may run.
    """
    capacity = needs[0]
    like = sum(1 for need in needs if 2 * need >= capacity)
    return max(min(like, free_rows, free_tokens // capacity), 0), capacity


def common_start(one: Ids | list[int], other: Ids | list[int]) -> int:
    """Return how many first tokens are the same; both are of one type."""
    high = min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    low = 0  # one[:low] is the same, one[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
