"""The page of an inspection: one HTML file, no script, no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.studies.folder import write_bytes
from taskfit.studies.inspect_plot import bars, curves, heat_map
from taskfit.studies.inspect_view import Table, findings, tables
from taskfit.studies.page import render_page

if TYPE_CHECKING:
    from taskfit.tuning.inspect import Inspection

__all__ = ["write_inspection"]

_MOST_CELLS = 60
"""More vectors make a picture that nobody can read."""


@dataclass(frozen=True)
class _View:
    """What the template shows; pictures are (title, svg, caption)."""

    title: str
    findings: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[tuple[str, str, str], ...]


def write_inspection(found: Inspection, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        ResourceError: the disk is full.
    """
    said = findings(found)
    view = _View(said[0], tuple(said[1:]), tuple(tables(found)), tuple(_pictures(found)))
    write_bytes(path, render_page("inspect.html.jinja", view).encode("utf-8"))


def _pictures(found: Inspection) -> list[tuple[str, str, str]]:
    pictures = []
    changed = [block for block in found.blocks if block.changed]
    if changed:
        drawn = bars(
            [block.block for block in changed],
            [block.relative for block in changed],
            [f"{block.relative:.2%}" for block in changed],
            name="Change of each block relative to its weights",
        )
        caption = "Length of the change over the length of the weights that were there."
        pictures.append(("Where it changed", drawn, caption))
    if found.updates:
        drawn = curves([(one.layer, one.values) for one in found.updates], name="Singular values of each update")
        caption = "One line a layer: its singular values over its largest. A line that drops early uses few directions."
        pictures.append(("Is the rank used?", drawn, caption))
    if 1 < len(found.cosines) <= _MOST_CELLS:
        drawn = heat_map(found.cosines, name="Cosines between the vectors")
        pictures.append(("The vectors among themselves", drawn, "Cosines of all pairs, in hundredths."))
    return pictures
