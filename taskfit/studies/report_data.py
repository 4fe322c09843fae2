"""The report as JSON values: what the page's script reads, and what ``taskfit report --json`` prints."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING

from taskfit.studies.report_rows import rows_data
from taskfit.studies.volumes import VOLUMES

if TYPE_CHECKING:
    from taskfit.studies.report_view import ReportView
    from taskfit.tasks.task import Value

__all__ = ["page_data", "report_json"]

FORMAT = 1


def page_data(view: ReportView) -> dict[str, Value]:
    """Return what the page's script needs; empty when nothing has finished."""
    charts = view.charts
    if charts is None:
        return {}
    return {
        "unit": charts.unit,
        "volume": view.recommendation.volume,
        "metric": view.rows[0].metric,
        "names": dict(charts.metrics),
        "verdicts": dict(view.verdicts),
        "points": [{"key": p.key, "label": p.label, "fit": p.fit, "row": p.row} for p in charts.points],
        "choices": [asdict(choice) for choice in view.choices],
        "charts": {"cost": charts.cost, "volume": charts.volume},
        "keys": [{"key": key, "label": label} for key, label in view.shown.items()],
        **rows_data(view.disagreements),
    }


def report_json(view: ReportView) -> dict[str, Value]:
    """Return the whole report as JSON values, without pictures.

    Returns:
        ``format``; ``task``; ``recommendation``; ``table``, one record a candidate; ``choices`` by volume; ``costs``;
        ``elsewhere``, forecasts for other machines; ``pairs``, each beside the best; ``curves``;
        ``forgetting``; ``calibration``; ``cascades``, their thresholds; ``sides``, views from seven sides;
        ``confusion``; ``rows`` that strategies answer differently; ``run``;
        ``trials``; ``failures``; ``skipped``; ``losses``; ``methods`` and ``references``.
    """
    found = view.recommendation
    values: dict[str, Value] = {
        "format": FORMAT,
        "task": view.title,
        "recommendation": {
            "chosen": None if found.chosen is None else found.chosen.label,
            "verdict": found.verdict,
            "reasons": [*found.reasons],
            "caveats": [*found.caveats],
            "volume": found.volume,
            "limits": asdict(found.limits),
        },
        "table": [asdict(row) for row in view.rows],
        "choices": [asdict(choice) for choice in view.choices],
        "costs": [{**asdict(one), "volumes": [*VOLUMES]} for one in view.volume_costs],
        "elsewhere": [asdict(one) for one in view.elsewhere],
        "alike": [[label, words] for label, words in view.alike],
        "pairs": [
            {"strategy": label, **dict(zip(view.pair_titles, (cell.sort for cell in cells), strict=True))}
            for label, cells in view.pairs
        ],
        "leaks": [*view.leaks],
        "doubling": [*view.doubling],
        "curves": [asdict(curve) for curve in view.curves],
        "forgetting": [_without_pictures(asdict(one)) for one in view.forgetting],
        "calibration": [_without_pictures(asdict(panel)) for panel in view.panels],
        "cascades": [_without_pictures(asdict(one)) for one in view.cascades],
        "sides": [asdict(one) for one in view.sided],
        "confusion": None if view.confusion is None else asdict(view.confusion),
        "rows": [asdict(row) for row in view.disagreements],
        "run": {"facts": [[name, text] for name, text in view.facts], "recipes": [asdict(r) for r in view.recipes]},
        "trials": [
            {column.title: cell.text for column, cell in zip(view.trial_columns, cells, strict=True)}
            for cells in view.trials
        ],
        "failures": [[name, why] for name, why in view.failures],
        "skipped": [[name, why] for name, why in view.skipped],
        "losses": [asdict(loss) for loss in view.losses],
        "methods": [*view.methods],
        "references": [*view.references],
    }
    return {name: finite(value) for name, value in values.items()}


def finite(value: Value) -> Value:
    """Return the value with null for what JSON cannot hold: an interval may have no end."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def _without_pictures(record: dict[str, Value]) -> dict[str, Value]:
    parts = record.get("parts")
    kept = {name: value for name, value in record.items() if name not in ("chart", "strip")}
    if isinstance(parts, list | tuple):
        kept["parts"] = [_without_pictures(part) for part in parts if isinstance(part, dict)]
    return kept
