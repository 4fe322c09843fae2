"""``taskfit init``: write a task file by looking at the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskfit.cli.output import print_data, say

__all__ = ["init"]


def init(
    data: Annotated[Path, typer.Argument(help="A data file: JSON Lines, CSV, TSV or Parquet, also .gz or .xz.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default: task.yaml beside the data.")] = None,
) -> None:
    """Write a task file by looking at the data; nothing is overwritten."""
    from taskfit.tasks.init import init_task

    target = out if out is not None else data.parent / "task.yaml"
    text = init_task(data, target)
    say(f"wrote {target}; read the comments, then run: taskfit compare {target}")
    print_data(text.rstrip("\n"))
