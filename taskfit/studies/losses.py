"""What got lost on the way to the answers: texts that could not be read, worked examples without room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.predictions import StoredPrediction

__all__ = ["Losses", "losses_of"]

_EXAMPLES = 3
_MOST_TEXT = 300


@dataclass(frozen=True)
class Losses:
    """One candidate's losses on the test rows; its first seed's.

    Attributes:
        line: a sentence with the counts.
        examples: a few texts that could not be read as an answer, their ends, where the answer should stand.
    """

    candidate: str
    line: str
    examples: tuple[str, ...]


def losses_of(
    candidates: Sequence[Candidate], predictions: Mapping[str, Sequence[StoredPrediction]]
) -> tuple[Losses, ...]:
    """Return the losses of those candidates that have some, in order.

    Args:
        candidates: of the comparison.
        predictions: label of a candidate to its first seed's predictions.
    """
    found = (_losses(candidate, predictions[candidate.label]) for candidate in candidates)
    return tuple(one for one in found if one.line)


def _losses(candidate: Candidate, rows: Sequence[StoredPrediction]) -> Losses:
    unread = [row for row in rows if not row.is_parsed]
    dropped = candidate.results[0].counts.get("dropped_shots", 0)
    parts = []
    if unread:
        parts.append(f"{len(unread)} of {len(rows)} answers could not be read and count as wrong")
    if dropped:
        parts.append(f"{dropped} worked examples were left out of prompts that were too long for the model")
    shown = tuple(f"{row.row_id}: {_end(row.raw)}" for row in unread[:_EXAMPLES])
    return Losses(candidate.label, "; ".join(parts), shown)


def _end(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        return "(nothing)"
    return text if len(text) <= _MOST_TEXT else f"…{text[1 - _MOST_TEXT :]}"
