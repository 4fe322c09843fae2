"""A task: what is to be solved, apart from how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.mixture import Mixture
    from taskfit.tasks.sources import Source

__all__ = ["DataReport", "Kind", "TeacherAnswer", "Option", "Row", "Split", "Task", "Value"]

Kind = Literal["classification", "choice", "generation"]
Split = Literal["train", "validation", "test"]
Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """What a teacher says of a row, for a student to learn in the place of the row's own answer.

    Attributes:
        answer: label value, option value or text.
        shares: answer to probability, to learn instead of the answer alone (soft labels); None: the answer is learnt.
        weight: of the row against the others, at least 0; 1 for a row that a person labelled.
        rationale: why the answer is right; empty where the teacher gave no reason.
    """

    answer: str
    shares: Mapping[str, float] | None = None
    weight: float = 1.0
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of data.

    Attributes:
        id: given by the data or a hash of the content; it stays the same to the last page of the report.
        fields: the values as read.
        teacher: a teacher's answer, which counts instead of the one in the fields; None: the data's own counts.
    """

    id: str
    fields: Mapping[str, Value]
    teacher: TeacherAnswer | None = None


@dataclass(frozen=True)
class Option:
    """One possible answer: its value in the data, and the text that a model is asked to give for it."""

    value: str
    text: str


@dataclass(frozen=True)
class DataReport:
    """What reading the data showed; nothing of it is ever silent.

    Attributes:
        files: every file read, with its number of rows.
        duplicate_rows: ids of rows dropped because an earlier row has exactly the same content.
        conflicting_rows: pairs of ids whose input is the same and whose answer differs (both are kept).
        made_splits: the splits that were cut from others because the task file names none.
        moved_rows: ids dropped from a split because the same input text stands in a split that goes before.
        dropped_rows: ids of rows dropped because they are faulty and the task file allows it (``faulty_rows: drop``).
        notes: further sentences for the user.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    duplicate_rows: tuple[str, ...] = ()
    conflicting_rows: tuple[tuple[str, str], ...] = ()
    made_splits: tuple[str, ...] = ()
    moved_rows: tuple[str, ...] = ()
    dropped_rows: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A definition with its rows.

    Attributes:
        definition: everything but the rows; a predictor keeps a copy of it.
        splits: rows of ``train``, ``validation`` and ``test``; no input text stands in two of them.
        fingerprint: hash of the definition and all rows; equal fingerprints mean the same task.
        path: the task file.
        unlabelled: sources of rows without an answer; ``unlabelled_rows(task)`` streams them.
        retain: files that a tuned model should not forget, or ``suite``, ``none``; they are no part of the task.
        mixture: other tasks to train with, which ``load_mixture(task)`` loads; None: there are none.
    """

    definition: TaskDefinition
    splits: Mapping[Split, tuple[Row, ...]]
    fingerprint: str
    report: DataReport
    path: Path | None = None
    unlabelled: tuple[Source, ...] = ()
    retain: tuple[str, ...] = ()
    mixture: Mixture | None = None

    @property
    def train(self) -> tuple[Row, ...]:
        """Rows that fit."""
        return self.splits["train"]

    @property
    def validation(self) -> tuple[Row, ...]:
        """Rows that choose: early stopping, hyper-parameters, prompts."""
        return self.splits["validation"]

    @property
    def test(self) -> tuple[Row, ...]:
        """Rows predicted once per trial, by the final predictor."""
        return self.splits["test"]
