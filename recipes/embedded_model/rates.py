"""Before step 4, where wanted: which optimiser at which rate? A small training of each, the same held-out text."""

from __future__ import annotations

import argparse

import torch
from places import Places, options, run_step, write_json
from pretrain import add_training_options
from scaling import trained_loss
from schedule import Plan
from tables import table

from taskfit.files import write_text


def _step(chosen: argparse.Namespace, places: Places) -> None:
    torch.set_num_threads(chosen.threads)
    found = []
    for optimizer in chosen.optimizers.split(","):
        for rate in map(float, chosen.rates.split(",")):
            plan = Plan(chosen.size, chosen.tokens, rate, optimizer, seed=chosen.seed)
            loss = trained_loss(places, plan, chosen.device)
            found.append({"optimizer": optimizer, "rate": rate, "loss": round(loss, 4)})
    settings = {"size": chosen.size, "tokens": chosen.tokens, "seed": chosen.seed}
    write_json(places.build / "rates.json", {**settings, "trainings": found})
    shown = table(["optimiser", "peak rate", "nats a token"], [tuple(one.values()) for one in found])
    write_text(places.build / "rates.md", shown)
    print(shown)


if __name__ == "__main__":
    parser = add_training_options(options(__doc__ or ""))
    parser.add_argument("--size", default="2m", help="of the small trainings (default: 2m)")
    parser.add_argument("--tokens", type=int, default=1_500_000, help="of each (default: 1500000)")
    parser.add_argument("--optimizers", default="muon,adamw", help="with commas (default: both)")
    parser.add_argument("--rates", default="0.002,0.004,0.008", help="peak rates with commas")
    run_step(parser, _step)
