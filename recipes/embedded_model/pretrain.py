"""Step 4: pre-train by next-token prediction. Says first what it will take; goes on where it was killed."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from curve import Curve, best_point
from loop import Course, Told, run_steps
from network import SHAPES, SHIPPED_WEIGHTS, document_bits, export, labelled, load_tokenizer, new_model, shape_named
from places import Places, options, read_lines, run_step, say, write_json
from rows import MICRO_TOKENS, Streams, batches_of, open_stream
from schedule import Plan, beginning_of, steps_of
from transformers import PreTrainedTokenizerFast

from taskfit.errors import ConfigError, DataError, StudyError
from taskfit.files import appearing
from taskfit.tuning.checkpoint import CHECKPOINT_NAME, load_state, save_state
from taskfit.tuning.loss import choose_loss
from taskfit.tuning.trainer import LossSum

__all__ = ["choose", "course_of", "heldout_bits", "measure", "pretrain", "retarget"]

TOKENS_A_WEIGHT = 10
"""Tokens read for each weight where no scaling study says otherwise: half of what Hoffmann et al. 2022 found best for
the compute alone, as a small corpus is read several times anyway and a wider model is the better one to tune."""

STABLE = "pretrain-stable"
"""Folder of the state at the end of the constant rate."""

SAY_EVERY_S, MEASURE_EVERY_S = 30.0, 1800.0


def pretrain(places: Places, plan: Plan, device: str, *, heldout: int = 3, until: int | None = None) -> dict[str, Any]:
    """Train by a plan, and write the model folder ``pretrained`` and ``pretrain.json``.

    Args:
        places: the folders.
        plan: what to do; kept in ``pretrain-plan.json``.
        device: a torch device.
        heldout: held-out documents of each kind that are measured in the course of it; 0: none.
        until: the step to stop before, for tests of a stopped run; None: the end.

    Raises:
        DataError: an earlier step's files are missing. ResourceError: too little room. StudyError: the folder holds a
        training by another plan.
    """
    tokenizer, streams = _inputs(places)
    shape = shape_named(plan.size)
    weights = shape.parameters(len(tokenizer))
    # Weights, moments, gradients and the checkpoint's copy in float32, activations of a micro-batch, what torch takes.
    memory = 20 * weights + MICRO_TOKENS * shape.width * shape.layers * 60 + 1.6e9
    places.check_room("pre-training", disk_bytes=40 * weights, memory_bytes=memory)
    _keep_plan(places.build / "pretrain-plan.json", plan)
    model = new_model(shape, tokenizer, plan.seed).to(device)
    course = course_of(model, plan, streams, tokenizer)
    curve = _Curve(places, model, tokenizer, plan, heldout)
    folder, stable = places.build / "pretrain", sum(not step.is_decay for step in steps_of(plan))
    losses = run_steps(model, course, folder, on_step=curve, until=stable if until is None else min(until, stable))
    if len(losses) == stable:
        with appearing(places.build / STABLE / CHECKPOINT_NAME) as partial:
            shutil.copyfile(folder / CHECKPOINT_NAME, partial)
    losses = run_steps(model, course, folder, on_step=curve, until=until)
    if until is not None and len(losses) < len(course.rates):
        return {"steps": len(losses)}
    export(model, tokenizer, places.build / "pretrained")
    end = losses[-max(1, len(losses) // 50) :]
    report = {"plan": plan.as_json(), "parameters": weights, "steps": len(losses), "loss": sum(end) / len(end)}
    write_json(places.build / "pretrain.json", {**report, "losses": losses[:: max(1, len(losses) // 500)]})
    return report


def retarget(places: Places, tokens: int) -> Plan:
    """Give a training that was begun another number of tokens: more, or fewer while its rate is still constant.

    What was read at the constant rate need not be read again (Hu et al. 2024, section 4.3): a training that is in its
    decay, or has ended, goes back to where the decay set in. The model that it made stays until the new one is there.

    Args:
        places: the folders.
        tokens: to be read in all.

    Returns:
        the new plan, which is kept instead of the other.

    Raises:
        DataError: no training was begun. ConfigError: more was read at the constant rate than the new plan would.
    """
    kept = _kept_plan(places.need("pretrain-plan.json", "pretrain.py"))
    state = load_state(places.build / STABLE) or load_state(places.build / "pretrain")
    if state is None:
        raise DataError(f"{places.build / 'pretrain'} has no checkpoint", "Run pretrain.py first, without --retarget.")
    plan = replace(kept, tokens=tokens)
    steps = steps_of(plan)
    if any(step.is_decay for step in steps[: state.step]) or steps[: state.step] != steps_of(kept)[: state.step]:
        raise ConfigError(f"{state.step} steps at the constant rate are done, too many for {tokens} tokens in all")
    run = {**state.run, "tokens": tokens, "steps": len(steps)}
    save_state(places.build / "pretrain", replace(state, run=run))
    write_json(places.build / "pretrain-plan.json", plan.as_json())
    return plan


def course_of(model: torch.nn.Module, plan: Plan, streams: Streams, tokenizer: PreTrainedTokenizerFast) -> Course:
    """Return the training that a plan stands for."""
    steps = steps_of(plan)
    identity = {**plan.as_json(), "text_tokens": len(streams[0]), "instruction_tokens": len(streams[1])}
    return Course(
        rates=tuple(plan.rate * step.rate_share for step in steps),
        batches_at=lambda number: batches_of(steps[number], streams, plan),
        loss_sum=fastest_loss(model, tokenizer),
        optimizer="muon" if plan.optimizer == "muon" else "adamw",
        identity=identity,
    )


def fastest_loss(model: Any, tokenizer: PreTrainedTokenizerFast) -> LossSum:
    """Return the library's fastest loss that agrees with the model's own: its packed layers on a processor."""
    rows = torch.randint(len(tokenizer) - 8, (2, 32), generator=torch.Generator().manual_seed(0)) + 8
    batch = {name: value.to(model.device) for name, value in labelled(rows).items()}
    return choose_loss(model, "decoder", batch, autocast=torch.bfloat16).loss_sum


def measure(size: str, tokenizer: PreTrainedTokenizerFast, device: str, tokens: int = MICRO_TOKENS) -> float:
    """Return the tokens a second that a size trains at here, optimiser included, from one step after a warm one."""
    model = new_model(shape_named(size), tokenizer, 0).to(device)
    stream = torch.randint(8, len(tokenizer), (200_000,), generator=torch.Generator().manual_seed(0))
    streams = (stream.numpy().astype("uint16"), stream.numpy().astype("uint16"))
    plan = Plan(size, 4 * tokens, first_batch=tokens, batch=tokens, decay_share=0.25, instruction_share=0.0)
    course = course_of(model, plan, streams, tokenizer)
    rates: list[float] = []
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        run_steps(model, course, Path(folder), on_step=lambda told: rates.append(told.tokens / told.seconds), until=2)
    return rates[-1]


def choose(
    hours: float, tokenizer: PreTrainedTokenizerFast, device: str, ratio: float, curve: Curve | None = None
) -> tuple[str, int, float]:
    """Return size, tokens and tokens a second for so many hours: the size that a fitted curve says is best.

    Without a curve it is the largest that reads ``ratio`` tokens a weight. The rate is measured for one size, and the
    others are taken to do the same work a second.
    """
    entries = len(tokenizer)
    work = measure("6m", tokenizer, device) * SHAPES["6m"].flops_per_token(entries, 512)

    def rate(name: str) -> float:
        return work / SHAPES[name].flops_per_token(entries, 512)

    weights = {name: shape.parameters(entries) for name, shape in SHAPES.items()}
    read = [
        name for name, own in weights.items() if own <= SHIPPED_WEIGHTS and rate(name) * hours * 3600 >= ratio * own
    ]
    best = (read or list(SHAPES))[-1 if read else 0]
    if curve is not None:
        best = best_point(curve, work * hours * 3600, entries)[0]
    return best, int(rate(best) * hours * 3600), rate(best)


def heldout_bits(
    model: Any, tokenizer: PreTrainedTokenizerFast, places: Places, documents: int, characters: int = 4000
) -> dict[str, float]:
    """Return bits per character of the beginnings of a few held-out documents of each kind."""
    chosen: dict[str, list[str]] = {}
    for row in read_lines(places.need("heldout.jsonl", "corpus.py")):
        kind = chosen.setdefault(row["kind"], [])
        if len(kind) < documents:
            kind.append(row["text"][:characters])
    found = {kind: document_bits(model, tokenizer, texts) for kind, texts in chosen.items()}
    return {kind: round(sum(bits for bits, _ in one) / sum(n for _, n in one), 4) for kind, one in found.items()}


class _Curve:
    """Tells how the training goes, and measures held-out text now and then."""

    def __init__(
        self, places: Places, model: Any, tokenizer: PreTrainedTokenizerFast, plan: Plan, documents: int
    ) -> None:
        self.places, self.model, self.tokenizer, self.documents = places, model, tokenizer, documents
        self.steps = steps_of(plan)
        self.told, self.measured = float("-inf"), time.monotonic()  # the first step is told, also of a resumed run
        self.tokens, self.seconds = 0, 0.0

    def __call__(self, told: Told) -> None:
        self.tokens, self.seconds = self.tokens + told.tokens, self.seconds + told.seconds
        now = time.monotonic()
        if now - self.told < SAY_EVERY_S and told.step != len(self.steps):
            return
        self.told = now
        last = self.steps[-1]
        whole = last.tokens_before + last.length * (last.text_rows + last.instruction_rows)
        done = self.steps[told.step - 1].tokens_before + told.tokens
        left = max(0, whole - done) / (self.tokens / self.seconds)
        say(
            f"step {told.step} of {len(self.steps)}, {done / 1e6:.2f} M tokens, loss {told.loss:.3f}, norm "
            f"{told.norm:.2f}, {self.tokens / self.seconds:.0f} tokens/s, {left / 60:.0f} min left"
        )
        if self.documents and now - self.measured > MEASURE_EVERY_S:
            bits = heldout_bits(self.model, self.tokenizer, self.places, self.documents)
            say(f"held-out bits per character {bits}")
            self.measured = time.monotonic()


def _inputs(places: Places) -> tuple[PreTrainedTokenizerFast, Streams]:
    tokenizer = load_tokenizer(places.need("tokenizer", "tokenizer.py"))
    text = open_stream(places.need("corpus.bin", "tokenizer.py"))
    return tokenizer, (text, open_stream(places.need("instructions.bin", "tasks.py")))


def _kept_plan(path: Path) -> Plan:
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Plan(**{field.name: kept[field.name] for field in fields(Plan)})


def _keep_plan(path: Path, plan: Plan) -> None:
    """Keep the plan, or refuse another one than the folder has."""
    if not path.exists():
        write_json(path, plan.as_json())
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    own = plan.as_json()
    differing = [f"{name} was {kept.get(name)}, now {own[name]}" for name in own if kept.get(name) != own[name]]
    if differing:
        raise StudyError(
            f"{path} is of another plan: {'; '.join(differing)}",
            f"Run without options to go on with it, or delete {path.name} and the folder pretrain to start anew.",
        )


def _plan(chosen: argparse.Namespace, places: Places) -> Plan:
    """Return the plan that was begun, with what the options say, or a new one, and say what that takes."""
    path = places.build / "pretrain-plan.json"
    names = ("size", "tokens", "rate", "optimizer", "seed")
    given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    if path.exists():
        return replace(_kept_plan(path), **given)
    tokenizer = load_tokenizer(places.need("tokenizer", "tokenizer.py"))
    if chosen.hours <= 0 or (chosen.tokens is not None and chosen.tokens < 1):
        raise ConfigError(f"hours and tokens must be above 0 (got {chosen.hours} and {chosen.tokens})")
    if chosen.size is None:
        study = places.build / "scaling.json"
        curve = Curve(**places.built("scaling.json", "scaling.py")["curve"]) if study.exists() else None
        way = f"at least {chosen.ratio:g} tokens a weight" if curve is None else f"the curve of {study}"
        say(f"the size is chosen by {way}")
        size, tokens, rate = choose(chosen.hours, tokenizer, chosen.device, chosen.ratio, curve)
    else:
        size, rate = chosen.size, measure(chosen.size, tokenizer, chosen.device)
        tokens = int(rate * chosen.hours * 3600)
    tokens = chosen.tokens or tokens
    plan = Plan(**{**given, "size": size, "tokens": tokens, **beginning_of(tokens)})
    weights = shape_named(size).parameters(len(tokenizer))
    lengths = Counter(step.length for step in steps_of(plan))
    say(
        f"{size}: {weights / 1e6:.1f} M weights, {plan.tokens / 1e6:.1f} M tokens in {sum(lengths.values())} steps, "
        f"{rate:.0f} tokens/s measured: about {plan.tokens / rate / 3600:.1f} h"
    )
    return plan


def _step(chosen: argparse.Namespace, places: Places) -> None:
    torch.set_num_threads(chosen.threads)
    plan = _plan(chosen, places) if chosen.retarget is None else retarget(places, chosen.retarget)
    if not chosen.dry_run:
        print(json.dumps(pretrain(places, plan, chosen.device)))


def add_training_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options of all steps that train."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    return parser


if __name__ == "__main__":
    parser = add_training_options(options(__doc__ or ""))
    parser.add_argument("--hours", type=float, default=3.0, help="time to spend; decides size and tokens (default: 3)")
    parser.add_argument("--size", choices=SHAPES, help="instead of the size chosen for the hours")
    parser.add_argument("--tokens", type=int, help="instead of the tokens that the hours allow")
    parser.add_argument("--ratio", type=float, default=TOKENS_A_WEIGHT, help="least tokens a weight (default: 10)")
    parser.add_argument("--rate", type=float, help=f"peak learning rate (default: {Plan.rate})")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), help=f"default: {Plan.optimizer}")
    parser.set_defaults(seed=None)  # those of the plan that was begun, where there is one
    told = "read so many in all: a training that was begun goes on, one in its decay from where that set in"
    parser.add_argument("--retarget", type=int, metavar="TOKENS", help=told)
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    run_step(parser, _step)
