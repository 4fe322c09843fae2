"""Let a teacher label rows: choose them, label them, write the data files and say how good the labels are."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.distillation.choosing import choose_rows
from taskfit.distillation.data_file import write_data
from taskfit.distillation.digests import rows_digest
from taskfit.distillation.labelling import label_all
from taskfit.distillation.ledger import Ledger, Part, open_ledger
from taskfit.distillation.ledger_notes import note_definition
from taskfit.distillation.report import make_report, write_report
from taskfit.distillation.review import disputed, read_review, reviewed, write_review
from taskfit.distillation.teacher import human_rows, load_teacher
from taskfit.errors import ConfigError, StudyError
from taskfit.strategy.contract import Budget
from taskfit.tasks import load_task, rows_from, unlabelled_rows
from taskfit.tasks.sources import FileSource

if TYPE_CHECKING:
    from taskfit.distillation.config import AnnotateConfig
    from taskfit.distillation.report import Report
    from taskfit.distillation.teacher import Teacher
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Predictor
    from taskfit.tasks.task import Row, Task

__all__ = ["annotate"]

_SEEN = (
    "the teacher was fitted elsewhere: where rows with people's labels had a say in that, its agreement is flattered "
    "and its confidences are too high"
)
_MOST_REVIEWED = 500


def _ignore(line: str) -> None:
    """Drop a line."""


def annotate(
    task_path: str | Path,
    teacher: Teacher,
    out: str | Path,
    config: AnnotateConfig,
    *,
    rows: str | Path | None = None,
    encoder: LanguageModel | None = None,
    student: LanguageModel | None = None,
    has_review: bool = False,
    say: Callable[[str], None] = _ignore,
) -> Report:
    """Label rows of a task by a teacher, into a folder; killed at any moment and called again, it goes on.

    Several processes may work on one folder with the same arguments: one chooses the rows, all label, and each ends
    when all rows are labelled. A person's review that was read back before counts in files and report.

    Args:
        task_path: the task file; one without ``data`` will do.
        teacher: who labels; see :func:`taskfit.distillation.teacher.name_teacher`.
        config: how many rows, which, and for how much.
        out: the folder: ``ledger.sqlite``, ``train`` and ``audit`` data files, ``report.json`` and ``report.md``.
        rows: file or glob of rows to label; None: the task's ``unlabelled`` sources.
        encoder: gives the vectors for ``diverse``; None: TF-IDF does.
        student: an encoder whose vectors the exchange rate's student learns from; None: TF-IDF.
        has_review: read ``review.csv`` back where a person filled it in; and write it with the rows still to look at.
        say: takes lines of progress and findings.

    Raises:
        StudyError: the folder belongs to another task, teacher or choice of rows, or to something else.
        SpendingError: the cap is reached. ServiceError: the service is away. What was labelled is kept.
        TaskfitError: the task, the teacher or the rows cannot be used.
    """
    task, folder = load_task(task_path, needs_rows=False), Path(out)
    if rows is None and not task.unlabelled:
        raise ConfigError("no rows to label: the task file names no `unlabelled` rows", "name a file with --rows")
    _check_folder(folder)
    sources = task.unlabelled if rows is None else (FileSource(str(rows)),)
    chosen_by = config.identity + ("" if encoder is None else f", vectors of {encoder.fingerprint[:16]}")
    identity = {"task": task.fingerprint, **teacher.identity, "rows": rows_digest(sources), "choice": chosen_by}
    with open_ledger(folder, identity) as ledger:
        with _alone(folder, say):
            predictor = load_teacher(
                teacher,
                task,
                ledger,
                folder,
                seed=config.seed,
                max_usd=config.max_usd,
                budget=Budget(say=say),
                answers=folder / "answers.sqlite",
            )
            if not ledger.is_filled:
                _choose(task, teacher, ledger, config, rows, encoder, say)
            note_definition(ledger.connection, task.definition)
        label_all(ledger, predictor, say)
        with _alone(folder, say):
            return _finish(task, teacher, ledger, predictor, folder, config, student, has_review, say)


def _choose(
    task: Task,
    teacher: Teacher,
    ledger: Ledger,
    config: AnnotateConfig,
    rows: str | Path | None,
    encoder: LanguageModel | None,
    say: Callable[[str], None],
) -> None:
    """Read all rows, and so find broken ones before any call is paid for; enter those to label."""
    found = choose_rows(
        task.definition,
        unlabelled_rows(task) if rows is None else rows_from(rows),
        config.count,
        audit=config.audit_rows,
        select=config.select,
        labelled=task.train,
        taken=[row for split in task.splits.values() for row in split],
        seed=config.seed,
        encoder=encoder,
    )
    people = human_rows(teacher, task, config.human, config.seed)
    if found.seen:
        say(f"{found.seen} rows left out: their texts stand in the task's own rows")
    if len(found.train) + len(found.audit) < config.count:
        say(f"only {found.pool} rows with different texts are there; all are labelled")
    say(f"to label: {len(found.train)} rows, {len(found.audit)} kept apart, {len(people)} with people's labels")
    _check_ids((*found.audit, *found.train), people)
    ledger.fill({"human": people, "audit": found.audit, "train": found.train})


def _check_ids(rows: Sequence[Row], others: Sequence[Row]) -> None:
    taken = {row.id for row in others}
    clash = next((row.id for row in rows if row.id in taken), None)
    if clash is not None:
        raise StudyError(f"the id {clash!r} stands on a row to label and on another", "give each row its own id")


def _finish(
    task: Task,
    teacher: Teacher,
    ledger: Ledger,
    predictor: Predictor,
    folder: Path,
    config: AnnotateConfig,
    student: LanguageModel | None,
    has_review: bool,
    say: Callable[[str], None],
) -> Report:
    path = folder / "review.csv"
    if has_review and path.exists():
        say(f"{read_review(path, task.definition, ledger)} rows of {path} read back")
    people = reviewed(ledger.connection)
    notes = [_SEEN] if teacher.folder is not None and teacher.may_have_learnt else []
    report, confidences = make_report(task, ledger, predictor, people, config, notes, student)
    parts: tuple[Part, ...] = ("train", "audit")
    for part in parts:
        write_data(
            folder / f"{part}.{config.format}",
            task.definition,
            ledger.labels(part),
            confidences,
            people,
            has_rationales=config.has_rationales,
        )
    write_report(folder, report)
    if has_review:
        rows = disputed(task.definition, ledger, confidences, _MOST_REVIEWED)
        write_review(path, task.definition, rows, confidences)
        say(f"{len(rows)} rows to look at stand in {path}; fill in `person` and run the same command again")
    return report


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is a file", "give a folder with --out")
    if folder.exists() and not (folder / "ledger.sqlite").exists() and any(folder.iterdir()):
        raise StudyError(f"{folder} holds files and no ledger", "give another folder with --out")


@contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock; a second process waits."""
    with (folder / "annotate.lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that works on {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
