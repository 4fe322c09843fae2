"""``taskfit report``: write a study's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskfit.cli.output import print_data

__all__ = ["report"]


def report(study: Annotated[Path, typer.Argument(help="A study folder.")]) -> None:
    """Write report.html and report.md of a study folder again, from what it holds."""
    from taskfit.studies.report import write_report

    print_data(str(write_report(study)))
