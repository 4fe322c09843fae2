"""The charts of the choice as pictures for the page, and as data for the page's script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10
from typing import TYPE_CHECKING

from taskfit.studies.charts import Spec, picture
from taskfit.studies.cost_chart import Figure, Point, cost_chart
from taskfit.studies.report_calibration import has_probabilities
from taskfit.studies.volume_chart import volume_chart, volume_range
from taskfit.studies.words import metric_name

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.report_choices import Choice
    from taskfit.studies.table import TableRow

__all__ = ["Charts", "charts_of"]

_WIDE, _NARROW = (880, 440), (400, 380)
_BESIDE = 560
_CALIBRATION = ("ece_10", "brier", "nll")


@dataclass(frozen=True)
class Charts:
    """Quality against cost, and cost against volume.

    Attributes:
        unit: of costs: "US dollars", or "seconds" where the machine costs nothing.
        metrics: those that can be drawn, by name, with what people call them.
        points: one a candidate.
        cost_wide, cost_narrow, volume_wide, volume_narrow: SVG.
        cost, volume: specifications for the browser.
        powers: least and most rows to predict, as powers of ten.
        has_smaller: whether some candidates are shown on demand only.
    """

    unit: str
    metrics: dict[str, str]
    points: tuple[Point, ...]
    cost_wide: str
    cost_narrow: str
    volume_wide: str
    volume_narrow: str
    cost: Spec
    volume: Spec
    powers: tuple[float, float]
    has_smaller: bool


def charts_of(
    comparison: Comparison, rows: Sequence[TableRow], main: set[str], choices: Sequence[Choice], volume: int
) -> Charts | None:
    """Return the charts; None when nothing has finished.

    Args:
        comparison: what the study found.
        rows: the table of candidates, in the order of the comparison.
        main: labels of the candidates that are always drawn.
        choices: which is recommended at which volumes.
        volume: rows to predict.
    """
    from taskfit.evaluation.metrics import metric

    if not rows:
        return None
    unit = "US dollars" if all(row.usd_total > 0 for row in rows) else "seconds"
    points = tuple(
        _point(row, candidate, unit, is_main=row.label in main)
        for row, candidate in zip(rows, comparison.candidates, strict=True)
    )
    names = {name: metric_name(name) for name in dict.fromkeys([*comparison.definition.metrics, *_CALIBRATION])}
    names = {name: shown for name, shown in names.items() if any(name in point.figures for point in points)}
    falling = [name for name in names if not metric(name).higher_is_better]
    breaks = [choice.first for choice in choices[1:]]

    def cost(size: tuple[int, int], *, is_live: bool) -> Spec:
        return cost_chart(
            points,
            metric=comparison.metric,
            names=names,
            falling=falling,
            volume=volume,
            unit=unit,
            width=size[0],
            height=size[1],
            is_live=is_live,
        )

    def costs(width: int) -> Spec:
        drawn = [point for point in points if point.is_main]
        return volume_chart(drawn, breaks=breaks, volume=volume, unit=unit, width=width)

    least, most = volume_range(volume)
    return Charts(
        unit=unit,
        metrics=names,
        points=points,
        cost_wide=picture(cost(_WIDE, is_live=False), kind="wide"),
        cost_narrow=picture(cost(_NARROW, is_live=False), kind="narrow"),
        volume_wide=picture(costs(_BESIDE), kind="wide"),
        volume_narrow=picture(costs(_NARROW[0]), kind="narrow"),
        cost=cost(_WIDE, is_live=True),
        volume=costs(_BESIDE),
        powers=(log10(least), log10(most)),
        has_smaller=not all(point.is_main for point in points),
    )


def _point(row: TableRow, candidate: Candidate, unit: str, *, is_main: bool) -> Point:
    found = candidate.cost
    fit, each = (found.usd_once, found.usd_per_row) if unit == "US dollars" else (found.fit_s, found.latency_ms / 1000)
    verdict = "over" if row.over_limits else row.verdict
    return Point(row.key, row.label, verdict, fit, each, is_main, _figures(candidate))


def _figures(candidate: Candidate) -> dict[str, Figure]:
    from taskfit.evaluation.intervals import metric_interval

    found = dict(candidate.metrics)
    if has_probabilities(candidate):
        found |= {name: metric_interval(name, candidate.runs) for name in _CALIBRATION if name not in found}
    figures = {name: Figure(one.value, one.low, one.high) for name, one in found.items()}
    return {name: one for name, one in figures.items() if all(map(isfinite, (one.value, one.low, one.high)))}
