"""Writes ``report.html`` and ``report.md``, and says the same as JSON: pure functions of a study's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.studies.compare import Comparison, compare_study
from taskfit.studies.folder import locked, write_text
from taskfit.studies.page import render_page
from taskfit.studies.recommend import Recommendation, recommend
from taskfit.studies.report_data import page_data, report_json
from taskfit.studies.report_markdown import markdown_report
from taskfit.studies.report_view import ReportView, report_view

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["html_report", "markdown_report", "read_report", "write_report"]

_SCRIPT = Path(__file__).parent / "report.js"


def write_report(
    folder: Path,
    comparison: Comparison | None = None,
    recommendation: Recommendation | None = None,
    *,
    machines: Sequence[str] | None = None,
) -> Path:
    """Write both reports into the study's folder and return the path of the HTML page.

    Args:
        folder: the study's.
        comparison: when it is at hand; computed from the folder otherwise.
        recommendation: likewise.
        machines: of the price table, for which costs are forecast; None: those that the study names.

    Raises:
        ConfigError: a machine is unknown; nothing is written.
        StudyError: there is no study, it is damaged, or another process works on it.
        ResourceError: the disk is full.
    """
    view = _view(folder, comparison, recommendation, machines)
    with locked(folder):
        write_text(folder / "report.md", markdown_report(view))
        write_text(folder / "report.html", html_report(view))
    return folder / "report.html"


def read_report(folder: Path, *, machines: Sequence[str] | None = None) -> dict[str, Value]:
    """Return a study's whole report as JSON values, see :func:`taskfit.studies.report_data.report_json`.

    Args:
        folder: the study's.
        machines: as for :func:`write_report`.

    Raises:
        ConfigError: a machine is unknown.
        StudyError: there is no study, or it is damaged.
    """
    return report_json(_view(folder, None, None, machines))


def _view(
    folder: Path,
    comparison: Comparison | None,
    recommendation: Recommendation | None,
    machines: Sequence[str] | None,
) -> ReportView:
    comparison = compare_study(folder) if comparison is None else comparison
    return report_view(comparison, recommend(comparison) if recommendation is None else recommendation, machines)


def html_report(view: ReportView) -> str:
    """Return one self-contained page: no network, light and dark, everything escaped.

    Its scripts are named to the browser by their digests, so that no other runs; without them the page shows the same
    figures as pictures and tables.
    """
    from taskfit.studies.charts import library

    if view.charts is None:
        return render_page("report.html.jinja", view)
    script = _SCRIPT.read_text(encoding="utf-8")
    return render_page("report.html.jinja", view, data=page_data(view), script=script, library=library())
