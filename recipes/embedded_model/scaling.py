"""Step 3: which size for the compute at hand? A few small trainings, a fitted loss curve, the best point on it.

How far the choice can be trusted is told by fitting again without each of the points.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curve import POWERS, Curve, Point, best_point, fit_curve
from network import document_bits, load_tokenizer, shape_named
from places import Places, options, read_lines, run_step, say, write_json
from pretrain import add_training_options, pretrain
from schedule import Plan, beginning_of
from tables import table
from transformers import AutoModelForCausalLM

from taskfit.errors import ConfigError
from taskfit.files import write_text

__all__ = ["markdown", "picture", "report_of", "run_points", "trained_loss"]

SIZES = ("1m", "2m", "4m")
TOKENS = (1_000_000, 2_000_000, 4_000_000)
LEAST_TOKENS = 20_000
STEPS = 250
"""Steps that a training should have at least: batches shrink to 2,048 tokens for it."""

HELD_OUT_DOCUMENTS, HELD_OUT_CHARACTERS = 40, 4000
"""Text that the losses are measured on."""


def run_points(places: Places, sizes: Sequence[str], tokens: Sequence[int], options: Any) -> list[Point]:
    """Train every size on every number of tokens; what is finished is not run again."""
    vocabulary = len(load_tokenizer(places.need("tokenizer", "tokenizer.py")))
    points = []
    for size in sizes:
        for count in tokens:
            loss = trained_loss(places, Plan(size, count, options.rate, seed=options.seed), options.device)
            points.append(Point(shape_named(size).parameters(vocabulary), count, loss))
    return points


def trained_loss(places: Places, plan: Plan, device: str) -> float:
    """Return the loss on held-out text, in nats a token, after a small training; one that is finished is not run again.

    Args:
        places: the folders.
        plan: its size, tokens, rate, optimiser and seed count; batches and warm-up are made to fit so few tokens.
        device: a torch device.
    """
    name = f"{plan.size}-{plan.tokens}-{plan.optimizer}-{plan.rate:g}-{plan.seed}"
    own = places.build / "scaling" / name
    done = own / "heldout.json"
    if not done.exists():
        say(f"small training: {name}")
        batch = min(Plan.batch, max(2048, 2 ** int(math.log2(plan.tokens / STEPS))))
        small = replace(plan, first_batch=min(Plan.first_batch, batch), batch=batch, instruction_share=0.0)
        pretrain(_within(places, own), replace(small, **beginning_of(plan.tokens, batch)), device, heldout=0)
        write_json(done, {"loss": _heldout_loss(places, own / "pretrained")})
    return float(json.loads(done.read_text(encoding="utf-8"))["loss"])


def _heldout_loss(places: Places, folder: Path) -> float:
    """Return nats a token on held-out text, the same for all trainings: the last batches of each scatter too much."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), load_tokenizer(folder)
    rows = islice(read_lines(places.need("heldout.jsonl", "corpus.py")), HELD_OUT_DOCUMENTS)
    texts = [row["text"][:HELD_OUT_CHARACTERS] for row in rows]
    tokens = sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    return sum(bits for bits, _ in document_bits(model, tokenizer, texts)) * math.log(2) / tokens


def _within(places: Places, folder: Any) -> Places:
    """Return the places of one training, whose inputs are links to those of all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, step in (("tokenizer", "tokenizer.py"), ("corpus.bin", "tokenizer.py"), ("instructions.bin", "tasks.py")):
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(places.need(name, step))
    return Places(places.data, folder)


def report_of(points: Sequence[Point], flops: Sequence[float], vocabulary: int) -> dict[str, Any]:
    """Return the fitted curve, the best size for each amount of work, and how often it stays without one point."""
    curve = fit_curve(points)
    others = [fit_curve([*points[:at], *points[at + 1 :]]) for at in range(len(points)) if len(points) > 4]
    rows = []
    for work in flops:
        size, tokens, loss = best_point(curve, work, vocabulary)
        same = sum(best_point(one, work, vocabulary)[0] == size for one in others)
        row = {"flops": work, "size": size, "tokens": tokens, "loss": round(loss, 4)}
        rows.append({**row, "same_without_one": f"{same} of {len(others)}"})
    misses = [curve.loss(point.weights, point.tokens) - point.loss for point in points]
    return {
        "points": [asdict(point) for point in points],
        "curve": asdict(curve),
        "largest_miss": round(max(map(abs, misses)), 4),
        "best": rows,
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the trainings with the fit, and the best sizes, as two tables."""
    curve = Curve(**report["curve"])
    points = [
        [f"{p['weights'] / 1e6:.2f}", f"{p['tokens'] / 1e6:.2f}"]
        + [f"{loss:.4f}" for loss in (p["loss"], curve.loss(p["weights"], p["tokens"]))]
        for p in report["points"]
    ]
    best = [
        (f"{row['flops']:.1e}", row["size"], f"{row['tokens'] / 1e6:.0f}", row["loss"], row["same_without_one"])
        for row in report["best"]
    ]
    shown = (
        f"loss = {curve.floor:.3f} + {curve.a:.3f} N^-{curve.power:.3f} + {curve.b:.3f} D^-{curve.power:.3f}, N and D"
    )
    is_found = POWERS[0] * 1.02 < curve.power < POWERS[1] * 0.98
    doubt = "" if is_found else " The power is at an end of its range: these trainings tell no curve."
    return (
        table(["weights (M)", "tokens (M)", "loss", "fitted"], points)
        + f"\n{shown} in millions; largest miss {report['largest_miss']}.{doubt}\n\n"
        + table(["FLOPs", "best size", "tokens (M)", "loss", "same without one point"], best)
    )


def picture(report: dict[str, Any]) -> str:
    """Return an SVG of the loss by tokens: marks for trainings, a line for each size by the fitted curve."""
    import vl_convert

    curve = Curve(**report["curve"])
    sizes = sorted({point["weights"] for point in report["points"]})
    read = [float(point["tokens"]) for point in report["points"]]
    counts = np.geomspace(min(read), max(read), 30)
    shown = [{**point, "size": f"{point['weights'] / 1e6:.1f} M"} for point in report["points"]]
    lines = [
        {"tokens": float(count), "loss": curve.loss(size, float(count)), "size": f"{size / 1e6:.1f} M"}
        for size in sizes
        for count in counts
    ]
    encoding = {
        "x": {"field": "tokens", "type": "quantitative", "scale": {"type": "log"}, "title": "tokens"},
        "y": {"field": "loss", "type": "quantitative", "scale": {"zero": False}, "title": "nats a token"},
        "color": {"field": "size", "type": "nominal", "title": "weights"},
        "shape": {"field": "size", "type": "nominal", "title": "weights"},
    }
    layers = [
        {"data": {"values": lines}, "mark": "line", "encoding": {k: v for k, v in encoding.items() if k != "shape"}},
        {"data": {"values": shown}, "mark": {"type": "point", "filled": True, "size": 60}, "encoding": encoding},
    ]
    drawn: str = vl_convert.vegalite_to_svg({"width": 480, "height": 300, "layer": layers})
    return drawn


def _step(chosen: argparse.Namespace, places: Places) -> None:
    torch.set_num_threads(chosen.threads)
    sizes, tokens = chosen.sizes.split(","), [int(float(one)) for one in chosen.tokens.split(",")]
    vocabulary = len(load_tokenizer(places.need("tokenizer", "tokenizer.py")))
    work = [size_work * count for size_work in [_work(name, vocabulary) for name in sizes] for count in tokens]
    say(f"{len(work)} trainings of {sum(work):.1e} FLOPs in all")
    if min(tokens) < LEAST_TOKENS:
        raise ConfigError(f"a training of {min(tokens)} tokens tells nothing; give at least {LEAST_TOKENS}")
    report = report_of(
        run_points(places, sizes, tokens, chosen), [float(one) for one in chosen.flops.split(",")], vocabulary
    )
    write_json(places.build / "scaling.json", report)
    write_text(places.build / "scaling.svg", picture(report))
    write_text(places.build / "scaling.md", markdown(report))
    print(markdown(report))


def _work(size: str, vocabulary: int) -> float:
    return shape_named(size).flops_per_token(vocabulary, 512)


if __name__ == "__main__":
    parser = add_training_options(options(__doc__ or ""))
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"sizes with commas (default: {','.join(SIZES)})")
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)), help="numbers of tokens with commas")
    parser.add_argument("--flops", default="1e15,3e15,1e16,1e17", help="work to find the best size for")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="peak learning rate")
    run_step(parser, _step)
