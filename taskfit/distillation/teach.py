"""Where the answers of ``distil`` come from: a teacher that is asked now, or a folder of labels from before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.distillation.choosing import choose_rows
from taskfit.distillation.digests import folder_digest, model_digest, rows_digest
from taskfit.distillation.labelling import label_all
from taskfit.distillation.ledger import Ledger, Part, open_ledger
from taskfit.distillation.ledger_notes import labels_digest, noted_definition, noted_work
from taskfit.distillation.models import elsewhere, given_model
from taskfit.distillation.teacher import Teacher, human_rows, load_teacher, usd_of
from taskfit.distillation.teacher_answers import TeacherAnswers, read_answers
from taskfit.errors import ConfigError, StudyError
from taskfit.models.work import Work
from taskfit.tasks import unlabelled_rows
from taskfit.tasks.task import Row

if TYPE_CHECKING:
    from taskfit.distillation.distil import Distil
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget, Elsewhere, Predictor
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Task, Value

__all__ = ["Teaching", "check_rows", "data_digest", "teach"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Teaching:
    """What a student is given, and what it took.

    Attributes:
        rows: with answers of the teacher.
        own_work: what the teacher computed on the trial's model; empty where it has another, or none.
        elsewhere: what it computed on another.
        findings: JSON values for people.
    """

    rows: tuple[Row, ...]
    own_work: Work
    elsewhere: tuple[Elsewhere, ...]
    findings: dict[str, Value]


def teach(by: Distil, model: LanguageModel | None, task: Task, folder: Path, *, seed: int, budget: Budget) -> Teaching:
    """Return the answers that a strategy asks for.

    Args:
        by: says who teaches what.
        model: the trial's.
        task: its rows.
        folder: keeps the ledger, so that a fit that was killed goes on without paying twice.
        seed: of the choice of rows and of the teacher's fit.
        budget: takes lines of progress and findings.

    Raises:
        StudyError: a folder of labels is of another task, or none. DataError: its labels teach nothing.
    """
    if by.teacher_from is not None and _is_ledger(Path(by.teacher_from)):
        with open_ledger(Path(by.teacher_from), None) as ledger:
            _check_task(ledger, task, by.teacher_from)
            found = _read(by, task, ledger, budget.say)
            findings: dict[str, Value] = {"teacher": _teacher_of(ledger), "from": by.teacher_from, **found.findings}
        budget.say("distil: the labels were paid for before; their cost is no part of this fit")
        return Teaching(found.rows, Work(), (), findings)
    return _asked(by, model, task, folder, seed, budget)


def check_rows(by: Distil, task: Task) -> None:
    """Refuse a task without rows for the teacher, before anything runs.

    Raises:
        ConfigError: there are none, or none but those that it learnt from; conversations; no such folder.
    """
    if task.definition.messages is not None:
        raise ConfigError(f"{by.name}: rows that are conversations cannot be taught")
    if by.teacher_from is not None:
        folder = Path(by.teacher_from)
        if _is_ledger(folder):
            return
        if not (folder / "predictor.json").is_file():
            raise ConfigError(
                f"{by.name}: {folder} holds neither a saved predictor nor labels",
                "give a folder with predictor.json, or one that `taskfit annotate` wrote",
            )
    elif (check := getattr(by.teacher, "check_task", None)) is not None:
        check(task)
    if task.unlabelled:
        return
    hint = "name files with rows without answers under `unlabelled` in the task file"
    if by.human != "none":
        raise ConfigError(f"{by.name}: human={by.human} needs other rows for the teacher than those of people", hint)
    if by.teacher_from is None and getattr(by.teacher, "uses_train", True):
        raise ConfigError(f"{by.name}: the teacher learns from the only rows that it could label", hint)
    if not task.train:
        raise ConfigError(f"{by.name}: there are no rows to label", hint)


def data_digest(by: Distil, task: Task) -> str:
    """Return a digest of what is learnt besides the task's own rows; see :meth:`Distil.other_data`."""
    digest = sha256()
    if by.teacher_from is not None and _is_ledger(Path(by.teacher_from)):
        with open_ledger(Path(by.teacher_from), None) as ledger:
            return labels_digest(ledger.connection)
    if by.teacher_from is not None:
        digest.update(folder_digest(Path(by.teacher_from)).encode())
    if by.teacher_model is not None:
        digest.update(model_digest(by.teacher_model).encode())
    digest.update(rows_digest(task.unlabelled).encode())
    return digest.hexdigest()


def _asked(by: Distil, model: LanguageModel | None, task: Task, folder: Path, seed: int, budget: Budget) -> Teaching:
    """Let the teacher label what is not labelled yet."""
    say = budget.say
    if by.teacher_from is None:
        teacher = Teacher(by.teacher, None, given_model(by.teacher, by.teacher_model, model, budget))
    else:
        teacher = Teacher(None, Path(by.teacher_from), None)
    identity = {
        "task": task.fingerprint,
        **teacher.identity,
        "rows": rows_digest(task.unlabelled),
        "choice": f"{by.rows} rows, {by.judged_rows} judged, seed {seed}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with open_ledger(folder, identity) as ledger:
        predictor = load_teacher(teacher, task, ledger, folder, seed=seed, max_usd=None, budget=budget)
        if not ledger.is_filled:
            _fill(by, teacher, task, ledger, seed, say)
        label_all(ledger, predictor, say)
        found = _read(by, task, ledger, say)
        before = Work() if by.teacher_from is not None else predictor.fit_work  # a saved one was paid for elsewhere
        work, spent = before + noted_work(ledger.connection), _usd(predictor, ledger)
    its = getattr(predictor, "model", None)
    apart = elsewhere(its, model, work, Work())
    own = work if its is not None and apart is None else Work()
    findings: dict[str, Value] = {"teacher": predictor.strategy, "usd_of_labels": spent, **found.findings}
    say(_sentence(findings, None if its is None else its.name))
    return Teaching(found.rows, own, () if apart is None else (apart,), findings)


def _fill(by: Distil, teacher: Teacher, task: Task, ledger: Ledger, seed: int, say: Say) -> None:
    """Choose the rows: the task's unlabelled ones, or its training rows without a look at their labels."""
    taken = [row for split in task.splits.values() for row in split]
    rows = unlabelled_rows(task)
    if not task.unlabelled:
        rows, taken = iter(task.train), [*task.validation, *task.test]
        say(
            f"distil: the task names no `unlabelled` rows; the {len(task.train)} training rows are taken, labels hidden"
        )
        if teacher.folder is not None and teacher.may_have_learnt:
            say("warning: the saved teacher may have learnt these very rows, and be better on them than on new ones")
    most = by.rows if by.rows is not None else max(len(task.train), 10**9)
    found = choose_rows(task.definition, rows, most, audit=0, select="random", taken=taken, seed=seed)
    if found.seen:
        say(f"distil: {found.seen} rows left out: their texts stand in the task's own rows")
    judged = human_rows(teacher, task, by.judged_rows, seed)
    if judged and teacher.folder is not None and teacher.may_have_learnt:
        say("warning: the saved teacher may have chosen by these validation rows: its confidences may be too high")
    ids = {row.id for row in judged}
    train = [Row(f"u/{row.id}", row.fields) if row.id in ids else row for row in found.train]
    ledger.fill({"human": judged, "train": train})


def _read(by: Distil, task: Task, ledger: Ledger, say: Say) -> TeacherAnswers:
    others = len(task.train) if by.human != "none" else 0
    found = read_answers(task, ledger, soft=by.labels, weigh=by.weight, needs_reasons=by.needs_reasons, others=others)
    for sentence in found.sentences:
        say(f"distil: {sentence}")
    return found


def _sentence(findings: dict[str, Value], model: str | None) -> str:
    on = "" if model is None else f" on {model}"
    spent = findings["usd_of_labels"]
    price = "" if spent is None else f", {spent:.4f} USD"
    return (
        f"distil: {findings['teacher']}{on} labelled {findings['rows']} rows ({findings['failed_rows']} failed){price}"
    )


def _usd(predictor: Predictor, ledger: Ledger) -> float | None:
    parts: tuple[Part, ...] = ("train", "human")
    given = [found for part in parts for found in ledger.labels(part)]
    return usd_of(predictor, sum(found.tokens_in for found in given), sum(found.tokens_out for found in given))


def _is_ledger(folder: Path) -> bool:
    return (folder / "ledger.sqlite").is_file()


def _teacher_of(ledger: Ledger) -> str:
    found = ledger.connection.execute("SELECT value FROM identity WHERE name = 'teacher'").fetchone()
    return "unknown" if found is None else str(found[0])


def _check_task(ledger: Ledger, task: Task, name: str) -> None:
    """Refuse labels of another task: the same file, or one that asks the same of other rows."""
    kept = dict(ledger.connection.execute("SELECT name, value FROM identity"))
    if kept.get("task") == task.fingerprint:
        return
    other = noted_definition(ledger.connection)
    if other is None:
        raise StudyError(
            f"the labels in {name} are of another task, or of this one with other rows, and do not say of which",
            "label again with `taskfit annotate`",
        )
    differences = _differences(other, task.definition)
    if differences:
        raise StudyError(
            f"the labels in {name} are of another task: {'; '.join(differences)}",
            "give a folder whose task has the same kind, labels and input",
        )


def _differences(kept: TaskDefinition, now: TaskDefinition) -> list[str]:
    pairs = {"kind": (kept.kind, now.kind), "labels": (kept.labels, now.labels), "input": (kept.text, now.text)}
    return [
        f"its {name} is {before!r}, here it is {after!r}" for name, (before, after) in pairs.items() if before != after
    ]
