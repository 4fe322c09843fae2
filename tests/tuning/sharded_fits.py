"""What each process of ``test_sharding.py`` runs: fits one after the other, saved by the first process.

    python -m tests.tuning.sharded_fits FOLDER FAMILY:STRATEGY...

``FOLDER/models`` holds the tiny models. Where ``KILLED_AT`` names a step, the process is killed after that step of
the last fit.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import cast, get_args
from unittest.mock import patch

import torch

from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tuning import train_report, training
from taskfit.tuning.train_config import TrainConfig
from tests.tuning.keyword_task import Family, keyword_task, tiny_model


def fit_all(folder: Path, strategies: list[str], killed_at: str = "") -> None:
    """Fit every strategy, save it under its family and first name, and print its curve."""
    for number, named in enumerate(strategies):
        family, name = named.split(":", 1)
        is_last = number == len(strategies) - 1
        lines: list[str] = []

        def say(line: str, lines: list[str] = lines, is_last: bool = is_last) -> None:
            lines.append(line)
            if killed_at and is_last and line.startswith(f"step {killed_at} "):
                os.kill(os.getpid(), signal.SIGKILL)

        model = tiny_model(folder.parent / "models", as_family(family))
        key = f"{family}-{name.split('(')[0]}"
        scratch = folder / "scratch" / key
        predictor = parse(name).fit(model, keyword_task(9, 4), seed=1, budget=Budget(folder=scratch, say=say))
        if int(os.environ.get("RANK", "0")) == 0:
            predictor.save(folder / key)
        curve = [line.split(", gradient")[0] for line in lines if line.startswith("step")]
        sys.stdout.write(json.dumps(curve) + "\n")
        sys.stdout.flush()


def as_family(text: str) -> Family:
    """The name of a family of tiny models."""
    assert text in get_args(Family)
    return cast("Family", text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with (
        patch.object(train_report, "SAY_EVERY_S", -1.0),
        patch.object(training, "TrainConfig", partial(TrainConfig, checkpoint_every_s=1e-9)),
    ):
        fit_all(Path(sys.argv[1]), sys.argv[2:], os.environ.get("KILLED_AT", ""))
