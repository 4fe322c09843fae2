"""``taskfit inspect``: look inside a fitted predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskfit.cli.output import print_data, print_json, print_table, say

__all__ = ["inspect"]


def inspect(
    predictor: Annotated[Path, typer.Argument(help="A predictor's folder, such as fit --out wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write a page with pictures to this file (HTML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables: every tensor.")] = False,
) -> None:
    """Show what tuning has changed inside a model: where, how much, and whether the chosen rank is used.

    Of vectors before the prompt: which tokens they are near to, and whether these cluster.
    """
    from dataclasses import asdict

    from taskfit.studies.inspect_page import write_inspection
    from taskfit.studies.inspect_view import findings, tables
    from taskfit.tuning.inspect import inspect_predictor

    found = inspect_predictor(predictor)
    if out is not None:
        write_inspection(found, out)
        say(f"written: {out}")
    if as_json:
        print_json({"findings": findings(found), **asdict(found)})
        return
    for line in findings(found):
        print_data(line)
    for title, columns, rows in tables(found):
        print_data(f"\n{title}")
        print_table(columns, rows, right={name: "tokens" not in name for name in columns[1:]})
