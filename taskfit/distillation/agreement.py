"""How good a teacher is: against people's labels, and whether its errors follow from the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError
from taskfit.evaluation.intervals import Interval, wilson

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Agreement", "SystematicErrors", "agreement", "systematic_errors"]

FloatArray = NDArray[np.float64]

_FOLDS = 5
_FEWEST_ERRORS = 10
_RIDGE = 1.0


@dataclass(frozen=True)
class Agreement:
    """A teacher's labels beside people's.

    Attributes:
        rate: share of rows with the same label; a row without a label of the teacher's counts as another label.
        kappa: Cohen's: agreement beyond that of two labellers who give these shares of labels by chance, at most 1.
            None where both give one and the same label only, so that nothing can lie beyond chance.
        confusion: (person's label, teacher's label) to rows; "" stands for no label.
    """

    rows: int
    rate: Interval
    kappa: float | None
    confusion: Mapping[tuple[str, str], int]


def agreement(people: Sequence[str], teacher: Sequence[str]) -> Agreement:
    """Compare labels row by row.

    Args:
        people: their labels.
        teacher: its labels of the same rows; "" where it gave none.

    Raises:
        ConfigError: no rows, or not equally many.
    Source: Cohen 1960 (kappa); Wilson 1927 (the interval).
    """
    if not people or len(people) != len(teacher):
        raise ConfigError(f"expected as many labels of people as of the teacher (got {len(people)}, {len(teacher)})")
    rows = len(people)
    same = sum(one == other for one, other in zip(people, teacher, strict=True))
    of_people, of_teacher = Counter(people), Counter(teacher)
    by_chance = sum(of_people[label] * of_teacher[label] for label in of_people) / rows**2
    kappa = None if by_chance == 1 else (same / rows - by_chance) / (1 - by_chance)
    return Agreement(rows, wilson(same, rows), kappa, Counter(zip(people, teacher, strict=True)))


@dataclass(frozen=True)
class SystematicErrors:
    """Whether a teacher's errors can be foretold from the text.

    A student learns the systematic part of a teacher's errors and averages the random part away.

    Attributes:
        auc: chance that a row with an error looks more like an error than one without, to a classifier that has seen
            neither; 0.5: no better than a coin. None where there are too few rows of either kind to tell.
        p_value: share of random assignments of the same errors to rows with at least this AUC, itself among them.
        words: that speak most for an error, the strongest first; only where ``is_systematic``.
    """

    errors: int
    rows: int
    auc: float | None
    p_value: float | None
    words: tuple[str, ...] = ()

    @property
    def is_systematic(self) -> bool:
        """Whether chance alone would hardly (p at most 0.05) make errors this predictable."""
        return self.p_value is not None and self.p_value <= 0.05


def systematic_errors(
    texts: Sequence[str], is_wrong: Sequence[bool], *, permutations: int = 999, seed: int = 0
) -> SystematicErrors:
    """Foretell errors from words by cross-validated ridge regression; compare with errors put on rows by chance.

    It needs at least 10 errors and 10 rows without. That no pattern is found does not prove that there is none: with
    few errors only strong ones show.

    Source: Ojala and Garriga 2010, section 3.1 (test 1).
    """
    rows, errors = len(texts), sum(is_wrong)
    if min(errors, rows - errors) < _FEWEST_ERRORS:
        return SystematicErrors(errors, rows, None, None)
    features, names = _word_features(texts)
    random = np.random.default_rng(seed)
    wrong = np.array(is_wrong, dtype=np.float64)
    shuffled = [random.permutation(wrong) for _ in range(permutations)]
    columns = np.stack([wrong, *shuffled], axis=1)  # (rows, 1 + permutations)
    aucs = _aucs(_cross_validated(features, columns, random.permutation(rows)), columns)
    p_value = float((aucs >= aucs[0] - 1e-12).mean())
    words = _telling(features, wrong, names) if p_value <= 0.05 else ()
    return SystematicErrors(errors, rows, float(aucs[0]), p_value, words)


def _word_features(texts: Sequence[str]) -> tuple[FloatArray, list[str]]:
    """Return TF-IDF vectors, shape (rows, words), and the words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", min_df=2, max_features=20_000)
    try:
        found: Any = vectorizer.fit_transform(texts)
    except ValueError:  # no word stands in two rows: nothing can be foretold
        return np.zeros((len(texts), 1)), [""]
    return found.toarray(), list(vectorizer.get_feature_names_out())


def _cross_validated(features: FloatArray, columns: FloatArray, order: NDArray[np.int64]) -> FloatArray:
    """Return for each row what a regression on the other folds says of it, for every column; shape as columns."""
    products = features @ features.T
    said = np.zeros_like(columns)
    for fold in range(_FOLDS):
        out = order[fold::_FOLDS]
        kept = np.setdiff1d(order, out)
        inner = products[np.ix_(kept, kept)] + _RIDGE * np.eye(len(kept))
        weights = np.linalg.solve(inner, columns[kept] - columns[kept].mean(axis=0))
        said[out] = products[np.ix_(out, kept)] @ weights  # a fold's mean would tell the errors it lacks
    return said


def _aucs(said: FloatArray, columns: FloatArray) -> FloatArray:
    """Return the area under the ROC curve of each column, ties counted half."""
    from scipy.stats import rankdata

    ranks = rankdata(said, axis=0)
    positive = columns.sum(axis=0)
    negative = len(columns) - positive
    areas: FloatArray = ((ranks * columns).sum(axis=0) - positive * (positive + 1) / 2) / (positive * negative)
    return areas


def _telling(features: FloatArray, wrong: FloatArray, names: Sequence[str], most: int = 10) -> tuple[str, ...]:
    inner = features @ features.T + _RIDGE * np.eye(len(features))
    weights = features.T @ np.linalg.solve(inner, wrong - wrong.mean())
    order = np.argsort(-weights, kind="stable")[:most]
    return tuple(names[place] for place in order if weights[place] > 0)
