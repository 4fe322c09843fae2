"""The report as Markdown: the verdict, the tables and what was run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from taskfit.studies.report_calibration import METRICS
from taskfit.studies.report_table import cost_amounts, cost_titles, there_cells, there_titles
from taskfit.studies.words import figure, metric_name, money

if TYPE_CHECKING:
    from taskfit.studies.elsewhere import Elsewhere
    from taskfit.studies.report_cascade import CascadeRange
    from taskfit.studies.report_view import ReportView

__all__ = ["markdown_report"]


def markdown_report(view: ReportView) -> str:
    """Return the report as Markdown, every text of data and models on its line and out of Markdown's reach."""
    recommendation = view.recommendation
    lines = [f"# {_plain(view.title)}: which strategy?", "", f"**{_plain(recommendation.verdict)}**", ""]
    lines += _list([*recommendation.reasons, *recommendation.caveats])
    for title, body in _sections(view):
        if body:
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _sections(view: ReportView) -> Iterator[tuple[str, list[str]]]:
    yield "Strategies", _candidates(view)
    yield "By volume", _choices(view)
    yield "Total cost", _costs(view)
    for there in view.elsewhere:
        yield f"On {there.machine}: a forecast", _elsewhere(there)
    yield "Right and wrong beside the best", _pairs(view)
    yield "Alike within a point", _list(f"{label} and the best: {words}" for label, words in view.alike)
    yield "Learning curves", [*_curves(view), *([""] if view.doubling else []), *_list(view.doubling)]
    yield "Leaks", _list(view.leaks)
    yield "Forgetting", _forgetting(view)
    yield "Calibration", _calibration(view)
    for ladder in view.cascades:
        yield f"Cost against agreement of {_plain(ladder.label)}", _cascade(ladder)
    for one in view.sided:
        lines = [f"{name}: {headline}" for name, headline, _ in one.sides]
        yield f"Seven sides of {_plain(one.label)}", _list([*lines, f"over {one.over}"])
    yield "Did not finish", _list(f"{name}: {why}" for name, why in view.failures)
    yield "Left out", _list(f"{name}: {why}" for name, why in view.skipped)
    yield "What got lost", _list(f"{one.candidate}: {one.line}" for one in view.losses)
    yield "What was run", _list(f"{name}: {text}" for name, text in view.facts)
    yield "Trials", _table([c.title for c in view.trial_columns], [[cell.text for cell in row] for row in view.trials])
    yield "Methods", [paragraph for text in view.methods for paragraph in (_plain(text), "")][:-1]
    yield "References", _list(view.references)


def _candidates(view: ReportView) -> list[str]:
    heads = [column.title or "key" for column in view.columns]
    rows = [
        [cells[0].text, cells[1].text, view.verdicts[row.verdict], *(cell.text for cell in cells[2:])]
        for cells, row in zip(view.cells, view.rows, strict=True)
    ]
    return _table([*heads[:2], "verdict", *heads[2:]], rows)


def _choices(view: ReportView) -> list[str]:
    rows = [[f"{c.first:,} to {c.last:,}", c.label or "nothing is within the limits"] for c in view.choices]
    return _table(["rows to predict", "choose"], rows)


def _costs(view: ReportView) -> list[str]:
    rows = [[one.label, *map(money, cost_amounts(one))] for one in view.volume_costs]
    return _table(["strategy", *cost_titles()], rows)


def _pairs(view: ReportView) -> list[str]:
    return _table(["strategy", *view.pair_titles], [[label, *(c.text for c in cells)] for label, cells in view.pairs])


def _elsewhere(there: Elsewhere) -> list[str]:
    costs = _table(["strategy", *there_titles()], [[one.label, *there_cells(one)] for one in there.candidates])
    choices = [f"{c.first:,} to {c.last:,} rows: {c.label or 'nothing is within the limits'}" for c in there.choices]
    unknown = [f"{label}: {why}" for label, why in there.unknown]
    return [*costs, "", *_list([*choices, *unknown])]


def _curves(view: ReportView) -> list[str]:
    points = [(curve.label, point) for curve in view.curves if curve.needs_rows for point in curve.points]
    rows = [[label, f"{p.rows:,}", figure(p.value), f"{figure(p.low)} to {figure(p.high)}"] for label, p in points]
    return _table(["strategy", "training rows", view.metric, "95 % interval"], rows)


def _forgetting(view: ReportView) -> list[str]:
    rows = [
        [
            one.label,
            part.name,
            f"{part.before:.3f}",
            f"{part.after:.3f}",
            f"{part.loss:+.3f} ({part.low:+.3f} to {part.high:+.3f})",
        ]
        for one in view.forgetting
        for part in one.parts
    ]
    return _table(["strategy", "retained", "before", "after", "loss (95 % interval)"], rows)


def _cascade(ladder: CascadeRange) -> list[str]:
    rows = [
        [
            ("◆ " if one.is_chosen else "") + ("never" if one.threshold is None else f"{one.threshold:.4f}"),
            *(f"{share:.1%}" for share in (one.student, one.teacher, one.person, one.agreement, one.low)),
            money(one.usd) if one.usd else "not measured",
        ]
        for one in ladder.points
    ]
    return _table(["confidence from", "student", "teacher", "person", "agreement", "at least", "for 1,000 rows"], rows)


def _calibration(view: ReportView) -> list[str]:
    rows = [[panel.label, *(figure(panel.figures[name].value) for name in METRICS)] for panel in view.panels]
    return _table(["strategy", *map(metric_name, METRICS)], rows)


def _list(texts: Iterable[str]) -> list[str]:
    return [f"- {_plain(text)}" for text in texts]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return head + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]


def _plain(text: str) -> str:
    """Keep a text on its line and in its cell, and its signs from being read as Markdown or HTML."""
    flat = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|<*_`[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
