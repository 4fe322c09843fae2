"""Continuous batching: an answer that ends leaves at once, and a waiting one takes its place.

Every step is one pass over one new token of each running answer and over what must be read of the prompts of those
that begin. The longest answers begin first, so that none is left alone at the end. A prompt that begins like one whose
keys and values still lie in a slot (worked examples, the same prompt asked several times) copies them; what all
prompts begin with is kept once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskfit.inference.answers import Answer, add_tokens, room
from taskfit.inference.batches import in_halves
from taskfit.inference.forward import forward, long_tensor, vocabulary_size
from taskfit.inference.slot_attention import Part, attending_to_slots, plan_pass, run_pass
from taskfit.inference.slots import WORTH_COPYING, Bank, common_start, plan_bank
from taskfit.inference.trie import shared_prefix
from taskfit.models.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from taskfit.inference.requests import Generate, Generated
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["generate_continuously", "slot_bytes", "tokens_to_keep"]

_LOOKED_AT = 64  # waiting rows that are looked at in a step, besides those that enter
_READ_SHARE = 16  # of the tokens that are kept, one in so many is read of prompts in a step
_MOST_PAIRS = 1 << 23  # pairs of a token read and one it sees: what a mask holds
_ALWAYS_ALLOWED = 1 << 30  # bytes
_MOST_LOGITS = 1 << 26  # numbers that come out of the output layer in a step

_PROBE = ((7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18), (20, 21, 22, 23, 24))


def generate_continuously(
    model: LanguageModel, asked: Sequence[tuple[Generate, Encoded]], kept_tokens: int, *, can_share: bool
) -> tuple[list[Generated], Work]:
    """Generate one text a request.

    Args:
        model: a decoder that can use slots (:func:`slot_bytes`).
        asked: requests, and their prompts encoded with room for the answers.
        kept_tokens: most tokens, prompts and answers together, that are kept at once; a longer row runs alone.
        can_share: keep what all prompts begin with once: no layer has a window shorter than the longest row.

    Returns:
        (the texts, in order; what was computed)

    Raises:
        EngineError: the model gives NaN.
        ResourceError: memory runs out on a single request.
    """
    work = Work()

    def compute(numbers: Sequence[int]) -> list[Generated]:
        nonlocal work
        run = _Run(model, max(kept_tokens * len(numbers) // len(asked), 1))  # half the rows: half the memory
        found = run.generate([asked[number] for number in numbers], can_share=can_share)
        work += run.work
        return found

    with attending_to_slots(model.module):
        return in_halves(range(len(asked)), compute), work


@dataclass
class _Row:
    """A request on its way.

    Attributes:
        prompt: its tokens behind the shared beginning.
        room: most tokens of the answer.
        unread: what must go through the model before the next token can be chosen.
    """

    answer: Answer
    prompt: list[int]
    room: int
    bank: Bank | None = None
    slot: int = -1
    unread: list[int] = field(default_factory=list)

    @property
    def need(self) -> int:
        """Tokens that its slot must hold; the last of the answer is never read."""
        return len(self.prompt) + self.room - 1


class _Run:
    """Rows that wait, rows that run, and the banks they run in."""

    def __init__(self, model: LanguageModel, kept_tokens: int) -> None:
        self._model = model
        self._tokens = kept_tokens
        self._most_read = 1
        self._most_rows = max(_MOST_LOGITS // vocabulary_size(model.module), 1)
        self._banks: list[Bank] = []
        self._shared: Bank | None = None
        self._waiting: list[_Row] = []
        self._running: list[_Row] = []
        self.work = Work()

    def generate(self, asked: Sequence[tuple[Generate, Encoded]], *, can_share: bool) -> list[Generated]:
        """Run all requests to their ends."""
        start = shared_prefix([row.prompt for _, row in asked]) if can_share and len(asked) > 1 else ()
        if len(start) < WORTH_COPYING:
            start = ()
        rows = [
            _Row(Answer(self._model, request, encoded), list(encoded.prompt[len(start) :]), room(request, encoded))
            for request, encoded in asked
        ]
        longest = len(start) + max(row.need for row in rows)
        self._most_read = max(min(self._tokens // _READ_SHARE, _MOST_PAIRS // longest), 1)
        if start:
            self._read_shared(start)
        self._waiting = sorted(rows, key=lambda row: (-row.need, row.prompt))
        while self._waiting or self._running:
            self._enter()
            self._step()
        return [row.answer.result() for row in rows]

    def _read_shared(self, tokens: Sequence[int]) -> None:
        shared = Bank(1, len(tokens))
        for first in range(0, len(tokens), self._most_read):
            self._pass([Part(shared, 0, tokens[first : first + self._most_read])], [], [], None)
        self._shared = shared

    def _step(self) -> None:
        """Read the next tokens of all running rows, and let those that have read theirs choose one."""
        left = self._most_read
        parts: list[Part] = []
        for row in self._running:
            number = 1 if len(row.unread) == 1 else min(len(row.unread), left)
            assert row.bank is not None and number > 0  # no row enters before the prompts of others can be read
            parts.append(Part(row.bank, row.slot, row.unread[:number]))
            left -= number if number > 1 else 0
            row.unread = row.unread[number:]
        ready = [number for number, row in enumerate(self._running) if not row.unread]
        self._pass(parts, ready, [self._running[number].answer for number in ready], self._shared)
        for number in ready:
            row = self._running[number]
            row.unread = [row.answer.last]
            if row.answer.finish is not None:
                parts[number].bank.taken.remove(row.slot)
        self._running = [row for row in self._running if row.answer.finish is None]
        self._tidy()

    def _pass(
        self, parts: Sequence[Part], ready: Sequence[int], answers: Sequence[Answer], shared: Bank | None
    ) -> None:
        planned = plan_pass(parts, shared, self._model.device)
        logits = run_pass(self._model.module, planned, ready)
        count = int(planned.ids.shape[1])
        self.work += Work(computed_tokens=count, attended_pairs=planned.pairs, head_tokens=len(ready))
        if answers:
            add_tokens(answers, logits, self._model.name)

    def _enter(self) -> None:
        """Let waiting rows take free slots, as long as their prompts can be read soon."""
        left = self._most_read - sum(len(row.unread) for row in self._running if len(row.unread) > 1)
        skipped: list[_Row] = []
        while self._waiting and left > 0 and len(skipped) < _LOOKED_AT:
            row = self._waiting[0]
            place = self._free_place(row)
            if place is None:
                break
            self._waiting.pop(0)
            source, common = self._like(row)
            if self._is_being_read(row, common + WORTH_COPYING):
                skipped.append(row)  # the next step finds it read
                continue
            self._take(row, place, source, common)
            left -= len(row.unread)
        self._waiting = skipped + self._waiting

    def _take(self, row: _Row, place: tuple[Bank, int], source: tuple[Bank, int] | None, common: int) -> None:
        if source is not None and source[0].capacity >= row.need and source[1] not in source[0].taken:
            place = source
        bank, slot = place
        if source is None:
            bank.tokens[slot] = []
        else:
            bank.copy(slot, *source, common)
        bank.taken.add(slot)
        row.bank, row.slot, row.unread = bank, slot, row.prompt[common:]
        self._running.append(row)

    def _free_place(self, row: _Row) -> tuple[Bank, int] | None:
        for bank in self._banks:
            if bank.capacity >= row.need and len(bank.taken) < bank.slots:
                free_slots = [slot for slot in range(bank.slots) if slot not in bank.taken]
                return bank, min(free_slots, key=lambda slot: len(bank.tokens[slot]))  # holds least to copy from
        free = self._tokens - (self._shared.capacity if self._shared else 0)
        free -= sum(bank.slots * bank.capacity for bank in self._banks)
        if self._banks and free < row.need:
            return None
        needs = [row.need, *(other.need for other in self._waiting[1:])]
        slots, capacity = plan_bank(needs, free, self._most_rows - sum(bank.slots for bank in self._banks))
        if slots < 1:
            if self._banks:
                return None
            slots = 1  # longer than all that may be kept: it runs alone
        self._banks.append(Bank(slots, capacity))
        return self._banks[-1], 0

    def _like(self, row: _Row) -> tuple[tuple[Bank, int] | None, int]:
        """Return the slot whose tokens begin most like a row's prompt, and how many are the same.

        The last token of a prompt is always read: something is predicted there.
        """
        prompt = row.prompt[:-1]
        best: tuple[Bank, int] | None = None
        most = WORTH_COPYING - 1
        for bank in self._banks:
            for slot, tokens in enumerate(bank.tokens):
                if len(prompt) > most and tokens[: most + 1] == prompt[: most + 1]:
                    best, most = (bank, slot), common_start(tokens, prompt)
        return best, most if best else 0

    def _is_being_read(self, row: _Row, least: int) -> bool:
        """Whether a running row is about to have read a beginning of this one's prompt, of so many tokens at least."""
        prompt = row.prompt[: min(least, len(row.prompt) - 1)]
        if len(prompt) < least:
            return False
        return any(len(other.unread) > 1 and other.prompt[:least] == prompt for other in self._running)

    def _tidy(self) -> None:
        """Give up banks that nobody needs, and move what is left in the others together, once nobody waits."""
        used = [[row for row in self._running if row.bank is bank] for bank in self._banks]
        need = self._waiting[0].need if self._waiting else 0
        kept = [number for number, bank in enumerate(self._banks) if used[number] or need <= bank.capacity < 2 * need]
        if not self._waiting:
            for number in kept:
                _move_together(self._banks[number], used[number])
        self._banks = [self._banks[number] for number in kept]


def _move_together(bank: Bank, rows: Sequence[_Row]) -> None:
    """Move rows into the first slots when less than half of the slots up to the last are in use."""
    if 2 * len(rows) >= max(bank.taken) + 1:
        return
    free = [slot for slot in range(len(rows)) if slot not in bank.taken]
    for row in sorted(rows, key=lambda row: -row.slot)[: len(free)]:
        slot = free.pop()
        bank.copy(slot, bank, row.slot, len(bank.tokens[row.slot]))
        bank.taken.remove(row.slot)
        bank.taken.add(slot)
        row.slot = slot


def slot_bytes(model: LanguageModel) -> int | None:
    """Return what keys and values of a token take in a slot; None where a decoder cannot use slots.

    Tried on a few tokens: it must compute the same in slots as by itself.
    """
    try:
        logits, bank = _probe_slots(model)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        return None  # the architecture has an attention of its own: batches of fixed rows are slower, and right
    tolerance = 1e-3 if str(model.dtype) == "torch.float32" else 0.05
    for row, tokens in enumerate(_PROBE):
        ids = long_tensor([tokens], model.device)
        last = long_tensor([len(tokens) - 1], model.device)
        expected, _ = forward(model.module, last * 0, last, input_ids=ids, use_cache=False)
        difference = (logits[row].log_softmax(-1) - expected[0].log_softmax(-1)).abs().max()
        if not float(difference) <= tolerance * max(1.0, float(expected.abs().max())):
            return None
    stores = [store for layer in bank.layers.values() for store in layer]
    return sum(store[0, 0].numel() * store.element_size() for store in stores)


def tokens_to_keep(model: LanguageModel, batch_tokens: int, bytes_per_token: int) -> int:
    """Return how many tokens' keys and values are kept at once.

    The more answers run together, the less each of them costs: eight times ``batch_tokens``, as far as that takes no
    more than half of what the weights take, or a gibibyte. It does not depend on the memory that is free just now, so
    that rounding is the same in every run.
    """
    weights = sum(part.numel() * part.element_size() for part in model.module.parameters())
    return min(max(max(weights // 2, _ALWAYS_ALLOWED) // bytes_per_token, batch_tokens), 8 * batch_tokens)


def _probe_slots(model: LanguageModel) -> tuple[Tensor, Bank]:
    """Return logits behind a few rows, each read in two passes, shape (rows, vocabulary); and where the rows lie."""
    bank = Bank(len(_PROBE), max(map(len, _PROBE)))
    with attending_to_slots(model.module):
        for place in (slice(0, -1), slice(-1, None)):
            parts = [Part(bank, row, tokens[place]) for row, tokens in enumerate(_PROBE)]
            logits = run_pass(model.module, plan_pass(parts, None, model.device), range(len(_PROBE)))
    return logits, bank
