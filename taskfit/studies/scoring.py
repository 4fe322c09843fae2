"""From stored predictions to what metrics look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.studies.predictions import StoredPrediction
    from taskfit.tasks.definition import TaskDefinition

__all__ = ["outcomes_of_trial", "score_all"]


def outcomes_of_trial(
    definition: TaskDefinition, rows: Sequence[StoredPrediction], groups: Mapping[str, str] | None = None
) -> Outcomes:
    """Return the outcomes of one trial.

    Args:
        definition: the task's.
        rows: its stored predictions.
        groups: row id to the group it belongs to; None: every row by itself.
    """
    from taskfit.evaluation.outcomes import outcomes

    return outcomes(
        definition.kind,
        [row.row_id for row in rows],
        [row.gold for row in rows],
        [row.answer for row in rows],
        labels=definition.labels,
        is_parsed=[row.is_parsed for row in rows],
        groups=None if groups is None else [groups[row.row_id] for row in rows],
        probabilities=[row.probabilities for row in rows],
        choices=[row.choices for row in rows],
    )


def score_all(definition: TaskDefinition, rows: Sequence[StoredPrediction]) -> dict[str, float]:
    """Return every metric of the task, by name."""
    from taskfit.evaluation.metrics import score

    found = outcomes_of_trial(definition, rows)
    return {name: score(name, found) for name in definition.metrics}
