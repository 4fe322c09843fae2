"""``taskfit fit``: fit one strategy and save the predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskfit.cli.output import print_data, say
from taskfit.cli.search import BUDGET_HELP, TRIES_HELP, searched
from taskfit.errors import ConfigError

__all__ = ["fit"]


def fit(
    task: Annotated[Path, typer.Argument(help="The task file.")],
    strategy: Annotated[str, typer.Option(help='A strategy, such as "lora(rank=8)"; see: taskfit strategies.')],
    out: Annotated[Path | None, typer.Option(help="The predictor folder to write; it must not exist.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A known name, a folder, a hub name or a service (http://host/v1#model).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    train_rows: Annotated[int | None, typer.Option(help="Size of a training subset; default: all rows.")] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            help="What the model should not forget: a task file, a text, suite or none; may be given several times. "
            "Default: what the task file says, or a small suite that ships."
        ),
    ] = None,
    tries: Annotated[int | None, typer.Option(help=TRIES_HELP)] = None,
    tuning_budget: Annotated[str | None, typer.Option(help=BUDGET_HELP)] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show what would be learned, token by token, and stop.")
    ] = False,
) -> None:
    """Fit one strategy on a task and save the predictor; or show what it would learn."""
    from taskfit.studies.fit import fit as fit_strategy
    from taskfit.studies.fit import preview as preview_of
    from taskfit.tuning.launched import is_first_process

    if preview == (out is not None):
        raise ConfigError("give --out FOLDER to fit, or --preview to see what would be learned; one of them")
    if preview:
        for line in preview_of(task, strategy, model=model, seed=seed, train_rows=train_rows):
            print_data(line)
        return
    strategy = searched(strategy, tries, tuning_budget)
    fit_strategy(task, strategy, model=model, out=out, seed=seed, train_rows=train_rows, retain=retain or (), say=say)
    if not is_first_process():
        return
    say(f"saved; try: taskfit predict {out} ROWS")
    print_data(str(out))
