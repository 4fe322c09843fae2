"""The strategies ``distil`` and ``step-by-step``: a teacher labels rows, a student learns from the labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

from taskfit.distillation.models import faults_of_sharing, shared_architectures
from taskfit.distillation.teacher_answers import Soft, Weigh, with_train
from taskfit.errors import ConfigError, Faults
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Labelling, Strategy
from taskfit.strategy.grammar import parse, part_name
from taskfit.strategy.parameters import check_types

if TYPE_CHECKING:
    from taskfit.distillation.teach import Teaching
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.strategy.contract import Budget, Predictor
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.task import Kind, Task

__all__ = ["Distil", "StepByStep"]

JUDGED_ROWS = 200
"""Most validation rows that the teacher labels, too, where its probabilities are learnt or weigh: they calibrate it."""

_LINEAR, _ZERO_SHOT = parse("linear"), parse("zero-shot")
_REASONING, _EXPLAINING = parse("chain-of-thought"), parse("lora(rationale=1.0)")


@dataclass(frozen=True)
class Distil:
    """A teacher labels rows and a student learns from its labels; what comes out is the student's predictor.

    The rows are the task's ``unlabelled`` ones, or its training rows with their labels hidden. For a task whose answers
    are texts this is sequence-level distillation (Kim and Rush 2016, section 3.2).

    Source: Csanády et al. 2024 (LlamBERT), section 3; Hinton et al. 2015, section 2 (soft labels).
    """

    student: Strategy = _LINEAR
    """Who learns: linear, static, linear-probe, encoder, encoder(tune=lora), or a tuning such as lora or full."""
    teacher: Strategy = _ZERO_SHOT
    """Who labels: any strategy that suits the task."""
    teacher_model: str | None = None
    """The teacher's model, by name; none: the trial's own."""
    teacher_from: str | None = None
    """Instead of both: the folder of a saved predictor, or one that ``taskfit annotate`` wrote labels into."""
    rows: int | None = 1000
    """Rows that the teacher labels, drawn at random; none: all. A folder of labels is taken whole."""
    labels: Soft = "hard"
    """Whether the student learns the teacher's answer, or its probabilities."""
    weight: Weigh = "none"
    """Whether rows weigh by the teacher's confidence."""
    human: Literal["none", "mixed", "after"] = "none"
    """What becomes of the task's own training labels: left aside, learnt together with the teacher's, or after them, as
    in LlamBERT's best row."""

    def __post_init__(self) -> None:
        faults = Faults(part_label(self))
        check_types(self, faults)
        if not faults.messages:
            self._check(faults)
        faults.raise_as(ConfigError)

    def _check(self, faults: Faults) -> None:
        if self.rows is not None and self.rows < 1:
            faults.add(f"rows must be at least 1 (got {self.rows})")
        if not getattr(self.student, "learns_from_teacher", False):
            faults.add(
                f"{self.student.name} cannot learn from a teacher; take linear, static, encoder, lora or the like"
            )
        if self.human == "after" and not getattr(self.student, "can_go_on", False):
            faults.add(
                f"human=after needs a student that is trained further: encoder or full (got {self.student.name})"
            )
        if self.teacher_from is None:
            for fault in faults_of_sharing(*self._parts, last_may_train=True):
                faults.add(fault)
            if not faults.messages and self.student.architectures == {"encoder"} and not self._teacher_is_apart:
                faults.add(f"name a teacher_model: {self.student.name} uses an encoder, which answers no prompts")
        elif self.teacher_model is not None or self.teacher != type(self).teacher:
            faults.add("give teacher and teacher_model, or teacher_from, not both")

    @property
    def _parts(self) -> tuple[tuple[Strategy, str | None], ...]:
        """Those that need a model, in the order in which they use it."""
        student: tuple[Strategy, str | None] = (self.student, None)
        return (student,) if self.teacher_from is not None else ((self.teacher, self.teacher_model), student)

    @property
    def _teacher_is_apart(self) -> bool:
        """Whether the teacher does not use the trial's model."""
        return self.teacher_from is not None or self.teacher_model is not None or not self.teacher.architectures

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """The student's; the teacher's too where it labels with the trial's model."""
        return shared_architectures(*self._parts)

    @property
    def kinds(self) -> frozenset[Kind]:
        """Tasks that both can solve."""
        return self.student.kinds if self.teacher_from is not None else self.student.kinds & self.teacher.kinds

    @property
    def leaves_model(self) -> bool:
        """Whether the trial's model stays as it is: the student needs none."""
        return not self.student.architectures

    @property
    def judged_rows(self) -> int:
        """Most validation rows that the teacher labels, too, to calibrate it."""
        return JUDGED_ROWS if self.labels == "soft" or self.weight == "confidence" else 0

    @property
    def labelling(self) -> Labelling:
        """What the teacher is asked; nothing where a folder holds the labels, or its predictor says what it costs."""
        if self.teacher_from is not None:
            return Labelling(self.teacher, None, None)
        return Labelling(self.teacher, self.teacher_model, None if self.rows is None else self.rows + self.judged_rows)

    @property
    def needs_reasons(self) -> bool:
        """Whether the student learns rationales."""
        return bool(getattr(getattr(self.student, "weights", None), "rationale", 0.0))

    def check_task(self, task: Task) -> None:
        """Refuse a task that has no rows for the teacher, or none but those that it learnt from.

        Raises:
            ConfigError: it has not, or its rows are conversations.
        """
        from taskfit.distillation.teach import check_rows

        check_rows(self, task)

    def other_data(self, task: Task) -> str:
        """Return a digest of the rows that the teacher labels, or of its folder, and of a model that is named."""
        from taskfit.distillation.teach import data_digest

        return data_digest(self, task)

    def labels_used(self, task: Task, train_rows: int | None) -> int:
        """Return how many labels of people are paid for: training rows where anybody learns them, and validation."""
        learns = self.human != "none" or (self.teacher_from is None and bool(getattr(self.teacher, "uses_train", True)))
        own = len(task.train) if train_rows is None else train_rows
        return (own if learns else 0) + len(task.validation)

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> Predictor:
        """Let the teacher label, then the student learn; killed and called again, no label is paid for twice.

        Raises:
            ConfigError: model or task do not suit. DataError: the labels teach nothing.
            StudyError: the ledger is of another task or teacher.
        """
        from taskfit.distillation.teach import teach

        architecture = None if model is None else model.architecture
        fills_masks = model is not None and architecture == "encoder" and model.has_masked_head
        check_fit(self, task.definition.kind, architecture, has_masked_head=fills_masks)
        self.check_task(task)
        with _scratch(budget) as folder:
            taught = teach(self, model, task, folder / "labels", seed=seed, budget=budget)
            student = self._learn(model, task, taught, seed, replace(budget, folder=folder / "student"))
        return _renamed(student, self, task, taught)

    def _learn(self, model: LanguageModel | None, task: Task, taught: Teaching, seed: int, budget: Budget) -> Predictor:
        """Let the student learn the answers, with or before people's labels."""
        mixed = (*taught.rows, *(task.train if self.human == "mixed" else ()))
        given = model if self.student.architectures else None
        first = replace(budget, folder=_made(budget.folder, "first"))
        fitted = self.student.fit(given, with_train(task, mixed), seed=seed, budget=first)
        if self.human != "after":
            return fitted
        budget.say(f"distil: {len(taught.rows)} rows of the teacher are learnt; now {len(task.train)} of people")
        then = replace(budget, folder=_made(budget.folder, "then"))
        further: Predictor = cast("Any", self.student).go_on(fitted, task, seed=seed, budget=then)
        return further

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> Predictor:
        """Build the saved predictor: it is the student's, whose full name its manifest holds."""
        return parse(manifest.strategy_in_full).restore(model, folder, manifest)


@dataclass(frozen=True)
class StepByStep(Distil):
    """The student learns two targets: the teacher's label, and why it is right; it is asked for the label alone.

    Source: Hsieh et al. 2023, section 3.2.
    """

    student: Strategy = _EXPLAINING
    """Who learns: a tuning with a weight of the rationales, such as lora(rationale=1.0) or full(rationale=0.5)."""
    teacher: Strategy = _REASONING
    """Who labels and says why: a program that reasons."""

    def _check(self, faults: Faults) -> None:
        super()._check(faults)
        if not self.needs_reasons:
            faults.add(f"student must learn rationales, as lora(rationale=1.0) does (got {self.student.name})")


def part_label(part: Distil) -> str:
    """Return the name in the table of a strategy that distils."""
    return "step-by-step" if isinstance(part, StepByStep) else "distil"


@contextmanager
def _scratch(budget: Budget) -> Iterator[Path]:
    """Yield the budget's folder, or one that is gone afterwards."""
    if budget.folder is not None:
        yield budget.folder
        return
    with TemporaryDirectory(prefix="taskfit-") as folder:
        yield Path(folder)


def _made(folder: Path | None, name: str) -> Path:
    assert folder is not None
    (folder / name).mkdir(parents=True, exist_ok=True)
    return folder / name


def _renamed(student: Predictor, by: Distil, task: Task, taught: Teaching) -> Predictor:
    """Let the student's predictor say where its labels came from; ``strategy_in_full`` stays its own."""
    fitted: Any = student
    work = student.fit_work + taught.own_work
    findings = {**fitted.manifest.findings, "distillation": taught.findings}
    fitted.manifest = replace(
        fitted.manifest, strategy=by.name, task_fingerprint=task.fingerprint, fit_work=work, findings=findings
    )
    fitted.strategy, fitted.fit_work = by.name, work
    fitted.elsewhere = (*getattr(student, "elsewhere", ()), *taught.elsewhere)
    return student
