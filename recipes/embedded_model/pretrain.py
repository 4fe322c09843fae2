"""Step 4: pre-train by next-token prediction within a wall-time budget.

Two stages: at a constant rate on windows of 256 tokens until three quarters of the budget are spent, then down to
zero on windows of 512 with instruction text mixed in (warm-up–stable–decay). Both resume from their checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from network import export, heldout_bits, load_tokenizer, loss_function, new_model, window_batch, windows
from places import BUILD, need, write_json
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from taskfit.tuning.checkpoint import load_state
from taskfit.tuning.train_config import TrainConfig
from taskfit.tuning.train_run import Progress
from taskfit.tuning.trainer import train

TOKENS_PER_STEP = 4096
RATE = 2e-3
STABLE_SHARE = 0.75
INSTRUCTION_SHARE = 0.25
EXPORT_EVERY_S = 300.0
SPEED_OF_LONG_WINDOWS = 0.8  # tokens per second with windows of 512, relative to 256; measured
SETTINGS = {"weight_decay": 0.1, "betas": (0.9, 0.99), "clip_norm": 1.0, "checkpoint_every_s": 30.0}


Plan = dict[str, float]


class TimeIsUpError(Exception):
    """The stage's share of the budget is spent."""


@dataclass
class Clock:
    """Wall seconds of one stage since it was started or resumed, and its held-out curve."""

    stage: str
    budget_s: float
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast

    def __post_init__(self) -> None:
        self.started = self.exported = self.printed = time.monotonic()
        self.steps_done, self.tokens_per_s = 0, 0.0
        path = BUILD / f"{self.stage}-curve.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self.curve: list[dict[str, object]] = found

    def __call__(self, progress: Progress) -> None:
        """Print, evaluate, export and stop, each in its time."""
        now = time.monotonic()
        self.steps_done, self.tokens_per_s = progress.step, progress.tokens_per_s
        if now - self.printed > 30 or progress.step in (1, 10, 50):
            self.printed = now
            print(
                f"{self.stage} {progress.step}/{progress.steps} loss {progress.loss:.3f} norm "
                f"{progress.gradient_norm:.2f} {progress.tokens_per_s:.0f} tokens/s {now - self.started:.0f} s",
                flush=True,
            )
        is_up = now - self.started > self.budget_s
        if now - self.exported > EXPORT_EVERY_S or is_up or progress.step == progress.steps:
            bits = heldout_bits(self.model, self.tokenizer)
            self.curve.append({"step": progress.step, "wall_s": round(now - self.started), "bits": bits})
            print(self.stage, progress.step, "held-out bits per character", bits, flush=True)
            export(self.model, self.tokenizer, BUILD / "pretrained")
            write_json(BUILD / f"{self.stage}-curve.json", self.curve)
            self.exported = time.monotonic()
        if is_up:
            raise TimeIsUpError


@lru_cache(maxsize=2)
def shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """The window order of one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def take(ids: np.ndarray, first: int, count: int, length: int, seed: int) -> Tensor:
    """``count`` windows from position ``first`` of an endless shuffled stream of epochs."""
    starts = windows(ids, length)
    chosen = [
        starts[shuffled(seed, at // len(starts), len(starts))[at % len(starts)]] for at in range(first, first + count)
    ]
    return window_batch(ids, np.array(chosen), length)


def stable_stage(model: LlamaForCausalLM, clock: Clock, seed: int, is_compiled: bool) -> None:
    """Train at a constant rate until the stage's time is up."""
    ids = np.load(need(BUILD / "corpus.npy", "run tokenizer.py first"), mmap_mode="r")
    count = TOKENS_PER_STEP // 256
    summed = loss_function(is_compiled)
    steps = len(windows(ids, 256)) * 2 // count  # two epochs at most; the clock mostly stops earlier
    config = TrainConfig(steps, RATE, warmup_share=100 / steps, decay="constant", seed=seed, **SETTINGS)  # type: ignore[arg-type]

    def batches_at(step: int) -> Sequence[Tensor]:
        return [take(ids, step * count, count, 256, seed)]

    def loss_sum(module: torch.nn.Module, batch: Tensor) -> tuple[Tensor, int]:
        return summed(module, batch[:, :-1], batch[:, 1:].contiguous()), batch[:, 1:].numel()

    with suppress(TimeIsUpError):
        train(model, batches_at, loss_sum, config, folder=BUILD / "stable", on_progress=clock, autocast=torch.bfloat16)


def decay_stage(model: LlamaForCausalLM, clock: Clock, seed: int, steps: int, is_compiled: bool) -> None:
    """Train down to a rate of zero, with windows of instruction text among the others."""
    ids = np.load(BUILD / "corpus.npy", mmap_mode="r")
    tasks = np.load(need(BUILD / "instructions.npy", "run tasks.py first"), mmap_mode="r")
    count = TOKENS_PER_STEP // 512
    of_tasks = max(1, round(count * INSTRUCTION_SHARE))
    summed = loss_function(is_compiled)
    config = TrainConfig(steps, RATE, warmup_share=min(0.5, 20 / steps), seed=seed, **SETTINGS)  # type: ignore[arg-type]

    def batches_at(step: int) -> Sequence[Tensor]:
        # Another seed than in the stable stage: its text came in another order and windows of another length.
        text = take(ids, step * (count - of_tasks), count - of_tasks, 512, seed + 1)
        return [torch.cat([text, take(tasks, step * of_tasks, of_tasks, 512, seed + 2)])]

    def loss_sum(module: torch.nn.Module, batch: Tensor) -> tuple[Tensor, int]:
        return summed(module, batch[:, :-1], batch[:, 1:].contiguous()), batch[:, 1:].numel()

    train(model, batches_at, loss_sum, config, folder=BUILD / "decay", on_progress=clock, autocast=torch.bfloat16)


def plan_decay(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> Plan:
    """The plan of the second stage, made by ending the first one and kept for a resumed run."""
    path = BUILD / "decay-plan.json"
    if not path.exists():
        budget_s = options.minutes * 60
        clock = Clock("stable", budget_s * STABLE_SHARE, model, tokenizer)
        stable_stage(model, clock, options.seed, not options.eager)
        speed = clock.tokens_per_s * SPEED_OF_LONG_WINDOWS
        steps = max(50, int(speed * budget_s * (1 - STABLE_SHARE) / TOKENS_PER_STEP))
        wall_s = time.monotonic() - clock.started
        write_json(path, {"stable_steps": clock.steps_done, "last_stable_wall_s": wall_s, "steps": steps})
    return dict(json.loads(path.read_text(encoding="utf-8")))


def main() -> None:
    """Train within the budget; writes ``pretrained`` and pretrain.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45.0, help="wall-time budget (default: 45)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile the step (no C++ compiler needed)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer()
    model = new_model(tokenizer, options.seed)
    print(sum(parameter.numel() for parameter in model.parameters()), "parameters", flush=True)
    plan = plan_decay(model, tokenizer, options)
    state = load_state(need(BUILD / "stable", "the stable stage has left no checkpoint"))
    if state is not None:
        model.load_state_dict(dict(state.weights), strict=False)  # the tied output matrix has no entry of its own
    torch._dynamo.reset()
    clock = Clock("decay", float("inf"), model, tokenizer)
    decay_stage(model, clock, options.seed, int(plan["steps"]), not options.eager)
    export(model, tokenizer, BUILD / "pretrained")
    report = {
        **plan,
        "decay_wall_s": time.monotonic() - clock.started,
        "tokens": int((plan["stable_steps"] + plan["steps"]) * TOKENS_PER_STEP),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "heldout_bits_per_character": heldout_bits(model, tokenizer, 65_536),
    }
    write_json(BUILD / "pretrain.json", report)
    print(report)


if __name__ == "__main__":
    main()
