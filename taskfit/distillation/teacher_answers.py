"""From a teacher's labels to rows that a student can learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from taskfit.distillation.known import confidences_of, known_rows
from taskfit.distillation.review import reviewed
from taskfit.errors import DataError
from taskfit.prompting.asking import CUE
from taskfit.tasks.task import Row, TeacherAnswer

if TYPE_CHECKING:
    from taskfit.distillation.known import Known
    from taskfit.distillation.ledger import Label, Ledger
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Task, Value

__all__ = ["TeacherAnswers", "Soft", "Weigh", "read_answers"]

Soft = Literal["hard", "soft"]
Weigh = Literal["none", "confidence"]

_SHOWN = 3


@dataclass(frozen=True)
class TeacherAnswers:
    """What a ledger teaches.

    Attributes:
        rows: with answers of the teacher; their texts stand in no other split of the task.
        findings: JSON values for people: how many rows, how good the teacher is where that is known.
        sentences: what the user must see, among it what cannot be known.
    """

    rows: tuple[Row, ...]
    findings: dict[str, Value]
    sentences: tuple[str, ...]


def read_answers(
    task: Task, ledger: Ledger, *, soft: Soft, weigh: Weigh, needs_reasons: bool, others: int
) -> TeacherAnswers:
    """Turn the labels of a ledger's training rows into what a student learns; a person's review goes before them.

    Args:
        task: what the student is to solve; rows whose text stands in its validation or test are left out, and answers
            that are none of its answers, too.
        ledger: with labels.
        soft: ``soft``: the teacher's probabilities are learnt, the answer's corrected by what it was worth on rows
            with people's answers.
        weigh: ``confidence``: rows weigh by it.
        needs_reasons: whether the student learns rationales.
        others: rows that are learnt besides.

    Raises:
        DataError: no label can be learnt from, all are the same while nothing else is learnt, or there are no reasons
            where they are needed.
    """
    definition = task.definition
    labels = {part: list(ledger.labels(part)) for part in ("train", "audit", "human")}
    people = reviewed(ledger.connection)
    known = known_rows(definition, ledger, labels, people)
    calibrator = known.calibrator
    confidences = confidences_of(calibrator, labels["train"])
    seen = {definition.question_text(row) for split in ("validation", "test") for row in task.splits[split]}
    kept, sentences = _usable(definition, labels["train"], people, seen)
    made = [_answer(found, people, confidences, calibrator.rows > 0, soft, weigh) for found in kept]
    _check(made, kept, definition, others, needs_reasons)
    sentences += _doubts(made, kept, confidences, known, soft, weigh)
    taken = {row.id for split in task.splits.values() for row in split}
    rows = tuple(
        Row(f"taught/{found.row.id}" if found.row.id in taken else found.row.id, found.row.fields, said)
        for found, said in zip(kept, made, strict=True)
    )
    findings: dict[str, Value] = {
        "rows": len(rows),
        "failed_rows": len(ledger.failures()),
        "answers": dict(Counter(said.answer for said in made).most_common(50)) if definition.labels else {},
        "calibration": calibrator.note,
        "spent_usd": ledger.spent_usd,
        **_agreement(known),
    }
    return TeacherAnswers(rows, findings, tuple(sentences))


def _usable(
    definition: TaskDefinition, labels: Sequence[Label], people: Mapping[str, str], seen: set[str]
) -> tuple[list[Label], list[str]]:
    """Return the labels that may be learnt, and sentences on those that may not."""
    kept, strangers, leaked = [], [], 0
    for found in labels:
        answer = people.get(found.row.id, found.answer)
        allowed = {option.value for option in definition.options(found.row)}
        if definition.question_text(found.row) in seen:
            leaked += 1
        elif (allowed and answer not in allowed) or not answer.strip():
            strangers.append(answer)
        else:
            kept.append(found)
    sentences = []
    if leaked:
        sentences.append(f"{leaked} labelled rows are left out: their texts stand in validation or test")
    if strangers:
        shown = ", ".join(repr(answer[:40]) for answer in dict.fromkeys(strangers[:_SHOWN]))
        sentences.append(f"warning: {len(strangers)} answers are none of the task's and are left out, such as {shown}")
    return kept, sentences


def _answer(
    found: Label,
    people: Mapping[str, str],
    confidences: Mapping[str, float | None],
    is_calibrated: bool,
    soft: Soft,
    weigh: Weigh,
) -> TeacherAnswer:
    if found.row.id in people:
        return TeacherAnswer(people[found.row.id])
    confidence = confidences[found.row.id]
    weight = confidence if weigh == "confidence" and confidence is not None else 1.0
    shares = None
    if soft == "soft" and found.probabilities is not None:
        shares = dict(found.probabilities)
        if is_calibrated and confidence is not None:
            shares = _with_share(shares, found.answer, confidence)
    return TeacherAnswer(found.answer, shares, weight, found.raw.partition(CUE)[0].strip())


def _with_share(shares: Mapping[str, float], answer: str, confidence: float) -> dict[str, float]:
    """Give the answer its calibrated share; the others divide the rest as before, equally where they had nothing."""
    others = {label: share for label, share in shares.items() if label != answer}
    if not others:
        return {answer: 1.0}
    if sum(others.values()) <= 0:  # a model that is very sure rounds its probability to 1
        others = dict.fromkeys(others, 1.0)
    scale = (1 - confidence) / sum(others.values())
    return {label: confidence if label == answer else others[label] * scale for label in {**shares, answer: 1.0}}


def _check(
    made: Sequence[TeacherAnswer], kept: Sequence[Label], definition: TaskDefinition, others: int, needs_reasons: bool
) -> None:
    if not made:
        raise DataError(
            "no label of the teacher can be learnt from: every answer was invalid, or failed",
            "look at the ledger's failures; take a program that scores the labels, such as zero-shot",
        )
    answers = {said.answer for said in made}
    if definition.kind == "classification" and len(answers) == 1 and len(made) > 1 and not others:
        raise DataError(
            f"the teacher gave all {len(made)} rows the same label, {made[0].answer!r}: there is nothing to learn",
            "take another teacher, or another wording",
        )
    if needs_reasons and not any(said.rationale for said in made):
        raise DataError(
            "the student learns rationales, and the teacher wrote none: it gives answers alone",
            "take a teacher that reasons, such as chain-of-thought",
        )


def _doubts(
    made: Sequence[TeacherAnswer],
    kept: Sequence[Label],
    confidences: Mapping[str, float | None],
    known: Known,
    soft: Soft,
    weigh: Weigh,
) -> list[str]:
    """Return what a user would otherwise take for granted."""
    sentences = []
    without = sum(found.probabilities is None for found in kept)
    if soft == "soft" and without:
        sentences.append(f"warning: {without} labels came without probabilities and are learnt as hard ones")
    levels = {confidences[found.row.id] for found in kept}
    if weigh == "confidence" and len(kept) > 1 and len(levels) == 1:
        sentences.append("warning: weight=confidence changes nothing: the teacher is equally sure of all rows")
    if not known.rows:
        sentences.append(
            "no row has a person's label that the teacher has not seen: how often it is right cannot be known"
        )
    return sentences


def _agreement(known: Known) -> dict[str, Value]:
    if not known.rows:
        return {"agreement": None}
    from taskfit.evaluation.intervals import wilson

    rate = wilson(sum(known.is_right), len(known.rows))
    return {"agreement": {"rows": len(known.rows), "value": rate.value, "low": rate.low, "high": rate.high}}


def with_train(task: Task, rows: Iterable[Row]) -> Task:
    """Return the task with other training rows, for a student to learn; its fingerprint covers them."""
    from taskfit.tasks.identity import fingerprint

    splits = {**task.splits, "train": tuple(rows)}
    return replace(task, splits=splits, fingerprint=fingerprint(task.definition, splits), mixture=None)
