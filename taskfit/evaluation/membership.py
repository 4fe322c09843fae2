"""Hints that a model has seen a test set: from its own probabilities, without its training data.

They are hints only. Probabilities depend on how usual a text is as well as on whether it was seen, so a value means
something only beside those of texts of which it is known whether the model saw them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from taskfit.errors import ConfigError, DataError

__all__ = ["min_k_probability", "order_test"]


def min_k_probability(log_probabilities: Sequence[float], *, share: float = 0.2) -> float:
    """Return the mean log-probability of a text's least likely tokens; higher hints that the text was seen.

    A text that a model has seen holds no great surprises.

    Args:
        log_probabilities: of each token given those before it, natural logarithm.
        share: of the tokens, the least likely ones; at least one token.

    Raises:
        DataError: no tokens, or a log-probability that is NaN or above 0.
        ConfigError: share not above 0 and at most 1.
    Source: Shi et al. 2024, section 4 (Min-K% Prob; 20 % there).
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share must be above 0 and at most 1 (got {share}); 0.2 is usual")
    if not log_probabilities or any(math.isnan(value) or value > 1e-6 for value in log_probabilities):
        raise DataError(f"expected log-probabilities of at least one token, none above 0 (got {log_probabilities!r})")
    least = sorted(log_probabilities)[: max(1, math.floor(share * len(log_probabilities)))]
    return math.fsum(least) / len(least)


def order_test(as_published: Sequence[float], shuffled: Sequence[Sequence[float]]) -> float:
    """Return how likely a model prefers the published order of a test set so much, had it never seen it.

    Rows of a test set have no natural order, so a model that likes the published one has read it there. Cut the set
    into shards of rows, and take the model's log-probability of each shard in the published order and in several
    random orders.

    Args:
        as_published: log-probability of each shard in the published order, at least two.
        shuffled: of each shard, its log-probabilities in random orders, at least one.

    Returns:
        The one-sided p-value of a t test over shards.

    Raises:
        DataError: too few shards or orders, or values that are not finite.
    Source: Oren et al. 2024, section 3.2 (sharded likelihood comparison).
    """
    if len(as_published) < 2 or len(shuffled) != len(as_published) or not all(shuffled):
        raise DataError(
            f"expected at least 2 shards, each with at least one random order "
            f"(got {len(as_published)} shards and orders of {len(shuffled)})"
        )
    gains = np.array([value - np.mean(others) for value, others in zip(as_published, shuffled, strict=True)])
    if not np.isfinite(gains).all():
        raise DataError("log-probabilities of shards must be finite numbers")
    spread = float(gains.std(ddof=1)) / math.sqrt(len(gains))
    if spread == 0:
        return 1.0 if gains[0] <= 0 else 0.0
    from scipy.stats import t

    return float(t.sf(float(gains.mean()) / spread, len(gains) - 1))
