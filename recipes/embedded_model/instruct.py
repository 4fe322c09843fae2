"""Step 5: instruction tuning on the conversations, loss on the assistant's turns only (their `<|end|>` included)."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from network import export, heldout_bits, load_tokenizer, loss_function
from places import BUILD, MODEL, need, read_built_rows, write_json
from torch import Tensor
from transformers import AutoModelForCausalLM

from taskfit.tuning.train_config import TrainConfig
from taskfit.tuning.train_run import Progress
from taskfit.tuning.trainer import train

RATE = 1e-3
TOKENS_PER_BATCH = 4096
LENGTHS = (64, 128, 192, 320, 512, 1024)  # batches are padded to one of these: few shapes to compile
HELD_OUT = 600  # conversations kept from training, for the validation loss
IGNORED = -100


def supervised(ids: Sequence[int], assistant: int, end: int) -> list[int]:
    """Targets per position: the next token where an assistant's turn predicts it, -100 elsewhere."""
    targets, is_answer = [], False
    for token, following in pairwise(ids):
        is_answer = token == assistant or (is_answer and token != end)
        targets.append(following if is_answer else IGNORED)
    return targets


def padded_length(tokens: int) -> int:
    """The smallest batch length that holds a conversation of ``tokens`` tokens (its last one is only a target)."""
    return next(length for length in LENGTHS if length >= tokens - 1)


def make_batches(rows: list[dict[str, object]], seed: int, ends: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """(inputs, targets) of about equal token counts, rows of like length together, batches in random order."""
    rng = random.Random(seed)
    groups: dict[int, list[list[int]]] = {}
    for row in rng.sample(rows, len(rows)):
        ids = list(row["ids"])  # type: ignore[call-overload]
        groups.setdefault(padded_length(len(ids)), []).append(ids)
    batches = []
    for length, members in groups.items():
        size = TOKENS_PER_BATCH // length
        members += members[: -len(members) % size]  # fill the last batch from the first: shapes stay few
        batches += [_batch(members[at : at + size], length, ends) for at in range(0, len(members), size)]
    rng.shuffle(batches)
    return batches


def _batch(members: list[list[int]], length: int, ends: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Right-padded inputs and targets, shape (rows, length); padding is never a target."""
    inputs = torch.zeros(len(members), length, dtype=torch.long)  # id 0 is <|pad|>
    targets = torch.full((len(members), length), IGNORED)
    for row, ids in enumerate(members):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[row, : len(ids) - 1] = torch.tensor(supervised(ids, *ends))
    return inputs, targets


def main() -> None:
    """Train within the budget; writes the model folder and instruct.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=18.0, help="wall-time budget (default: 18)")
    parser.add_argument("--tokens-per-second", type=float, default=6000.0, help="plans the steps (default: 6000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile the step (no C++ compiler needed)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(
        need(BUILD / "pretrained", "run pretrain.py first"), dtype=torch.float32
    )
    ends = (tokenizer.convert_tokens_to_ids("<|assistant|>"), tokenizer.eos_token_id)
    rows = read_built_rows("instructions.jsonl")
    held, rows = rows[:HELD_OUT], rows[HELD_OUT:]
    batches = make_batches(rows, options.seed, ends)
    held_batches = make_batches(held, options.seed, ends)
    tokens = float(np.mean([inputs.numel() for inputs, _ in batches]))
    steps = int(options.minutes * 60 * options.tokens_per_second / tokens)
    print(
        len(batches), "batches,", steps, "steps planned, lengths", Counter(b[0].shape[1] for b in batches), flush=True
    )
    summed = loss_function(not options.eager)
    torch._dynamo.config.recompile_limit = 2 * len(LENGTHS) + 2

    def batches_at(step: int) -> Sequence[tuple[Tensor, Tensor]]:
        return [batches[step % len(batches)]]

    def loss_sum(module: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        inputs, targets = batch
        return summed(module, inputs, targets), int((targets != IGNORED).sum())

    def validate() -> float:
        nats, count = 0.0, 0
        for inputs, targets in held_batches:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(input_ids=inputs, use_cache=False).logits
            nats += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum").item()
            count += int((targets != IGNORED).sum())
        return nats / count

    config = TrainConfig(
        steps,
        RATE,
        warmup_share=0.03,
        weight_decay=0.1,
        betas=(0.9, 0.99),
        validate_every=max(1, steps // 6),
        checkpoint_every_s=30.0,
        seed=options.seed,
    )
    started, printed = time.monotonic(), 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal printed
        if progress.validation is not None:
            print(f"{progress.step} validation {progress.validation:.4f} nats per answer token", flush=True)
            export(model, tokenizer, BUILD / "instructed")
        if time.monotonic() - printed > 30:
            printed = time.monotonic()
            print(
                f"{progress.step}/{progress.steps} loss {progress.loss:.3f} {printed - started:.0f} s, "
                f"{progress.left_s:.0f} s left",
                flush=True,
            )

    result = train(
        model,
        batches_at,
        loss_sum,
        config,
        validate=validate,
        folder=BUILD / "instruct",
        on_progress=on_progress,
        autocast=torch.bfloat16,
    )
    export(model, tokenizer, MODEL)
    report = {
        "steps": result.steps_done,
        "tokens": int(result.steps_done * tokens),
        "epochs": round(result.steps_done / len(batches), 2),
        "wall_s": time.monotonic() - started,
        "validation": [(point.step, point.validation) for point in result.curve if point.validation is not None],
        "best_step": result.best_step,
        "heldout_bits_per_character": heldout_bits(model, tokenizer, 65_536),
    }
    write_json(BUILD / "instruct.json", report)
    print(report)


if __name__ == "__main__":
    main()
