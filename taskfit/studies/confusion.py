"""Which label was answered for which: the table of a classification task with few labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes

__all__ = ["Confusion", "confusion_of"]

_MOST_LABELS = 12


@dataclass(frozen=True)
class Confusion:
    """How often each right label was answered with each label, all seeds together.

    Attributes:
        answers: the labels, and "(none)" where some answers could not be parsed.
        counts: one row a right label, in the order of ``labels``.
    """

    candidate: str
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def confusion_of(name: str, labels: Sequence[str], runs: Sequence[Outcomes]) -> Confusion | None:
    """Count right labels by given answers over all runs; None where there are too few labels or too many for a page."""
    if not 2 <= len(labels) <= _MOST_LABELS:
        return None
    counts = {label: dict.fromkeys([*labels, "(none)"], 0) for label in labels}
    for run in runs:
        for gold, answer, is_parsed in zip(run.golds, run.answers, run.is_parsed, strict=True):
            counts[gold[0]][answer if is_parsed and answer in counts else "(none)"] += 1
    has_none = any(row["(none)"] for row in counts.values())
    answers = (*labels, "(none)") if has_none else tuple(labels)
    table = tuple(tuple(counts[label][answer] for answer in answers) for label in labels)
    return Confusion(name, tuple(labels), answers, table)
