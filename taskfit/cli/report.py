"""``taskfit report``: write a study's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskfit.cli.output import print_data, print_json

__all__ = ["report"]


def report(
    study: Annotated[Path, typer.Argument(help="A study folder.")],
    machine: Annotated[
        list[str] | None,
        typer.Option(help="Forecast the costs on another machine of the price table; may be repeated."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole report as JSON instead of the page's path.")
    ] = False,
) -> None:
    """Write report.html and report.md of a study folder again, from what it holds."""
    from taskfit.studies.report import read_report, write_report

    machines = None if machine is None else tuple(machine)
    path = write_report(study, machines=machines)
    if as_json:
        print_json(read_report(study, machines=machines))
    else:
        print_data(str(path))
