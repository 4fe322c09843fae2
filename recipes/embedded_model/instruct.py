"""Step 5: instruction tuning on the conversations; only the assistant's turns are learnt, with their end marker."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from loop import Course, Told, run_steps
from network import ASSISTANT, CONTEXT, END, PAD, TEXT, export, labelled
from places import Places, options, read_lines, run_step, say, write_json
from pretrain import add_training_options, fastest_loss, heldout_bits
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from taskfit.errors import DataError

__all__ = ["instruct", "packed_rows", "supervised"]

HELD_OUT = 400
"""Conversations kept from training, for the loss on unseen ones; at most a tenth of all."""

ROWS_A_STEP = 16
MICRO_ROWS = 8
WARMUP_STEPS = 30

Packed = tuple[list[int], list[bool]]
"""A row of several conversations: ids, and which of them are learnt."""


def supervised(ids: Sequence[int]) -> list[bool]:
    """Return which tokens are learnt: those after an assistant's marker up to the end marker of its turn."""
    found, is_answer = [], False
    for token in ids:
        found.append(is_answer)
        if token == ASSISTANT:
            is_answer = True
        elif token == END:
            is_answer = False
    return found


def packed_rows(conversations: Sequence[Sequence[int]], seed: int) -> list[Packed]:
    """Return rows of up to ``CONTEXT`` tokens with whole conversations one behind the other, each after a text marker.

    The longest go in first, each into the fullest row that has room (best fit, decreasing), so little is left empty;
    the rows are then shuffled.

    Args:
        conversations: token ids; one longer than a row is left out.
        seed: of the order.
    """
    rows: list[Packed] = []
    by_room: dict[int, list[int]] = {}
    for ids in sorted(conversations, key=len, reverse=True):
        size = len(ids) + 1
        if size > CONTEXT:
            continue
        room = next((room for room in range(size, CONTEXT + 1) if by_room.get(room)), None)
        if room is None:
            rows.append(([], []))
            place, room = len(rows) - 1, CONTEXT
        else:
            place = by_room[room].pop()
        rows[place][0].extend([TEXT, *ids])
        rows[place][1].extend([False, *supervised(ids)])
        by_room.setdefault(room - size, []).append(place)
    random.Random(seed).shuffle(rows)
    return rows


def instruct(
    places: Places, *, epochs: float, rate: float, seed: int, device: str, until: int | None = None
) -> dict[str, Any]:
    """Tune the pre-trained model, and write the model folder ``instructed`` and ``instruct.json``.

    Raises:
        DataError: an earlier step's files are missing. StudyError: another tuning was begun.
    """
    base = places.need("pretrained", "pretrain.py")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    weights = sum(value.numel() for value in model.parameters())
    places.check_room("instruction tuning", disk_bytes=40 * weights, memory_bytes=20 * weights + 2e9)
    held, rows = _rows(places, seed)
    steps = max(1, round(epochs * len(rows) / ROWS_A_STEP))
    tokens = sum(len(ids) for ids, _ in rows)
    say(f"{tokens} tokens in {len(rows)} rows, {steps} steps of {ROWS_A_STEP} rows")
    loss_sum = fastest_loss(model, tokenizer)
    base_mark = hashlib.blake2b((base / "model.safetensors").read_bytes(), digest_size=8).hexdigest()
    identity = {"base": base_mark, "epochs": epochs, "rate": rate, "seed": seed, "rows": len(rows), "tokens": tokens}
    warmup = min(WARMUP_STEPS, max(1, steps // 4))
    course = Course(
        rates=tuple(rate * min((at + 1) / warmup, (steps - at) / steps) for at in range(steps)),
        batches_at=lambda step: _batches(rows, step, seed),
        loss_sum=loss_sum,
        optimizer="muon",
        identity=identity,
    )
    losses = run_steps(model, course, places.build / "instruct", on_step=_Teller(steps), until=until)
    if until is not None and len(losses) < steps:
        return {"steps": len(losses)}
    export(model, tokenizer, places.build / "instructed")
    report = {
        **identity,
        "steps": steps,
        "learnt_nats_per_token": round(sum(losses[-20:]) / len(losses[-20:]), 4),
        "unseen_nats_per_token": round(_loss_of(model, held, loss_sum, device), 4),
        "heldout_bits_per_character": heldout_bits(model, tokenizer, places, 5),
    }
    write_json(places.build / "instruct.json", report)
    return report


class _Teller:
    def __init__(self, steps: int) -> None:
        self.steps, self.seconds, self.taken = steps, 0.0, 0

    def __call__(self, told: Told) -> None:
        self.seconds, self.taken = self.seconds + told.seconds, self.taken + 1
        if told.step % 20 == 0 or told.step in (1, self.steps):
            left = (self.steps - told.step) * self.seconds / self.taken
            say(f"step {told.step} of {self.steps}, loss {told.loss:.3f} nats a token, {left / 60:.1f} min left")


def _rows(places: Places, seed: int) -> tuple[list[Packed], list[Packed]]:
    """Return rows of the conversations that are kept from training, and of the others."""
    found = [row["ids"] for row in read_lines(places.need("instructions.jsonl", "tasks.py"))]
    count = min(HELD_OUT, len(found) // 10)
    if len(found) < 10:
        raise DataError(f"expected at least 10 conversations, got {len(found)}", "Run tasks.py on all the data.")
    return packed_rows(found[:count], seed), packed_rows(found[count:], seed)


def _batches(rows: Sequence[Packed], step: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield the micro-batches of a step: rows in an order drawn anew for each epoch."""
    chosen = []
    for at in range(step * ROWS_A_STEP, (step + 1) * ROWS_A_STEP):
        epoch, place = divmod(at, len(rows))
        chosen.append(rows[_order(seed, epoch, len(rows))[place]])
    for start in range(0, len(chosen), MICRO_ROWS):
        yield _batch(chosen[start : start + MICRO_ROWS])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return random.Random(f"{seed}/{epoch}").sample(range(count), count)


def _batch(rows: Sequence[Packed]) -> dict[str, Tensor]:
    """Return rows filled up to the longest by a text of padding, of which nothing is learnt."""
    length = max(len(ids) for ids, _ in rows)
    filled = [[*ids, TEXT, *[PAD] * length][:length] for ids, _ in rows]
    learnt = [[*marked, *[False] * length][:length] for _, marked in rows]
    return labelled(torch.tensor(filled), torch.tensor(learnt))


def _loss_of(model: Any, rows: Sequence[Packed], loss_sum: Any, device: str) -> float:
    model.eval()
    nats, tokens = 0.0, 0
    for start in range(0, len(rows), MICRO_ROWS):
        batch = {name: value.to(device) for name, value in _batch(rows[start : start + MICRO_ROWS]).items()}
        with torch.no_grad(), torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            loss, count = loss_sum(model, batch)
        nats, tokens = nats + loss.item(), tokens + count
    return nats / max(1, tokens)


def _step(chosen: argparse.Namespace, places: Places) -> None:
    torch.set_num_threads(chosen.threads)
    report = instruct(places, epochs=chosen.epochs, rate=chosen.rate, seed=chosen.seed, device=chosen.device)
    print(json.dumps(report))


if __name__ == "__main__":
    parser = add_training_options(options(__doc__ or ""))
    parser.add_argument("--epochs", type=float, default=2.0, help="times that every conversation is read (default: 2)")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate (default: 0.001)")
    run_step(parser, _step)
