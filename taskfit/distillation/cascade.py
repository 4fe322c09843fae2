"""A small model first, a large one where it is in doubt, a person where that is: the strategy ``cascade``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from taskfit.distillation.choosing import shuffled
from taskfit.distillation.confidence import Calibrator, fit_calibrator, own_confidence
from taskfit.distillation.teacher import only_prompts
from taskfit.distillation.thresholds import Escalation, RangePoint, certify, fewest_rows, range_of
from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Prediction, Strategy
from taskfit.strategy.folder import new_folder, write_file
from taskfit.strategy.grammar import parse, part_name
from taskfit.strategy.manifest import new_manifest, read_manifest, write_manifest
from taskfit.strategy.parameters import check_types
from taskfit.strategy.predictor import WINDOW_ROWS, load_predictor, windows
from taskfit.tasks.identity import fingerprint

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, Predictor
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Kind, Row, Task, Value

__all__ = ["Cascade", "CascadePredictor", "Rule", "set_rule"]

FOR_A_PERSON = "for a person: neither student nor teacher is sure enough"
"""``raw`` of a prediction that is left to a person."""

_LINEAR, _ZERO_SHOT = parse("linear"), parse("zero-shot")


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


@dataclass(frozen=True)
class Cascade:
    """The student answers when it is sure, else the teacher, else a person.

    Half of the validation rows, which neither part sees, set the threshold: with a chance of ``confidence``, at least
    ``agreement`` of all such rows get the answer that the teacher would have given (``against=teacher``), or that
    people give (``against=people``), counting rows left to a person as right.

    Both parts share one model. Where both need it, both may only prompt, as training one would change the other.

    Source: Chen, Zaharia and Zou 2023, section 3 (cascade); Angelopoulos et al. 2021, section 2.2 (threshold).
    """

    student: Strategy = _LINEAR
    """Who is asked first, such as ``linear``."""
    teacher: Strategy = _ZERO_SHOT
    """Who is asked where the student is in doubt, such as ``few-shot(k=4)``."""
    agreement: float = 0.95
    """Share of rows that shall get the right answer."""
    confidence: float = 0.9
    """Chance with which that is kept, over the draw of the validation rows."""
    against: Literal["teacher", "people"] = "teacher"
    """Whose answers are right: the teacher's, or people's; only then rows are left to a person."""

    def __post_init__(self) -> None:
        faults = Faults("cascade")
        check_types(self, faults)
        for name in ("agreement", "confidence"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 < value < 1:
                faults.add(f"{name} must be between 0 and 1 (got {value})")
        if not faults.messages and self.student.architectures and self.teacher.architectures:
            trained = [part.name for part in (self.student, self.teacher) if not only_prompts(part)]
            if trained:
                faults.add(
                    f"{' and '.join(trained)} would change the model that both parts use; take a student without a "
                    "model (linear), or parts that only prompt"
                )
        faults.raise_as(ConfigError)

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Those that both parts can use; those of the one that needs a model."""
        sets = [part.architectures for part in (self.student, self.teacher) if part.architectures]
        return frozenset.intersection(*sets) if sets else frozenset()

    @property
    def kinds(self) -> frozenset[Kind]:
        """Tasks with labels or options, that both parts can solve."""
        kinds: frozenset[Kind] = frozenset({"classification", "choice"})
        return kinds & self.student.kinds & self.teacher.kinds

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> CascadePredictor:
        """Fit both parts, then set the threshold on validation rows that neither has seen.

        Raises:
            ConfigError: the task or the model does not suit, or there are no validation rows.
        """
        architecture = None if model is None else model.architecture
        fills_masks = model is not None and architecture == "encoder" and model.has_masked_head
        check_fit(self, task.definition.kind, architecture, has_masked_head=fills_masks)
        rows = shuffled(task.validation, seed)
        held, seen = rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]
        if not held:
            raise ConfigError("cascade sets its threshold on validation rows, and the task has none")
        splits = {**task.splits, "validation": tuple(seen)}
        rest = replace(task, splits=splits, fingerprint=fingerprint(task.definition, splits))
        student = self.student.fit(model if self.student.architectures else None, rest, seed=seed, budget=budget)
        teacher = self.teacher.fit(model if self.teacher.architectures else None, rest, seed=seed, budget=budget)
        rule, points = set_rule(
            student, teacher, held, seen, self.agreement, self.confidence, asks_people=self.against == "people"
        )
        budget.say(_sentence(rule, points, len(held), self))
        work = student.fit_work + teacher.fit_work + student.predict_work + teacher.predict_work
        state: dict[str, Value] = {"rule": _rule_json(rule), "range": [cast("Value", asdict(one)) for one in points]}
        needs_base = model is not None
        manifest = new_manifest(self, task, seed=seed, model=model, needs_base=needs_base, state=state, fit_work=work)
        return CascadePredictor(manifest, student, teacher, rule)

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> CascadePredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        parts = []
        for name in ("student", "teacher"):
            needs_base = read_manifest(folder / name).needs_base
            parts.append(load_predictor(folder / name, model=model if needs_base else None))
        return CascadePredictor(manifest, parts[0], parts[1], _rule_from_json(folder, manifest.state.get("rule")))


class CascadePredictor:
    """Student, teacher and the rule between them."""

    def __init__(self, manifest: Manifest, student: Predictor, teacher: Predictor, rule: Rule) -> None:
        self.strategy = manifest.strategy
        self.definition = manifest.definition
        self.fit_work = manifest.fit_work
        self.student, self.teacher, self.rule = student, teacher, rule
        self._manifest = manifest
        self._before = student.predict_work + teacher.predict_work
        self._answered = {"student": 0, "teacher": 0, "person": 0}

    @property
    def predict_work(self) -> Work:
        """Everything that both computed by ``predict`` so far."""
        return _less(self.student.predict_work + self.teacher.predict_work, self._before)

    @property
    def notes(self) -> tuple[str, ...]:
        """Who answered how many rows so far."""
        told = ", ".join(f"{name} {rows}" for name, rows in self._answered.items())
        return (f"cascade: rows answered by {told}",)

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row, in order. Rows for a person have no valid answer, and say so in ``raw``."""
        for window in windows(rows, WINDOW_ROWS):
            first = list(self.student.predict(window))
            sure = _confidences(self.rule.student, first)
            doubtful = [row for row, level in zip(window, sure, strict=True) if level < self.rule.threshold]
            second = {found.row_id: found for found in self.teacher.predict(doubtful)} if doubtful else {}
            levels = dict(zip(second, _confidences(self.rule.teacher, list(second.values())), strict=True))
            for found in first:
                yield self._decided(found, second.get(found.row_id), levels.get(found.row_id, 0.0))

    def save(self, folder: Path) -> None:
        """Write the predictor folder with those of both parts, whole or not at all.

        Raises:
            PredictorError: the folder exists, or cannot be written. ResourceError: the disk is full.
        """
        with new_folder(folder) as partial:
            self.student.save(partial / "student")
            self.teacher.save(partial / "teacher")
            needs_base = any(read_manifest(partial / name).needs_base for name in ("student", "teacher"))
            write_file(partial / "cascade.md", _table(self._manifest.state.get("range")))
            write_manifest(partial, replace(self._manifest, needs_base=needs_base))

    def _decided(self, first: Prediction, second: Prediction | None, level: float) -> Prediction:
        if second is None:
            self._answered["student"] += 1
            return first
        counted = replace(
            second,
            tokens_in=first.tokens_in + second.tokens_in,
            tokens_out=first.tokens_out + second.tokens_out,
            cut_tokens=max(first.cut_tokens, second.cut_tokens),
        )
        if second.is_parsed and not (self.rule.asks_people and level < self.rule.threshold):
            self._answered["teacher"] += 1
            return counted
        self._answered["person"] += 1
        return replace(counted, answer="", is_parsed=False, raw=FOR_A_PERSON)


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
    first, second = list(student.predict(held)), list(teacher.predict(held))
    rows = _escalation(definition, held, first, second, makers, asks_people)
    threshold = certify(rows, agreement, confidence)
    level = math.inf if threshold is None else threshold
    rule = Rule(level, asks_people, makers[0], makers[1], threshold is not None)
    return rule, range_of(rows, confidence)


def _escalation(
    definition: TaskDefinition,
    held: Sequence[Row],
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    makers: Sequence[Calibrator],
    asks_people: bool,
) -> Escalation:
    import numpy as np

    sure = np.array(_confidences(makers[0], first))
    if not asks_people:
        differs = [a.answer != b.answer or not b.is_parsed for a, b in zip(first, second, strict=True)]
        return Escalation(sure, np.full(len(held), np.inf), np.array(differs), np.zeros(len(held), dtype=bool))
    wrong = []
    for part in (first, second):
        right = [one.is_parsed and one.answer in definition.gold(row) for one, row in zip(part, held, strict=True)]
        wrong.append(~np.array(right))
    return Escalation(sure, np.array(_confidences(makers[1], second)), wrong[0], wrong[1])


def _calibrated(definition: TaskDefinition, part: Predictor, rows: Sequence[Row]) -> Calibrator:
    said = [(row, found) for row, found in zip(rows, part.predict(rows), strict=True) if found.is_parsed]
    own = [own_confidence(found.answer, found.probabilities) for _, found in said]
    return fit_calibrator(own, [found.answer in definition.gold(row) for row, found in said])


def _confidences(maker: Calibrator, found: Sequence[Prediction]) -> list[float]:
    """Return how sure each answer is, 0 to 1; below any threshold but 0 where nothing is known, or nothing valid."""
    levels = maker.confidence([own_confidence(one.answer, one.probabilities) for one in found])
    return [-1.0 if not one.is_parsed or level is None else level for one, level in zip(found, levels, strict=True)]


def _sentence(rule: Rule, points: Sequence[RangePoint], held: int, asked: Cascade) -> str:
    promise = f"agreement of {asked.agreement:g} with {asked.against} at confidence {asked.confidence:g}"
    if not rule.is_certified:
        fewest = fewest_rows(asked.agreement, asked.confidence)
        who = "a person" if rule.asks_people else "the teacher"
        why = f"; it needs {fewest} held-out rows at least" if held < fewest else ""
        return f"cascade: {held} held-out rows cannot certify an {promise}{why}: {who} answers every row"
    levels = [point for point in points if point.threshold is None or point.threshold >= rule.threshold]
    share = levels[-1].student if levels else 0.0
    return f"cascade: certified an {promise} on {held} held-out rows; the student answers about {share:.0%} of rows"


def _rule_json(rule: Rule) -> dict[str, Value]:
    values = cast("dict[str, Value]", asdict(rule))
    return {**values, "threshold": None if math.isinf(rule.threshold) else rule.threshold}


def _rule_from_json(folder: Path, values: object) -> Rule:
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


def _less(work: Work, before: Work) -> Work:
    return type(work)(**{one.name: getattr(work, one.name) - getattr(before, one.name) for one in fields(work)})


def _table(points: object) -> str:
    """Return cost against agreement for the whole range, as Markdown."""
    lines = [
        "# Who answers, and how often that is right, at every threshold",
        "",
        "On the held-out rows. The last column is a bound for that line alone; the guarantee is that of the rule.",
        "",
        "| confidence from | student | teacher | person | agreement | at least |",
        "|---|---|---|---|---|---|",
    ]
    for values in points if isinstance(points, list) else []:
        point = RangePoint(**values)
        level = "never" if point.threshold is None else f"{point.threshold:.6f}"
        shares = " | ".join(f"{share:.1%}" for share in (point.student, point.teacher, point.person))
        lines.append(f"| {level} | {shares} | {point.agreement:.1%} | {point.low:.1%} |")
    return "\n".join(lines) + "\n"
