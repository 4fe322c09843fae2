"""How many labels of a teacher one label of a person is worth here, and when more of them no longer help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import ConfigError

__all__ = [
    "Curve",
    "ExchangeRate",
    "Gain",
    "LabelledTexts",
    "Student",
    "exchange_rate",
    "frozen_student",
    "last_gain",
    "learning_curves",
    "linear_student",
]

FloatArray = NDArray[np.float64]
LabelledTexts = tuple[Sequence[str], Sequence[str]]
"""Texts and their labels."""
Student = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[str]]
"""From texts and labels to learn from, and texts to label, to labels."""

_SMALLEST = 16
_RESAMPLES = 1000
_LEAST_GAIN = 0.005


@dataclass(frozen=True)
class Curve:
    """How right a student is after so many labels of one kind.

    Attributes:
        sizes: numbers of labels, rising by doubling; the last one is all there are.
        right: whether the student was right, shape (sizes, draws, test rows), as 0 and 1.
    """

    sizes: tuple[int, ...]
    right: FloatArray

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Mean over draws and test rows, one a size."""
        return tuple(float(value) for value in self.right.mean(axis=(1, 2)))


@dataclass(frozen=True)
class ExchangeRate:
    """``people`` labels of people are worth ``teacher`` labels of the teacher, for this student on these test rows.

    Attributes:
        teacher: labels of the teacher that bring the student as far; infinite where the largest number tried does not.
        low, high: hold it in ``level`` of resamples of test rows and draws; high may be infinite.
    """

    people: int
    accuracy: float
    teacher: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Gain:
    """What the last doubling of the teacher's labels brought, in accuracy, with its interval."""

    before: int
    after: int
    value: float
    low: float
    high: float

    @property
    def is_worth_it(self) -> bool:
        """Whether a gain of half a point is still within the interval; otherwise it is time to stop."""
        return self.high >= _LEAST_GAIN


def linear_student(texts: Sequence[str], labels: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Learn by TF-IDF and logistic regression (C = 10), the strategy ``linear`` without its choice of C."""
    from taskfit.tuning.tfidf import fit_linear

    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    fitted = fit_linear(texts, [numbers[label] for label in labels], (10.0,))[0]
    return [names[number] for number in fitted.probabilities(asked).argmax(axis=1)]


def frozen_student(vectors: Callable[[Sequence[str]], Any]) -> Student:
    """Return a student that learns a logistic regression over the vectors of an encoder that stays as it is.

    Args:
        vectors: texts to an array of shape (texts, width). It is asked once for each different text.
    """
    known: dict[str, FloatArray] = {}

    def table(texts: Sequence[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, np.asarray(vectors(new), dtype=np.float64), strict=True))
        return np.stack([known[text] for text in texts])

    def student(texts: Sequence[str], labels: Sequence[str], asked: Sequence[str]) -> list[str]:
        from sklearn.linear_model import LogisticRegression

        if len(set(labels)) == 1:
            return [labels[0]] * len(asked)
        fitted = LogisticRegression(C=10.0, max_iter=1000).fit(table(texts), list(labels))
        return [str(label) for label in fitted.predict(table(asked))]

    return student


def learning_curves(
    sources: dict[str, LabelledTexts], test: LabelledTexts, student: Student, *, draws: int = 5, seed: int = 0
) -> dict[str, Curve]:
    """Let a student learn from more and more labels of each source, and test it on people's labels.

    A draw is an order of the source's rows; its sizes are nested, so that a curve rises by more labels and not by
    luckier ones.

    Args:
        sources: name to texts and labels, at least 2 rows each.
        test: texts with people's labels, in none of the sources.
        student: who learns.
        draws: orders tried.
        seed: of the orders.

    Raises:
        ConfigError: a source or the test has too few rows.
    """
    texts, golds = test
    curves = {}
    for name, (source, labels) in sources.items():
        if len(source) < 2 or not texts or len(source) != len(labels):
            raise ConfigError(f"a learning curve needs 2 rows of {name} labels and 1 test row or more")
        sizes = _sizes(len(source))
        right = np.zeros((len(sizes), draws, len(texts)))
        for draw in range(draws):
            order = np.random.default_rng([seed, draw]).permutation(len(source))
            for place, size in enumerate(sizes):
                taken = order[:size]
                said = student([source[n] for n in taken], [labels[n] for n in taken], texts)
                right[place, draw] = [one == other for one, other in zip(said, golds, strict=True)]
        curves[name] = Curve(sizes, right)
    return curves


def exchange_rate(people: Curve, teacher: Curve, *, level: float = 0.95, seed: int = 0) -> list[ExchangeRate]:
    """Return, for each number of people's labels, the teacher's labels that bring the student as far.

    Both curves are made to rise (isotonic regression), and read between sizes on a logarithmic axis. Test rows, shared
    by both, and draws are resampled together for the interval. A number below the smallest size tried reads as that.
    """
    random = np.random.default_rng(seed)
    equal = _equal_sizes(people, teacher, people.right.mean(axis=(1, 2)), teacher.right.mean(axis=(1, 2)))
    resampled = []
    for _ in range(_RESAMPLES):
        rows = random.multinomial(people.right.shape[2], np.full(people.right.shape[2], 1 / people.right.shape[2]))
        means = [_resampled_means(curve, rows, random) for curve in (people, teacher)]
        resampled.append(_equal_sizes(people, teacher, *means))
    tails = np.quantile(np.array(resampled), [(1 - level) / 2, (1 + level) / 2], axis=0, method="closest_observation")
    accuracies = people.accuracy
    return [
        ExchangeRate(size, accuracies[n], float(equal[n]), float(tails[0][n]), float(tails[1][n]), level)
        for n, size in enumerate(people.sizes)
    ]


def last_gain(curve: Curve, *, level: float = 0.95, seed: int = 0) -> Gain | None:
    """Return what the last doubling brought, or None where the curve has one size only."""
    if len(curve.sizes) < 2:
        return None
    random = np.random.default_rng(seed)
    rows = curve.right.shape[2]
    gains = []
    for _ in range(_RESAMPLES):
        means = _resampled_means(curve, random.multinomial(rows, np.full(rows, 1 / rows)), random)
        gains.append(means[-1] - means[-2])
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    value = curve.accuracy[-1] - curve.accuracy[-2]
    return Gain(curve.sizes[-2], curve.sizes[-1], value, float(low), float(high))


def _resampled_means(curve: Curve, rows: NDArray[np.int64], random: np.random.Generator) -> FloatArray:
    """Return the accuracy at each size over the drawn rows (as counts) and drawn draws."""
    draws = random.integers(curve.right.shape[1], size=curve.right.shape[1])
    means: FloatArray = curve.right.mean(axis=1) if curve.right.shape[1] == 1 else curve.right[:, draws].mean(axis=1)
    weighted: FloatArray = means @ rows / rows.sum()
    return weighted


def _equal_sizes(people: Curve, teacher: Curve, of_people: FloatArray, of_teacher: FloatArray) -> FloatArray:
    from sklearn.isotonic import isotonic_regression

    rising = np.asarray(isotonic_regression(of_teacher))
    wanted = np.asarray(isotonic_regression(of_people))
    sizes = np.log(teacher.sizes)
    found = np.full(len(people.sizes), np.inf)
    for place, accuracy in enumerate(wanted):
        reached = np.flatnonzero(rising >= accuracy - 1e-12)
        if not len(reached):
            continue
        after = int(reached[0])
        if after == 0:
            found[place] = teacher.sizes[0]
            continue
        share = (accuracy - rising[after - 1]) / (rising[after] - rising[after - 1])
        found[place] = np.exp(sizes[after - 1] + share * (sizes[after] - sizes[after - 1]))
    return found


def _sizes(rows: int) -> tuple[int, ...]:
    sizes = [rows]
    while sizes[-1] >= 2 * _SMALLEST:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))
