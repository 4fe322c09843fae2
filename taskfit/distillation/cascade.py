"""A small model first, a large one where it is in doubt, a person where that is: the strategy ``cascade``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from taskfit.distillation.cascade_rule import Rule, confidences, range_table, rule_from_json, rule_json, set_rule
from taskfit.distillation.choosing import shuffled
from taskfit.distillation.models import elsewhere, faults_of_sharing, given_model, shared_architectures
from taskfit.distillation.teacher import only_prompts
from taskfit.distillation.thresholds import RangePoint, fewest_rows
from taskfit.errors import ConfigError, Faults
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Elsewhere, Prediction, Strategy
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
    from taskfit.tasks.task import Kind, Row, Task, Value

__all__ = ["Cascade", "CascadePredictor"]

FOR_A_PERSON = "for a person: neither student nor teacher is sure enough"
"""``raw`` of a prediction that is left to a person."""

_LINEAR, _ZERO_SHOT = parse("linear"), parse("zero-shot")


@dataclass(frozen=True)
class Cascade:
    """The student answers when it is sure, else the teacher, else a person.

    Half of the validation rows, which neither part sees, set the threshold: with a chance of ``confidence``, at least
    ``agreement`` of all such rows get the answer that the teacher would have given (``against=teacher``), or that
    people give (``against=people``), counting rows left to a person as right.

    A part that names no model has the trial's. Where both have that, both may only prompt, as training one would change
    the other.

    Source: Chen, Zaharia and Zou 2023, section 3 (cascade); Angelopoulos et al. 2021, section 2.2 (threshold).
    """

    student: Strategy = _LINEAR
    """Who is asked first, such as ``linear``."""
    teacher: Strategy = _ZERO_SHOT
    """Who is asked where the student is in doubt, such as ``few-shot(k=4)``."""
    student_model: str | None = None
    """The student's model, by name; none: the trial's."""
    teacher_model: str | None = None
    """The teacher's model, by name; none: the trial's."""
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
        if not faults.messages:
            for fault in faults_of_sharing(*self._parts):
                faults.add(fault)
        faults.raise_as(ConfigError)

    @property
    def _parts(self) -> tuple[tuple[Strategy, str | None], ...]:
        return (self.student, self.student_model), (self.teacher, self.teacher_model)

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Those that the parts can use that name no model of their own."""
        return shared_architectures(*self._parts)

    @property
    def kinds(self) -> frozenset[Kind]:
        """Tasks with labels or options, that both parts can solve."""
        kinds: frozenset[Kind] = frozenset({"classification", "choice"})
        return kinds & self.student.kinds & self.teacher.kinds

    def other_data(self, task: Task) -> str:
        """Return the fingerprints of models that the parts name, which a trial's id would not hold otherwise."""
        from taskfit.distillation.digests import model_digest

        return " ".join(model_digest(named) for _, named in self._parts if named is not None)

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
        models = [given_model(part, named, model, budget) for part, named in self._parts]
        student = self.student.fit(models[0], rest, seed=seed, budget=budget)
        teacher = self.teacher.fit(models[1], rest, seed=seed, budget=budget)
        rule, points = set_rule(
            student, teacher, held, seen, self.agreement, self.confidence, asks_people=self.against == "people"
        )
        budget.say(_sentence(rule, points, len(held), self))
        state: dict[str, Value] = {"rule": rule_json(rule), "range": [cast("Value", asdict(one)) for one in points]}
        apart = _apart((student, teacher), model, [part.fit_work + part.predict_work for part in (student, teacher)])
        all_work = student.fit_work + teacher.fit_work + student.predict_work + teacher.predict_work
        work = _less(all_work, sum((one.fit_work for one in apart), type(all_work)()))
        base = next((one for one in models if one is not None and one.architecture == "service"), model)
        base = base or models[1] or models[0]
        manifest = new_manifest(
            self, task, seed=seed, model=base, needs_base=base is not None, state=state, fit_work=work
        )
        return CascadePredictor(manifest, student, teacher, rule, model, apart)

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> CascadePredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        # A part that changes the weights of a model it names must not do so to one that the other part asks.
        given = [None if named is not None and not only_prompts(part) else model for part, named in self._parts]
        student, teacher = (_restored(folder / at, one) for at, one in zip(("student", "teacher"), given, strict=True))
        rule = rule_from_json(folder, manifest.state.get("rule"))
        return CascadePredictor(manifest, student, teacher, rule, model)


class CascadePredictor:
    """Student, teacher and the rule between them.

    Args:
        manifest: what the folder will say.
        student: asked first.
        teacher: asked where the student is in doubt.
        rule: between them.
        model: the trial's; what parts compute on other models stands in ``elsewhere``.
        fitted_apart: what fitting computed on other models.
    """

    def __init__(
        self,
        manifest: Manifest,
        student: Predictor,
        teacher: Predictor,
        rule: Rule,
        model: LanguageModel | None = None,
        fitted_apart: Sequence[Elsewhere] = (),
    ) -> None:
        self.strategy = manifest.strategy
        self.definition = manifest.definition
        self.fit_work = manifest.fit_work
        self.student, self.teacher, self.rule = student, teacher, rule
        self.manifest = manifest
        self._model = model
        self._fitted_apart = tuple(fitted_apart)
        self._before = student.predict_work, teacher.predict_work
        self._answered = {"student": 0, "teacher": 0, "person": 0}

    @property
    def predict_work(self) -> Work:
        """Everything that the parts computed by ``predict`` so far on the trial's model, or on none."""
        total = self._computed[0] + self._computed[1]
        return _less(total, sum((one.predict_work for one in self.elsewhere), type(total)()))

    @property
    def elsewhere(self) -> tuple[Elsewhere, ...]:
        """What the parts computed on models that they name themselves."""
        predicted = _apart((self.student, self.teacher), self._model, self._computed)
        fitted = {one.model.fingerprint: one.fit_work for one in self._fitted_apart}
        nothing = type(self.fit_work)()
        return tuple(
            Elsewhere(one.model, fitted.get(one.model.fingerprint, nothing), one.fit_work) for one in predicted
        )

    @property
    def _computed(self) -> tuple[Work, Work]:
        """What student and teacher computed by ``predict`` so far."""
        return (
            _less(self.student.predict_work, self._before[0]),
            _less(self.teacher.predict_work, self._before[1]),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Who answered how many rows so far."""
        told = ", ".join(f"{name} {rows}" for name, rows in self._answered.items())
        return (f"cascade: rows answered by {told}",)

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row, in order. Rows for a person have no valid answer, and say so in ``raw``."""
        for window in windows(rows, WINDOW_ROWS):
            first = list(self.student.predict(window))
            sure = confidences(self.rule.student, first)
            is_sure = [level >= self.rule.threshold for level in sure]
            doubtful = [row for row, known in zip(window, is_sure, strict=True) if not known]
            second = list(self.teacher.predict(doubtful)) if doubtful else []
            asked = zip(second, confidences(self.rule.teacher, second), strict=True)
            unasked: tuple[Prediction | None, float] = (None, 0.0)
            for found, known in zip(first, is_sure, strict=True):  # by place: several rows may have one id
                yield self._decided(found, *(unasked if known else next(asked)))

    def save(self, folder: Path) -> None:
        """Write the predictor folder with those of both parts, whole or not at all.

        Raises:
            PredictorError: the folder exists, or cannot be written. ResourceError: the disk is full.
        """
        with new_folder(folder) as partial:
            self.student.save(partial / "student")
            self.teacher.save(partial / "teacher")
            parts = [read_manifest(partial / name) for name in ("student", "teacher")]
            base = "" if self.manifest.base is None else self.manifest.base.fingerprint
            needs_base = any(
                part.needs_base and part.base is not None and part.base.fingerprint == base for part in parts
            )
            write_file(partial / "cascade.md", range_table(self.manifest.state.get("range")))
            write_manifest(partial, replace(self.manifest, needs_base=needs_base))

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


def _less(work: Work, before: Work) -> Work:
    return type(work)(**{one.name: getattr(work, one.name) - getattr(before, one.name) for one in fields(work)})


def _apart(parts: Sequence[Predictor], trials: LanguageModel | None, works: Sequence[Work]) -> list[Elsewhere]:
    """Return what parts computed on other models than the trial's, as work of a fit; one entry a model."""
    found: dict[str, Elsewhere] = {}
    for part, work in zip(parts, works, strict=True):
        one = elsewhere(getattr(part, "model", None), trials, work, type(work)())
        if one is not None:
            before = found.get(one.model.fingerprint)
            found[one.model.fingerprint] = one if before is None else replace(one, fit_work=before.fit_work + work)
    return list(found.values())


def _restored(folder: Path, model: LanguageModel | None) -> Predictor:
    """Load a part: on the given model where it was fitted on that, else on the one that its folder names."""
    manifest = read_manifest(folder)
    is_its = model is not None and manifest.base is not None and manifest.base.fingerprint == model.fingerprint
    return load_predictor(folder, model=model if manifest.needs_base and is_its else None)
