"""Do the probabilities mean what they say: reliability diagrams and errors of calibration, a panel a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.charts import Spec, axis, frame, picture
from taskfit.studies.words import figure, metric_name

if TYPE_CHECKING:
    from taskfit.evaluation.calibration import ReliabilityBin
    from taskfit.evaluation.intervals import Interval
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.studies.candidate import Candidate

__all__ = ["METRICS", "Panel", "calibration_panels", "has_probabilities"]

METRICS = ("ece_10", "ece_15", "ece_adaptive", "brier", "nll", "aurc", "selective_accuracy")
"""What the table beside the diagrams holds."""

_SIDE = 220


@dataclass(frozen=True)
class Panel:
    """One candidate's calibration.

    Attributes:
        key, label: the candidate's.
        chart: SVG of its reliability diagram, all seeds together.
        figures: metric of calibration or of selection to its figure with interval.
        names: the same metrics to what people call them.
    """

    key: str
    label: str
    chart: str
    figures: dict[str, Interval]
    names: dict[str, str]


def calibration_panels(candidates: Sequence[tuple[str, Candidate]]) -> tuple[Panel, ...]:
    """Return a panel for each candidate that gives a probability for every row, in order."""
    return tuple(_panel(key, candidate) for key, candidate in candidates if has_probabilities(candidate))


def has_probabilities(candidate: Candidate) -> bool:
    """Whether every answer of every seed came with probabilities."""
    runs = candidate.runs
    return all(run.probabilities is not None and all(p is not None for p in run.probabilities) for run in runs)


def _panel(key: str, candidate: Candidate) -> Panel:
    from taskfit.evaluation.intervals import metric_interval

    figures = {name: metric_interval(name, candidate.runs) for name in METRICS}
    name = f"{key} {candidate.label}"
    chart = picture(_diagram(name, _bins(candidate.runs), figures["ece_10"]), kind="panel")
    return Panel(key, candidate.label, chart, figures, {name: metric_name(name) for name in METRICS})


def _bins(runs: Sequence[Outcomes]) -> list[ReliabilityBin]:
    """Join the bins of all runs: equal edges, so sums over rows add up."""
    from taskfit.evaluation.calibration import ReliabilityBin, reliability

    by_edge: dict[float, list[ReliabilityBin]] = {}
    for run in runs:
        for found in reliability(run):
            by_edge.setdefault(found.low, []).append(found)
    joined = []
    for low, parts in sorted(by_edge.items()):
        rows = sum(part.rows for part in parts)
        sure = sum(part.rows * part.mean_confidence for part in parts) / rows
        right = sum(part.rows * part.accuracy for part in parts) / rows
        joined.append(ReliabilityBin(low, parts[0].high, rows, sure, right))
    return joined


def _diagram(name: str, bins: Sequence[ReliabilityBin], error: Interval) -> Spec:
    most = max(part.rows for part in bins)
    values = [
        {"sure": part.mean_confidence, "right": part.accuracy, "size": 16 + 180 * part.rows / most} for part in bins
    ]
    ends = [{"at": 0}, {"at": 1}]
    scales = [
        {"name": "x", "domain": [0, 1], "range": "width"},
        {"name": "y", "domain": [0, 1], "range": "height"},
    ]
    ticks = {"values": [0, 0.5, 1], "format": "~%", "grid": True}
    axes = [axis("x", "bottom", "said", **ticks), axis("y", "left", "right", **ticks)]
    x, y = {"scale": "x", "field": "sure"}, {"scale": "y", "field": "right"}
    line = {"x": {"scale": "x", "field": "at"}, "y": {"scale": "y", "field": "at"}}
    ideal = {**line, "stroke": {"value": "var(--soft)"}, "strokeDash": {"value": [4, 3]}}
    gap = {"x": x, "y": y, "y2": {"scale": "y", "field": "sure"}, "stroke": {"value": "var(--accent)"}}
    dot = {
        "x": x,
        "y": y,
        "size": {"field": "size"},
        "fill": {"value": "var(--accent)"},
        "fillOpacity": {"value": 0.85},
    }
    marks = [
        {"type": "line", "from": {"data": "ideal"}, "encode": {"update": ideal}},
        {"type": "rule", "from": {"data": "bins"}, "encode": {"update": gap}},
        {"type": "symbol", "from": {"data": "bins"}, "encode": {"update": dot}},
    ]
    data = [{"name": "bins", "values": values}, {"name": "ideal", "values": ends}]
    words = f"Reliability of {name}: calibration error {figure(error.value)}."
    return frame(_SIDE, _SIDE, description=words, parts={"data": data, "scales": scales, "axes": axes, "marks": marks})
