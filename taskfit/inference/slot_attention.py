"""Attention of many answers at different places, in one pass without padding.

The tokens of a pass lie one behind the other in a single sequence: one of each answer that is being written, and the
prompts, or parts of them, of those that begin. So every layer works on real tokens only, and a prompt is read beside
the answers instead of holding them up. Only attention knows which token belongs to which slot (see ``slots.py``).

A beginning that all prompts share is kept once and attended to in one product of matrices; it is merged with what a
row sees in its own slot by the logarithms of the sums of exponentials, which is exact.

It is given to transformers as an attention function, so it serves every architecture that uses that interface and
takes positions, with grouped keys, sliding windows (each layer its own) and capped scores.

Sources: Yu et al. 2022 (Orca), section 4 (a batch anew for each step, attention apart from the rest); Juravsky et
al. 2024 (Hydragen), section 3 (shared beginnings); Dao et al. 2022 (FlashAttention), section 3.1 (the merge).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from taskfit.inference.forward import forward, long_tensor
from taskfit.inference.own_attention import How, attend, attending_by, bias_of
from taskfit.inference.slots import Bank

__all__ = ["Group", "Part", "SlotPass", "attending_to_slots", "plan_pass", "run_pass"]

_NAME = "taskfit_slots"
_MOST_PADDING = 1.25  # of the queries in a group, before a new group begins

_current: ContextVar[SlotPass] = ContextVar("taskfit_slot_pass")


@dataclass(frozen=True)
class Part:
    """Tokens of one row that are read in a pass: they follow what its slot already holds."""

    bank: Bank
    slot: int
    tokens: Sequence[int]

    @property
    def start(self) -> int:
        """How many tokens are in the slot before these."""
        return len(self.bank.tokens[self.slot])


@dataclass(frozen=True)
class Group:
    """Slots of one bank whose queries are side by side.

    Attributes:
        bank: where the slots are.
        slots: which.
        length: tokens of the longest, the new ones included.
        where: shape (slots, queries): place in the slot of each query; padding has 0, where something always is.
        places: shape (slots x queries,): which token of the pass each query is; padding has any.
        real: those of ``places`` that are no padding, by number; None: all.
    """

    bank: Bank
    slots: slice | Tensor
    length: int
    where: Tensor
    places: Tensor
    real: Tensor | None


@dataclass
class SlotPass:
    """One pass through the model.

    Attributes:
        ids, positions: shape (1, tokens).
        last: shape (parts,): place of each part's last token.
        pairs: keys that the tokens attend to, summed.
        writes: for each bank: the tokens of the pass that go into it, and where (as :meth:`Bank.write` takes it).
        groups: who attends to what.
        shared: the beginning that all rows share: a bank of one slot; None: there is none.
        biases: of each group and window, for all layers alike.
    """

    ids: Tensor
    positions: Tensor
    last: Tensor
    pairs: int
    writes: list[tuple[Bank, Tensor, Tensor]]
    groups: list[Group]
    shared: Bank | None
    biases: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def run_layer(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, how: How) -> Tensor:
        """Write keys and values of a layer, and attend.

        Args:
            layer: its number.
            queries: shape (tokens, heads, head_dim).
            keys: shape (tokens, heads of keys, head_dim).
            values: like the keys.
            how: scale, window and cap.

        Returns:
            shape (tokens, heads, head_dim)
        """
        for bank, tokens, places in self.writes:
            bank.write(layer, places, keys[tokens], values[tokens])
        output = torch.empty_like(queries)
        sums = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
        for number, group in enumerate(self.groups):
            own_keys, own_values = group.bank.read(layer, group.slots, group.length)
            folded = _fold(queries[group.places], group.where.shape, own_keys.shape[1])
            bias = self._bias(number, queries.dtype, how.window, folded.shape[2] // group.where.shape[1])
            places = group.places if group.real is None else group.places[group.real]
            if self.shared is None and how.cap is None:  # no sums are needed: the fused kernel of any device
                found = scaled_dot_product_attention(folded, own_keys, own_values, attn_mask=bias, scale=how.scale)
            else:
                found, found_sums = attend(folded, own_keys, own_values, bias, how)
                sums[places] = _real(_unfold(found_sums, group.where), group.real)
            output[places] = _real(_unfold(found, group.where), group.real)
        if self.shared is not None:
            self._add_shared(layer, queries, output, sums, how)
        return output

    def _bias(self, number: int, dtype: torch.dtype, window: int, folds: int) -> Tensor:
        """Return 0 where a query sees a key, else minus infinity: shape (slots, 1, folds x queries, length)."""
        group = self.groups[number]
        window = window if window < group.length else 0
        if (number, window) not in self.biases:
            keys = torch.arange(group.length, device=group.where.device)
            sees = keys <= group.where[..., None]
            if window:
                sees &= group.where[..., None] - keys < window
            self.biases[number, window] = bias_of(sees, dtype).repeat(1, folds, 1)[:, None]
        return self.biases[number, window]

    def _add_shared(self, layer: int, queries: Tensor, output: Tensor, sums: Tensor, how: How) -> None:
        """Merge into the output what all tokens see of the shared beginning; changes output in place."""
        assert self.shared is not None
        keys, values = self.shared.read(layer, slice(0, 1), self.shared.capacity)
        one = torch.Size((1, len(queries)))
        found, found_sums = attend(_fold(queries, one, keys.shape[1]), keys, values, None, how)
        weight = torch.sigmoid(_unfold(found_sums, one) - sums)[..., None].to(output.dtype)
        output.lerp_(_unfold(found, one), weight)


def plan_pass(parts: Sequence[Part], shared: Bank | None, device: torch.device) -> SlotPass:
    """Put parts into one sequence; what they hold counts as read from now on."""
    before = shared.capacity if shared else 0
    ids: list[int] = []
    wheres: list[int] = []
    offsets: list[int] = []
    targets: dict[int, tuple[Bank, list[int], list[int]]] = {}
    for part in parts:
        offsets.append(len(ids))
        _, tokens, places = targets.setdefault(id(part.bank), (part.bank, [], []))
        tokens += range(len(ids), len(ids) + len(part.tokens))
        first = part.slot * part.bank.capacity + part.start
        places += range(first, first + len(part.tokens))
        wheres += range(part.start, part.start + len(part.tokens))
        ids += part.tokens
    found = SlotPass(
        ids=long_tensor([ids], device),
        positions=long_tensor([wheres], device) + before,
        last=long_tensor([offset + len(part.tokens) - 1 for offset, part in zip(offsets, parts, strict=True)], device),
        pairs=sum(wheres) + len(wheres) * (before + 1),
        writes=[
            (bank, long_tensor(tokens, device), long_tensor(places, device))
            for bank, tokens, places in targets.values()
        ],
        groups=[_group(parts, offsets, numbers, device) for numbers in _alike(parts)],
        shared=shared,
    )
    for part in parts:
        part.bank.tokens[part.slot].extend(part.tokens)
    return found


def _alike(parts: Sequence[Part]) -> Iterator[list[int]]:
    """Yield numbers of parts of one bank and about one length, in the order of their slots where that is one."""
    banks = {id(part.bank): part.bank for part in parts}
    for bank in banks.values():
        inside = [number for number, part in enumerate(parts) if part.bank is bank]
        inside.sort(key=lambda number: (-len(parts[number].tokens), parts[number].slot))
        group: list[int] = []
        real = 0
        for number in inside:
            size = len(parts[number].tokens)
            if group and (len(group) + 1) * len(parts[group[0]].tokens) > _MOST_PADDING * (real + size):
                yield group
                group, real = [], 0
            group.append(number)
            real += size
        yield group


def _group(parts: Sequence[Part], offsets: Sequence[int], numbers: Sequence[int], device: torch.device) -> Group:
    chosen = [parts[number] for number in numbers]
    queries = max(len(part.tokens) for part in chosen)
    first, last = chosen[0].slot, chosen[-1].slot
    if queries == 1 and 2 * len(chosen) >= last + 1 - first:  # a slice, idle slots and all, is read without a copy
        return _slice_of_bank(chosen, [offsets[number] for number in numbers], device)
    where = [[*range(part.start, part.start + len(part.tokens))] for part in chosen]
    places = [[*range(offsets[n], offsets[n] + len(parts[n].tokens))] for n in numbers]
    real = [row * queries + column for row, inner in enumerate(where) for column in range(len(inner))]
    pads = [queries - len(inner) for inner in where]
    return Group(
        bank=chosen[0].bank,
        slots=long_tensor([part.slot for part in chosen], device),
        length=max(part.start + len(part.tokens) for part in chosen),
        where=long_tensor([inner + [0] * pad for inner, pad in zip(where, pads, strict=True)], device),
        places=long_tensor([inner + [0] * pad for inner, pad in zip(places, pads, strict=True)], device).flatten(),
        real=long_tensor(real, device) if any(pads) else None,
    )


def _slice_of_bank(chosen: Sequence[Part], offsets: Sequence[int], device: torch.device) -> Group:
    """Return the group of parts of one token each, in the order of their slots."""
    first, last = chosen[0].slot, chosen[-1].slot
    where, places = [0] * (last + 1 - first), [0] * (last + 1 - first)
    for part, offset in zip(chosen, offsets, strict=True):
        where[part.slot - first], places[part.slot - first] = part.start, offset
    real = [part.slot - first for part in chosen]
    return Group(
        bank=chosen[0].bank,
        slots=slice(first, last + 1),
        length=max(part.start for part in chosen) + 1,
        where=long_tensor(where, device)[:, None],
        places=long_tensor(places, device),
        real=long_tensor(real, device) if len(real) < len(where) else None,
    )


def run_pass(module: Any, planned: SlotPass, parts: Sequence[int]) -> Tensor:
    """Run a pass and return logits behind the last token of some parts (by number), shape (parts, vocabulary).

    The model must be :func:`attending_to_slots`.
    """
    columns = planned.last[long_tensor(parts, planned.last.device)]
    inputs = {"input_ids": planned.ids, "position_ids": planned.positions}
    token = _current.set(planned)
    try:
        logits, _ = forward(module, torch.zeros_like(columns), columns, **inputs, use_cache=False)
    finally:
        _current.reset(token)
    return logits


def attending_to_slots(module: Any) -> AbstractContextManager[None]:
    """Give a model this attention, and its own back; every pass goes through :func:`run_pass` meanwhile."""
    return attending_by(module, _NAME, _attention)


def _attention(module: torch.nn.Module, queries: Tensor, keys: Tensor, values: Tensor, how: How) -> Tensor:
    """Attend in one layer; the shapes are those of :data:`taskfit.inference.own_attention.Inner`."""
    queries, keys, values = (states.transpose(0, 1) for states in (queries, keys, values))
    return _current.get().run_layer(int(module.layer_idx), queries, keys, values, how)  # type: ignore[arg-type]


def _fold(queries: Tensor, size: Sequence[int], key_heads: int) -> Tensor:
    """Turn (rows x queries, heads, head_dim) into (rows, heads of keys, folds x queries, head_dim)."""
    heads, width = queries.shape[1:]
    parted = queries.view(size[0], size[1], key_heads, heads // key_heads, width)
    return parted.permute(0, 2, 3, 1, 4).reshape(size[0], key_heads, -1, width)


def _unfold(found: Tensor, where: Tensor | torch.Size) -> Tensor:
    """Undo :func:`_fold`, with or without head_dim behind."""
    rows, queries = where if isinstance(where, torch.Size) else where.shape
    parted = found.view(rows, found.shape[1], -1, queries, *found.shape[3:])
    return parted.movedim(3, 1).reshape(rows * queries, -1, *found.shape[3:])


def _real(found: Tensor, real: Tensor | None) -> Tensor:
    return found if real is None else found[real]
