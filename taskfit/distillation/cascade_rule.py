"""When a cascade's student answers, when its teacher, when a person: the rule, its certificate, its file form."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from taskfit.distillation.confidence import Calibrator, fit_calibrator, own_confidence
from taskfit.distillation.thresholds import Escalation, RangePoint, certify, range_of
from taskfit.errors import PredictorError

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.strategy.contract import Prediction, Predictor
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Value

__all__ = ["Rule", "confidences", "range_table", "rule_from_json", "rule_json", "set_rule"]


@dataclass(frozen=True)
class Rule:
    """When who answers.

    Attributes:
        threshold: confidence from which on an answer is given; infinite: the student never answers.
        asks_people: whether the teacher, too, needs that confidence; otherwise it answers all that the student does
            not.
        student, teacher: make confidences of the parts' own probabilities.
        is_certified: false where the held-out rows could not certify any threshold, so that the teacher (or, with
            ``asks_people``, a person) answers everything.
    """

    threshold: float
    asks_people: bool
    student: Calibrator
    teacher: Calibrator
    is_certified: bool


def set_rule(
    student: Predictor,
    teacher: Predictor,
    held: Sequence[Row],
    seen: Sequence[Row],
    agreement: float,
    confidence: float,
    *,
    asks_people: bool,
) -> tuple[Rule, list[RangePoint]]:
    """Return the rule between two fitted predictors, of any two models, and what other thresholds would give.

    Args:
        student: asked first.
        teacher: asked where the student is in doubt.
        held: rows that neither has seen; the threshold is certified on them. Without ``asks_people`` they need no
            answers.
        seen: other rows with answers, to calibrate confidences; used with ``asks_people`` only. That they are poor
            costs rows answered, never the guarantee.
        agreement: share of rows that shall get the right answer.
        confidence: chance that they do.
        asks_people: whether people's answers are the right ones, and the rest is left to people.
    """
    definition = student.definition
    makers = [Calibrator(1.0, 0.0, 0, "the part's own word")] * 2
    if asks_people and seen:
        makers = [_calibrated(definition, part, seen) for part in (student, teacher)]
    (first, first_s), (second, second_s) = _timed(student, held), _timed(teacher, held)
    rows = _escalation(definition, held, first, second, makers, asks_people)
    threshold = certify(rows, agreement, confidence)
    level = math.inf if threshold is None else threshold
    rule = Rule(level, asks_people, makers[0], makers[1], threshold is not None)
    return rule, range_of(rows, confidence, seconds=(first_s, second_s))


def _timed(part: Predictor, rows: Sequence[Row]) -> tuple[list[Prediction], float]:
    """Return the answers, and the seconds of one row."""
    started = time.perf_counter()
    found = list(part.predict(rows))
    return found, (time.perf_counter() - started) / len(rows)


def _escalation(
    definition: TaskDefinition,
    held: Sequence[Row],
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    makers: Sequence[Calibrator],
    asks_people: bool,
) -> Escalation:
    import numpy as np

    sure = np.array(confidences(makers[0], first))
    if not asks_people:
        differs = [a.answer != b.answer or not b.is_parsed for a, b in zip(first, second, strict=True)]
        return Escalation(sure, np.full(len(held), np.inf), np.array(differs), np.zeros(len(held), dtype=bool))
    wrong = []
    for part in (first, second):
        right = [one.is_parsed and one.answer in definition.gold(row) for one, row in zip(part, held, strict=True)]
        wrong.append(~np.array(right))
    return Escalation(sure, np.array(confidences(makers[1], second)), wrong[0], wrong[1])


def _calibrated(definition: TaskDefinition, part: Predictor, rows: Sequence[Row]) -> Calibrator:
    said = [(row, found) for row, found in zip(rows, part.predict(rows), strict=True) if found.is_parsed]
    own = [own_confidence(found.answer, found.probabilities) for _, found in said]
    return fit_calibrator(own, [found.answer in definition.gold(row) for row, found in said])


def confidences(maker: Calibrator, found: Sequence[Prediction]) -> list[float]:
    """Return how sure each answer is, 0 to 1; below any threshold but 0 where nothing is known, or nothing valid."""
    levels = maker.confidence([own_confidence(one.answer, one.probabilities) for one in found])
    return [-1.0 if not one.is_parsed or level is None else level for one, level in zip(found, levels, strict=True)]


def rule_json(rule: Rule) -> dict[str, Value]:
    """Return the rule as plain JSON values; :func:`rule_from_json` gives it back."""
    values = cast("dict[str, Value]", asdict(rule))
    return {**values, "threshold": None if math.isinf(rule.threshold) else rule.threshold}


def rule_from_json(folder: Path, values: object) -> Rule:
    """Return the rule that a folder's manifest holds.

    Raises:
        PredictorError: the values are none of a rule.
    """
    if not isinstance(values, dict) or not _is_rule(values):
        raise PredictorError(f"{folder}: rule must hold a threshold, two calibrators and two truth values")
    threshold = values["threshold"]
    return Rule(
        math.inf if threshold is None else float(threshold),
        values["asks_people"],
        Calibrator(**values["student"]),
        Calibrator(**values["teacher"]),
        values["is_certified"],
    )


def _is_rule(values: Mapping[str, object]) -> bool:
    flags = values.get("asks_people"), values.get("is_certified")
    has_threshold = "threshold" in values and (values["threshold"] is None or _is_number(values["threshold"]))
    makers = values.get("student"), values.get("teacher")
    return has_threshold and all(isinstance(flag, bool) for flag in flags) and all(map(_is_calibrator, makers))


def _is_calibrator(values: object) -> bool:
    if not isinstance(values, dict) or set(values) != {"slope", "intercept", "rows", "note"}:
        return False
    are_numbers = _is_number(values["slope"]) and _is_number(values["intercept"])
    return are_numbers and type(values["rows"]) is int and isinstance(values["note"], str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def range_table(points: object) -> str:
    """Return cost against agreement for the whole range, as Markdown."""
    lines = [
        "# Who answers, and how often that is right, at every threshold",
        "",
        "On the held-out rows. `at least` is a bound for that line alone; the guarantee is that of the rule.",
        "",
        "| confidence from | student | teacher | person | agreement | at least | ms a row |",
        "|---|---|---|---|---|---|---|",
    ]
    for values in points if isinstance(points, list) else []:
        point = RangePoint(**values)
        level = "never" if point.threshold is None else f"{point.threshold:.6f}"
        shares = " | ".join(f"{share:.1%}" for share in (point.student, point.teacher, point.person))
        lines.append(f"| {level} | {shares} | {point.agreement:.1%} | {point.low:.1%} | {1000 * point.seconds:.3g} |")
    return "\n".join(lines) + "\n"
