"""Writes ``report.html`` and ``report.md``: pure functions of a study's folder."""

from __future__ import annotations

from pathlib import Path

from taskfit.studies.compare import Comparison, compare_study
from taskfit.studies.folder import locked, write_text
from taskfit.studies.page import render_page
from taskfit.studies.recommend import Recommendation, recommend
from taskfit.studies.report_view import ReportView, report_view

__all__ = ["html_report", "markdown_report", "write_report"]


def write_report(
    folder: Path, comparison: Comparison | None = None, recommendation: Recommendation | None = None
) -> Path:
    """Write both reports into the study's folder and return the path of the HTML page.

    Args:
        folder: the study's.
        comparison: when it is at hand; computed from the folder otherwise.
        recommendation: likewise.

    Raises:
        StudyError: there is no study, it is damaged, or another process works on it.
        ResourceError: the disk is full.
    """
    comparison = compare_study(folder) if comparison is None else comparison
    recommendation = recommend(comparison) if recommendation is None else recommendation
    view = report_view(comparison, recommendation)
    with locked(folder):
        write_text(folder / "report.md", markdown_report(view))
        write_text(folder / "report.html", html_report(view))
    return folder / "report.html"


def html_report(view: ReportView) -> str:
    """Return one self-contained page: no script, no network, light and dark, everything escaped."""
    return render_page("report.html.jinja", view)


def markdown_report(view: ReportView) -> str:
    """Return the verdict, the table and what was run, as Markdown."""
    recommendation = view.recommendation
    lines = [f"# {_plain(view.title)}: which strategy?", "", f"**{_plain(recommendation.verdict)}**", ""]
    lines += [f"- {_plain(sentence)}" for sentence in (*recommendation.reasons, *recommendation.caveats)]
    if view.cells:
        verdicts = [view.verdicts[row.verdict] for row in view.rows]
        rows = [(*cells[:2], verdict, *cells[2:]) for cells, verdict in zip(view.cells, verdicts, strict=True)]
        lines += ["", "## Strategies", "", *_table((*view.columns[:2], "verdict", *view.columns[2:]), rows)]
    for title, entries in (("Did not finish", view.failures), ("Left out", view.skipped)):
        if entries:
            lines += ["", f"## {title}", "", *(f"- {_plain(name)}: {_plain(why)}" for name, why in entries)]
    if view.losses:
        lines += [
            "",
            "## What got lost",
            "",
            *(f"- {_plain(one.candidate)}: {_plain(one.line)}" for one in view.losses),
        ]
    lines += ["", "## What was run", "", *(f"- {name}: {_plain(text)}" for name, text in view.facts)]
    lines += ["", "## Trials", "", *_table(view.trial_columns, view.trials)]
    return "\n".join(lines) + "\n"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> list[str]:
    head = [f"| {' | '.join(column or 'key' for column in columns)} |", f"|{'---|' * len(columns)}"]
    return head + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]


def _plain(text: str) -> str:
    """Keep a text on its line and in its cell, and its signs from being read as Markdown or HTML."""
    flat = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|<*_`[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
