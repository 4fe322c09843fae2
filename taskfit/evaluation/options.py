"""Choice by other yardsticks: the same scores of options, divided by their length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from taskfit.errors import DataError
from taskfit.evaluation.outcomes import Outcomes

__all__ = ["chosen_by_score"]


def chosen_by_score(
    outcomes: Outcomes,
    log_probabilities: Mapping[str, Mapping[str, float]],
    lengths: Mapping[str, Mapping[str, int]] | None = None,
) -> Outcomes:
    """Return the outcomes that a run would have had, had it chosen the option with the highest score.

    Without ``lengths`` the score is the log-probability of the whole option (the *raw* choice); with them it is
    divided by the option's length (*length-normalised*), because every further token or byte makes a text less
    likely. Both are ordinary outcomes of the same rows: their accuracies can be paired, row by row. Probabilities are
    left out, because they belong to the scores that the run itself used.

    Args:
        outcomes: of a choice or classification task.
        log_probabilities: row id to option value to log-probability, natural, summed over the option's tokens.
        lengths: row id to option value to its length, in tokens, letters or bytes.

    Raises:
        DataError: a row without scores or with a score that is NaN, or options without a length of at least 1.
    Source: Brown et al. 2020, section 2.4 (per token); Gao 2021 (per byte, as in ``acc_norm``).
    """
    answers = tuple(
        _best(row_id, log_probabilities.get(row_id, {}), None if lengths is None else lengths.get(row_id, {}))
        for row_id in outcomes.row_ids
    )
    return replace(
        outcomes, answers=answers, is_parsed=np.ones(len(outcomes), dtype=np.bool_), probabilities=None, _memo={}
    )


def _best(row_id: str, scores: Mapping[str, float], lengths: Mapping[str, int] | None) -> str:
    """Return the option with the highest score, the first one of equals."""
    if not scores or any(np.isnan(score) for score in scores.values()):
        raise DataError(f"expected log-probabilities of the options of row {row_id!r} (got {dict(scores)})")
    if lengths is None:
        return max(scores, key=scores.__getitem__)
    if any(lengths.get(option, 0) < 1 for option in scores):
        raise DataError(f"every option of row {row_id!r} needs a length of at least 1 (got {dict(lengths)})")
    return max(scores, key=lambda option: scores[option] / lengths[option])
