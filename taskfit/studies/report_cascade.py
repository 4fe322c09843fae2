"""What each cascade of a study would cost and how often it would be right, at every threshold: a chart and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.studies.charts import Spec, axis, frame, picture
from taskfit.studies.folder import read_json

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate
    from taskfit.tasks.task import Value

__all__ = ["CascadePoint", "CascadeRange", "cascade_ranges", "found_by_cascade"]

_NUMBERS = ("student", "teacher", "person", "agreement", "low", "seconds")
_WIDTH, _HEIGHT = 560, 280


@dataclass(frozen=True)
class CascadePoint:
    """One threshold, on the rows that were held out for it.

    Attributes:
        threshold: confidence from which on the student answers; None: it never does.
        student, teacher, person: shares of rows that each answers.
        agreement: share of rows without a wrong answer.
        low: bound below it, for this threshold alone.
        usd: of 1,000 rows, for the time of both parts on the study's machine.
        is_chosen: whether it is the nearest to the cascade's own threshold that promises at least as much.
    """

    threshold: float | None
    student: float
    teacher: float
    person: float
    agreement: float
    low: float
    usd: float
    is_chosen: bool


@dataclass(frozen=True)
class CascadeRange:
    """One cascade, its first seed's.

    Attributes:
        key, label: the candidate's.
        chart: SVG; empty where no seconds were measured.
        points: from a student that never answers to one that always does.
        is_certified: whether the held-out rows could promise what was asked.
        against: whose answers are right, in words.
    """

    key: str
    label: str
    chart: str
    points: tuple[CascadePoint, ...]
    is_certified: bool
    against: str


def found_by_cascade(predictor: Path) -> dict[str, Value]:
    """Return the finding of a saved cascade, by its name; nothing where the predictor is none."""
    path = predictor / "predictor.json"
    state = read_json(path).get("state") if path.exists() else None
    rule = state.get("rule") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(rule, dict) or not state.get("range"):
        return {}
    kept: dict[str, Value] = {name: rule.get(name) for name in ("threshold", "is_certified", "asks_people")}
    return {"cascade": {**kept, "points": state["range"]}}


def cascade_ranges(candidates: Sequence[tuple[str, Candidate]], usd_per_hour: float) -> tuple[CascadeRange, ...]:
    """Return the ranges of those candidates that are cascades.

    Args:
        candidates: with their keys.
        usd_per_hour: of the study's machine.
    """
    found = ((key, one.label, one.results[0].findings.get("cascade")) for key, one in candidates)
    return tuple(
        _range(key, label, finding, usd_per_hour)
        for key, label, finding in found
        if isinstance(finding, dict) and _is_sound(finding)
    )


def _is_sound(finding: Mapping[str, Any]) -> bool:
    """What stands in a study's folder is looked at before it is drawn."""
    points, own = finding.get("points"), finding.get("threshold")
    return (
        isinstance(points, list)
        and bool(points)
        and (own is None or _is_number(own))
        and all(isinstance(one, dict) and all(_is_number(one.get(name)) for name in _NUMBERS) for one in points)
        and all(one.get("threshold") is None or _is_number(one["threshold"]) for one in points)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _range(key: str, label: str, finding: Mapping[str, Any], usd_per_hour: float) -> CascadeRange:
    given = finding["points"]
    chosen = _chosen([_level(one["threshold"]) for one in given], _level(finding.get("threshold")))
    points = tuple(_point(one, usd_per_hour, is_chosen=place == chosen) for place, one in enumerate(given))
    chart = picture(_spec(f"{key} {label}", points), kind="half") if any(one.usd for one in points) else ""
    people = "what people answer; a row that is left to a person counts as right"
    against = people if finding.get("asks_people") else "what the teacher answers"
    return CascadeRange(key, label, chart, points, finding.get("is_certified") is True, against)


def _point(given: Mapping[str, Any], usd_per_hour: float, *, is_chosen: bool) -> CascadePoint:
    student, teacher, person, agreement, low, seconds = (float(given[name]) for name in _NUMBERS)
    usd = 1000 * seconds / 3600 * usd_per_hour
    return CascadePoint(given["threshold"], student, teacher, person, agreement, low, usd, is_chosen)


def _level(threshold: float | None) -> float:
    return float("inf") if threshold is None else float(threshold)


def _chosen(levels: Sequence[float], own: float) -> int:
    """The lowest level not below the cascade's own: the table holds some of the levels that were tried."""
    fitting = [place for place, level in enumerate(levels) if level >= own]
    return fitting[-1] if fitting else 0


def _spec(name: str, points: Sequence[CascadePoint]) -> Spec:
    values = [
        {"usd": one.usd, "right": one.agreement, "low": one.low, "size": 140 if one.is_chosen else 36}
        | {"shape": "diamond" if one.is_chosen else "circle"}
        for one in points
    ]
    ends = [value for one in points for value in (one.low, one.agreement)]
    room = 0.05 * (max(ends) - min(ends)) or 0.05
    domain = [max(0.0, min(ends) - room), min(1.0, max(ends) + room)]
    scales = [
        {"name": "x", "domain": {"data": "points", "field": "usd"}, "range": "width", "zero": True, "nice": True},
        {"name": "y", "domain": domain, "range": "height", "zero": False},
    ]
    axes = [
        axis("x", "bottom", "US dollars for 1,000 rows", format="~g", grid=False),
        axis("y", "left", "agreement", format="~%"),
    ]
    x, y = {"scale": "x", "field": "usd"}, {"scale": "y", "field": "right"}
    accent = {"value": "var(--accent)"}
    bound = {"x": x, "y": y, "y2": {"scale": "y", "field": "low"}, "stroke": accent, "strokeOpacity": {"value": 0.5}}
    line = {"x": x, "y": y, "stroke": accent, "strokeDash": {"value": [4, 3]}}
    dot = {"x": x, "y": y, "size": {"field": "size"}, "shape": {"field": "shape"}, "fill": accent}
    marks = [
        {"type": kind, "from": {"data": "points"}, "encode": {"update": how}}
        for kind, how in (("rule", bound), ("line", line), ("symbol", dot))
    ]
    words = f"Agreement against cost of {name} at {len(points)} thresholds; the figures stand below."
    parts = {"data": [{"name": "points", "values": values}], "scales": scales, "axes": axes, "marks": marks}
    return frame(_WIDTH, _HEIGHT, description=words, parts=parts)
