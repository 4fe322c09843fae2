"""Rows whose right answer a person gave, beside the teacher's: what a teacher is judged and calibrated by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.distillation.confidence import Calibrator, fit_calibrator, own_confidence

if TYPE_CHECKING:
    from taskfit.distillation.ledger import Label, Ledger
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["Known", "confidences_of", "known_rows"]


@dataclass(frozen=True)
class Known:
    """Rows with the answers of people and of the teacher ("" for none).

    Attributes:
        own: the probability that the teacher gave its answer; None where it gave none.
        is_audit: whether the row is one of the random rows kept apart, which a person reviewed.
    """

    rows: list[Row]
    people: list[str]
    teacher: list[str]
    own: list[float | None]
    is_audit: list[bool]

    @property
    def is_right(self) -> list[bool]:
        """Whether the teacher gave the person's answer, one a row."""
        return [one == other for one, other in zip(self.people, self.teacher, strict=True)]

    @property
    def calibrator(self) -> Calibrator:
        """What the teacher's probabilities are worth, learnt from the rows that it answered."""
        answered = [
            (own, right) for own, right, said in zip(self.own, self.is_right, self.teacher, strict=True) if said
        ]
        return fit_calibrator([own for own, _ in answered], [right for _, right in answered])


def known_rows(
    definition: TaskDefinition, ledger: Ledger, labels: Mapping[str, Sequence[Label]], people: Mapping[str, str]
) -> Known:
    """Return the rows of a ledger with people's answers: from the data, or from a review, which goes before.

    Args:
        definition: gives the answers in the data.
        ledger: whose rows they are.
        labels: part to the teacher's labels.
        people: row id to the answer that a person gave in a review.
    """
    said = {found.row.id: found for part in labels.values() for found in part}
    known = Known([], [], [], [], [])
    for part in ("human", "audit"):
        for row in ledger.rows(part):
            if part == "audit" and row.id not in people:
                continue
            found = said.get(row.id)
            golds = (people[row.id],) if row.id in people else definition.gold(row)
            answer = "" if found is None else found.answer
            known.rows.append(row)
            known.people.append(answer if answer in golds else golds[0])
            known.teacher.append(answer)
            known.own.append(None if found is None else own_confidence(found.answer, found.probabilities))
            known.is_audit.append(part == "audit")
    return known


def confidences_of(calibrator: Calibrator, labels: Sequence[Label]) -> dict[str, float | None]:
    """Return row id to calibrated confidence."""
    own = [own_confidence(found.answer, found.probabilities) for found in labels]
    return dict(zip((found.row.id for found in labels), calibrator.confidence(own), strict=True))
