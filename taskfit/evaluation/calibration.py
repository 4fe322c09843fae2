"""Do probabilities mean what they say? Calibration and selection from each row's probabilities.

A row's *confidence* is the probability of the answer that was given. All figures but the negative log-likelihood and
the Brier score look at confidence and rightness only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError
from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.overlap import is_right

__all__ = [
    "ReliabilityBin",
    "accuracy_at_coverage",
    "adaptive_edges",
    "area_under_risk_coverage",
    "bin_columns",
    "brier",
    "check_probabilities",
    "confidence",
    "equal_width_edges",
    "error_by_chance",
    "expected_calibration_error",
    "negative_log_likelihood",
    "rank_columns",
    "reliability",
]

FloatArray = NDArray[np.float64]

_SMALLEST = float(np.finfo(np.float64).eps)  # the probability that 0 counts as in logarithms, as in scikit-learn


def check_probabilities(outcomes: Outcomes) -> None:
    """Make sure that every row has probabilities.

    Raises:
        ConfigError: some have none; says how many.
    """
    missing = len(outcomes) if outcomes.probabilities is None else sum(p is None for p in outcomes.probabilities)
    if missing:
        raise ConfigError(
            f"calibration needs probabilities for every row; {missing} of {len(outcomes)} rows have none",
            "strategies that score labels or options give them, those that generate text do not",
        )


def confidence(outcomes: Outcomes) -> FloatArray:
    """Return each row's probability of its answer, shape (rows,); of its likeliest where no answer could be parsed."""
    check_probabilities(outcomes)
    rows = zip(outcomes.probabilities or (), outcomes.answers, outcomes.is_parsed, strict=True)
    return np.array([_of_answer(shares or {}, answer if parsed else None) for shares, answer, parsed in rows])


def negative_log_likelihood(outcomes: Outcomes) -> FloatArray:
    """Return -ln of the right answer's probability, in nats, shape (rows,); at most 36.04, where it is 0.

    Where several answers are right, their probabilities are added.
    """
    check_probabilities(outcomes)
    rows = zip(outcomes.probabilities or (), outcomes.golds, strict=True)
    right = [sum((shares or {}).get(gold, 0.0) for gold in dict.fromkeys(golds)) for shares, golds in rows]
    losses: FloatArray = -np.log(np.clip(right, _SMALLEST, 1.0))
    return losses


def brier(outcomes: Outcomes) -> FloatArray:
    """Return the squared distance between probabilities and the right answer, 0 to 2, shape (rows,).

    Summed over all answers, so with two labels twice the one-label form. Where several answers are right, the given
    one counts as the right one, or else the first.
    Source: Brier 1950.
    """
    check_probabilities(outcomes)
    rows = zip(outcomes.probabilities or (), outcomes.golds, outcomes.answers, strict=True)
    return np.array([_squares(shares or {}, answer if answer in golds else golds[0]) for shares, golds, answer in rows])


def equal_width_edges(bins: int) -> Callable[[Outcomes], FloatArray]:
    """Return the function that cuts 0 to 1 into bins of one width, whatever the run: the upper edges but the last."""
    return lambda _: np.linspace(0.0, 1.0, bins + 1)[1:-1]


def adaptive_edges(bins: int) -> Callable[[Outcomes], FloatArray]:
    """Return the function that cuts a run's confidences into bins of as many rows each; equal ones stay together.

    Source: Nguyen and O'Connor 2015, section 3; used with 10 bins by Liang et al. 2023, appendix C.2.
    """

    def edges(outcomes: Outcomes) -> FloatArray:
        cuts: FloatArray = np.quantile(confidence(outcomes), np.arange(1, bins) / bins, method="inverted_cdf")
        return np.unique(cuts)

    return edges


def bin_columns(edges_of: Callable[[Outcomes], FloatArray]) -> Callable[[Outcomes], Any]:
    """Return the function that gives, per row, its share in the bins: rightness - confidence, and 1; (rows, 2 x bins).

    A confidence on an edge belongs to the bin below, as in Guo et al. 2017.
    """

    def columns(outcomes: Outcomes) -> Any:
        from scipy.sparse import csr_array

        sure, edges, rows = confidence(outcomes), edges_of(outcomes), np.arange(len(outcomes))
        place, bins = np.digitize(sure, edges, right=True), len(edges) + 1
        values = np.concatenate([is_right(outcomes) - sure, np.ones(len(rows))])
        at = (np.concatenate([rows, rows]), np.concatenate([place, bins + place]))
        return csr_array((values, at), shape=(len(rows), 2 * bins))

    return columns


def error_by_chance(edges_of: Callable[[Outcomes], FloatArray]) -> Callable[[Outcomes], float]:
    """Return the function that gives the calibration error that chance alone would show, were a run well calibrated.

    In each bin accuracy and mean confidence then differ by a nearly normal error, whose mean size is
    sqrt(2 / pi) standard deviations.
    """

    def chance(outcomes: Outcomes) -> float:
        sure, edges = confidence(outcomes), edges_of(outcomes)
        spread = np.bincount(np.digitize(sure, edges, right=True), sure * (1 - sure))
        return float(np.sqrt(2 / np.pi * np.maximum(spread, 0.0)).sum()) / len(outcomes)

    return chance


def expected_calibration_error(sums: FloatArray) -> FloatArray:
    """Mean over bins, by their rows, of the distance between mean confidence and accuracy; from ``bin_columns``.

    It is never below 0, so chance alone keeps it above 0 for a perfectly calibrated run, the more the fewer the rows;
    ``error_by_chance`` says how much.
    Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    bins = sums.shape[-1] // 2
    return _divide(np.abs(sums[..., :bins]).sum(-1), sums[..., bins:].sum(-1))


def rank_columns(outcomes: Outcomes) -> Any:  # a scipy sparse array; scipy has no types
    """Return, per row, 1 and rightness at the rank of its confidence, the highest first; shape (rows, 2 x ranks).

    Rows of one confidence share a rank: whoever answers the one answers the other.
    """
    from scipy.sparse import csr_array

    ranks = np.unique(-confidence(outcomes), return_inverse=True)[1].ravel()
    rows, width = np.arange(len(outcomes)), int(ranks.max()) + 1
    values = np.concatenate([np.ones(len(rows)), is_right(outcomes)])
    at = (np.concatenate([rows, rows]), np.concatenate([ranks, width + ranks]))
    return csr_array((values, at), shape=(len(rows), 2 * width))


def area_under_risk_coverage(sums: FloatArray) -> FloatArray:
    """Mean share of wrong answers among the most confident rows, over all numbers of rows; from ``rank_columns``.

    Source: Geifman, Uziel and El-Yaniv 2019, equation 2.
    """
    counts, answered, right = _ranked(sums)
    risk = np.where(answered > 0, 1.0 - _divide(right, answered), 0.0)
    return _divide((counts * risk).sum(-1), counts.sum(-1))


def accuracy_at_coverage(coverage: float) -> Callable[[FloatArray], FloatArray]:
    """Return the function that gives the accuracy of the most confident share of rows, from ``rank_columns``.

    The fewest whole ranks that hold at least that share are taken.
    Source: Geifman and El-Yaniv 2017, section 2; coverage 0.1 as in Liang et al. 2023, appendix C.2.
    """

    def value(sums: FloatArray) -> FloatArray:
        _, answered, right = _ranked(sums)
        first = (answered >= coverage * answered[..., -1:] - 1e-9).argmax(-1)[..., None]
        taken, correct = np.take_along_axis(answered, first, -1), np.take_along_axis(right, first, -1)
        return _divide(correct[..., 0], taken[..., 0])

    return value


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of similar confidence: how sure they were and how often they were right."""

    low: float
    high: float
    rows: int
    mean_confidence: float
    accuracy: float


def reliability(outcomes: Outcomes, *, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram, of one width each, without the empty ones.

    Raises:
        ConfigError: rows without probabilities, or bins below 1.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1 (got {bins}); 10 is usual")
    edges = np.linspace(0.0, 1.0, bins + 1)
    sure, right = confidence(outcomes), is_right(outcomes)
    place = np.digitize(sure, edges[1:-1], right=True)
    return tuple(
        ReliabilityBin(
            float(edges[number]),
            float(edges[number + 1]),
            int(here.sum()),
            float(sure[here].mean()),
            float(right[here].mean()),
        )
        for number in range(bins)
        if (here := place == number).any()
    )


def _of_answer(shares: Any, answer: str | None) -> float:
    return float(max(shares.values()) if answer is None else shares.get(answer, 0.0))


def _squares(shares: Any, right: str) -> float:
    others = sum(share**2 for value, share in shares.items() if value != right)
    return float(others + (1.0 - shares.get(right, 0.0)) ** 2)


def _ranked(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return rows at each rank, and rows and right ones up to it."""
    ranks = sums.shape[-1] // 2
    counts = sums[..., :ranks]
    return counts, np.cumsum(counts, -1), np.cumsum(sums[..., ranks:], -1)


def _divide(top: FloatArray, bottom: FloatArray) -> FloatArray:
    quotient: FloatArray = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return quotient
