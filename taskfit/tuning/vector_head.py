"""Logistic regression over vectors of texts that stay as they are: the head of students that train nothing below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STRENGTHS", "VectorHead", "choose_head", "expanded", "fit_head", "load_head", "save_head"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse strengths of the regularisation that are tried on validation rows."""

_MOST_ITERATIONS = 500
_FILE = "head.safetensors"


@dataclass(frozen=True)
class VectorHead:
    """A linear layer.

    Attributes:
        coefficients: shape (classes, width), float32, as they are saved.
        intercept: shape (classes,), float32.
    """

    coefficients: NDArray[np.float32]
    intercept: NDArray[np.float32]

    def probabilities(self, vectors: NDArray[np.float32]) -> FloatArray:
        """Return the probability of each class for each vector, shape (texts, classes); rows sum to 1."""
        scores = (vectors @ self.coefficients.T + self.intercept).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        normed: FloatArray = shares / shares.sum(axis=1, keepdims=True)
        return normed


def expanded(targets: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Return soft targets as hard ones: (row, class, weight) of every share above 0.

    Cross-entropy against shares is the weighted sum of those against their classes, so any learner that knows weights
    learns from shares.

    Args:
        targets: shape (rows, classes).
    """
    rows, classes = np.nonzero(targets)
    return rows, classes, targets[rows, classes]


def fit_head(vectors: NDArray[np.float32], targets: FloatArray, strength: float) -> VectorHead:
    """Fit one head, on one thread, so that the rounding does not hang on their number.

    Vectors are brought to mean 0 and their columns together to variance 1 first, which the head undoes: strengths then
    mean the same for every encoder.

    Args:
        vectors: shape (rows, width).
        targets: shape (rows, classes); see :func:`taskfit.tuning.teacher_answers.class_targets`.
        strength: scikit-learn's C.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    rows, classes, weights = expanded(targets)
    count = targets.shape[1]
    seen = np.unique(classes)
    coefficients, intercept = np.zeros((count, vectors.shape[1])), np.full(count, -np.inf)
    if len(seen) == 1:
        intercept[seen] = 0.0
        return _head(coefficients, intercept)
    middle = vectors.mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(vectors.var(axis=0, dtype=np.float64).mean())) or 1.0
    moved = (vectors - middle) / scale
    regression = LogisticRegression(C=strength / vectors.shape[1], max_iter=_MOST_ITERATIONS)
    with threadpool_limits(1):
        regression.fit(moved[rows], classes, sample_weight=weights)
    found, offset = regression.coef_, regression.intercept_
    if len(seen) == 2:  # scikit-learn keeps the second class alone
        found, offset = np.vstack([-found / 2, found / 2]), np.concatenate([-offset / 2, offset / 2])
    coefficients[seen] = found / scale
    intercept[seen] = offset - coefficients[seen] @ middle
    return _head(coefficients, intercept)


def choose_head(
    vectors: NDArray[np.float32],
    targets: FloatArray,
    judged: tuple[NDArray[np.float32], Sequence[int]],
    strength: float | None,
) -> tuple[VectorHead, float]:
    """Return the head and the strength with the least cross-entropy on rows that it did not learn from.

    Args:
        vectors: to learn from, shape (rows, width).
        targets: what of, shape (rows, classes).
        judged: vectors of validation rows and their class numbers; where there are none, the middle strength is taken.
        strength: the one to take; None: the best of :data:`STRENGTHS`.
    """
    tried = STRENGTHS if strength is None else (strength,)
    if not len(judged[1]) and strength is None:
        tried = STRENGTHS[1:2]
    heads = [fit_head(vectors, targets, one) for one in tried]
    losses = [_loss(head, *judged) for head in heads]
    best = losses.index(min(losses))
    return heads[best], tried[best]


def save_head(head: VectorHead, folder: Path) -> None:
    """Write the head into an existing folder."""
    from safetensors.numpy import save_file

    numbers = {"weight": np.ascontiguousarray(head.coefficients), "bias": np.ascontiguousarray(head.intercept)}
    save_file(numbers, folder / _FILE)


def load_head(folder: Path, classes: int, width: int) -> VectorHead:
    """Read what :func:`save_head` wrote.

    Raises:
        PredictorError: it is missing, or of another shape, or holds NaN.
    """
    from taskfit.tuning.numbers_file import read_numbers

    shapes = {"weight": (classes, width), "bias": (classes,)}
    numbers = read_numbers(folder / _FILE, shapes, np.float32)
    return VectorHead(numbers["weight"], numbers["bias"])


def _head(coefficients: FloatArray, intercept: FloatArray) -> VectorHead:
    """Round to what is saved; a class without rows gets a score so low that its probability is 0."""
    lowest = -1e4
    return VectorHead(
        coefficients.astype(np.float32), np.where(np.isfinite(intercept), intercept, lowest).astype(np.float32)
    )


def _loss(head: VectorHead, vectors: NDArray[np.float32], classes: Sequence[int]) -> float:
    if not len(classes):
        return 0.0
    shares = head.probabilities(vectors)[np.arange(len(classes)), list(classes)]
    return float(-np.log(np.maximum(shares, 1e-6)).mean())
