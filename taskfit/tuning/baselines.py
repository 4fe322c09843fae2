"""Floors: strategies without a language model. What does not beat them is not worth a model.

``majority`` reads no input at all. ``linear`` reads words and letters, and fits in seconds on a few thousand rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, ClassVar, cast

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.models.work import Work
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Prediction
from taskfit.strategy.folder import new_folder
from taskfit.strategy.grammar import part_name
from taskfit.strategy.manifest import new_manifest, write_manifest
from taskfit.strategy.parameters import check_positive, check_types
from taskfit.strategy.predictor import WINDOW_ROWS, windows
from taskfit.strategy.space import OneOf, Space
from taskfit.tuning.teacher_answers import answer_parts, class_targets
from taskfit.tuning.tfidf import LinearClassifier, fit_linear, load_linear, save_linear

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.strategy.contract import Budget
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Kind, Row, Task, Value

__all__ = ["BaselinePredictor", "Linear", "Majority", "medoid", "named_shares"]

_STRENGTHS = (1.0, 10.0, 100.0)
_MOST_MEDOID_ANSWERS = 300

Guess = Callable[[Sequence["Row"]], list[tuple[str, dict[str, float] | None]]]
"""Rows to (answer, probabilities), one a row."""


class BaselinePredictor:
    """A floor's predictor: no model, no tokens, no work to count."""

    def __init__(self, manifest: Manifest, guess: Guess, save_files: Callable[[Path], None]) -> None:
        self.strategy = manifest.strategy
        self.definition = manifest.definition
        self.fit_work = manifest.fit_work
        self.manifest = manifest
        self._guess = guess
        self._save_files = save_files

    @property
    def predict_work(self) -> Work:
        """Nothing: no language model computes."""
        return Work()

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row, in order."""
        for window in windows(rows, WINDOW_ROWS):
            for row, (answer, probabilities) in zip(window, self._guess(window), strict=True):
                yield Prediction(row.id, answer, probabilities)

    def save(self, folder: Path) -> None:
        """Write the predictor folder, whole or not at all.

        Raises:
            PredictorError: the folder exists, or cannot be written. ResourceError: the disk is full.
        """
        with new_folder(folder) as partial:
            self._save_files(partial)
            write_manifest(partial, self.manifest)


@dataclass(frozen=True)
class Majority:
    """Always the most frequent answer of the training rows.

    Classification: the most frequent label; probabilities are the labels' shares. Choice: the option at the place
    that is most often right. Generation: the training answer that shares most words with the others.
    """

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """None: it needs no model."""
        return frozenset()

    @property
    def kinds(self) -> frozenset[Kind]:
        """All kinds."""
        return frozenset({"classification", "choice", "generation"})

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> BaselinePredictor:
        """Count the training answers; the model is not touched."""
        check_fit(self, task.definition.kind, None)
        state = _majority_state(task, seed)
        manifest = new_manifest(self, task, seed=seed, model=None, needs_base=False, state=state, fit_work=Work())
        return _majority_predictor(manifest)

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> BaselinePredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        return _majority_predictor(manifest)


@dataclass(frozen=True)
class Linear:
    """Logistic regression over TF-IDF of words (1 and 2) and of letters within words (2 to 5).

    Where no strength is given, it is the one of 1, 10 and 100 with the best macro F1 (accuracy, when that is the
    task's first metric) on the validation rows, the smallest of equals.
    """

    strength: float | None = None
    """Inverse strength of the regularisation (C); none: chosen on validation."""

    space: ClassVar[Space] = {"strength": OneOf((0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0))}
    learns_from_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        faults = Faults("linear")
        check_types(self, faults)
        check_positive("strength", self.strength, faults)
        faults.raise_as(ConfigError)

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """None: it needs no model."""
        return frozenset()

    @property
    def kinds(self) -> frozenset[Kind]:
        """Classification."""
        return frozenset({"classification"})

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> BaselinePredictor:
        """Fit on the training rows, choose the strength on the validation rows; the model is not touched.

        Raises:
            DataError: all training texts are empty.
        """
        check_fit(self, task.definition.kind, None)
        classes = _seen_labels(task)
        texts, numbers = _examples(task.definition, task.train, classes)
        tried = _STRENGTHS if task.validation else _STRENGTHS[1:2]
        strengths = tried if self.strength is None else (self.strength,)
        fitted = fit_linear(texts, numbers, strengths, class_targets(task.definition, task.train, classes))
        scores = [_validation_score(classifier, task, classes) for classifier in fitted]
        best = scores.index(max(scores))
        if not fitted[best].has_converged:
            budget.say("linear: the optimiser stopped before its end; coefficients are close to, not at, the best")
        state: dict[str, Value] = {"classes": list(classes), "strength": strengths[best]}
        manifest = new_manifest(self, task, seed=seed, model=None, needs_base=False, state=state, fit_work=Work())
        return _linear_predictor(manifest, fitted[best], classes)

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> BaselinePredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        classes = manifest.state.get("classes")
        labels = manifest.definition.labels
        if not isinstance(classes, list) or not classes or not set(map(str, classes)) <= set(labels):
            raise PredictorError(f"{folder}: classes must be a list of the task's labels (got {classes!r})")
        names = tuple(str(name) for name in classes)
        return _linear_predictor(manifest, load_linear(folder, len(names)), names)


def medoid(answers: Sequence[str]) -> str:
    """Return the answer with the best mean token overlap (F1 of lower-cased words) with all; the first of equals.

    Answers that occur often count often. It is quadratic in the number of answers that differ.
    """
    counts = Counter(answers)
    bags = {answer: Counter(answer.lower().split()) for answer in counts}
    overlap = {
        answer: sum(_overlap(bags[answer], bags[other]) * count for other, count in counts.items()) for answer in counts
    }
    return max(overlap, key=lambda answer: overlap[answer])


def _overlap(left: Counter[str], right: Counter[str]) -> float:
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 1.0


def _majority_state(task: Task, seed: int) -> dict[str, Value]:
    """Return what is most frequent, in the terms of the task's kind."""
    definition = task.definition
    if definition.kind == "generation":
        answers = sorted(definition.gold(row)[0] for row in task.train)
        sample = Random(f"majority {seed}").sample(answers, min(len(answers), _MOST_MEDOID_ANSWERS))
        return {"answer": medoid(sorted(sample))}
    if definition.kind == "choice":
        places = Counter(_right_place(definition, row) for row in task.train)
        return {"place_counts": [places[place] for place in range(max(places) + 1)]}
    counts = Counter(definition.gold(row)[0] for row in task.train)
    return {"label_counts": {label: counts[label] for label in definition.labels}}


def _majority_predictor(manifest: Manifest) -> BaselinePredictor:
    definition, state = manifest.definition, manifest.state
    if definition.kind == "generation":
        answer = state.get("answer")
        if not isinstance(answer, str):
            raise PredictorError(f"majority: answer must be a text (got {answer!r})")
        return BaselinePredictor(manifest, lambda rows: [(answer, None) for _ in rows], _no_files)
    if definition.kind == "choice":
        places = _counts(state.get("place_counts"))
        return BaselinePredictor(
            manifest, lambda rows: [_likeliest_place(definition, row, places) for row in rows], _no_files
        )
    table = state.get("label_counts")
    counts = _counts(list(table.values()) if isinstance(table, dict) else None)
    shares = {label: count / sum(counts) for label, count in zip(cast("dict[str, Value]", table), counts, strict=True)}
    best = max(shares, key=lambda label: shares[label])
    return BaselinePredictor(manifest, lambda rows: [(best, dict(shares)) for _ in rows], _no_files)


def _counts(values: object) -> list[int]:
    if not isinstance(values, list) or not all(type(v) is int and v >= 0 for v in values) or not any(values):
        raise PredictorError(f"majority: expected counts of answers, whole numbers from 0 (got {values!r})")
    return values


def _likeliest_place(definition: TaskDefinition, row: Row, places: list[int]) -> tuple[str, dict[str, float]]:
    """Return the option at the most frequent place this row has; a row with unseen places alone gets even shares."""
    options = definition.options(row)
    counts = [places[i] if i < len(places) else 0 for i in range(len(options))]
    if not any(counts):
        counts = [1] * len(options)
    best = options[counts.index(max(counts))].value
    return best, {option.value: count / sum(counts) for option, count in zip(options, counts, strict=True)}


def _right_place(definition: TaskDefinition, row: Row) -> int:
    values = [option.value for option in definition.options(row)]
    return values.index(definition.gold(row)[0])


def _no_files(folder: Path) -> None:
    """Write nothing: the manifest says it all."""


def _linear_predictor(manifest: Manifest, classifier: LinearClassifier, classes: tuple[str, ...]) -> BaselinePredictor:
    definition = manifest.definition

    def guess(rows: Sequence[Row]) -> list[tuple[str, dict[str, float] | None]]:
        shares = classifier.probabilities([definition.input_text(row) for row in rows])
        return [named_shares(definition, classes, values.tolist()) for values in shares]

    return BaselinePredictor(manifest, guess, lambda folder: save_linear(classifier, folder))


def named_shares(
    definition: TaskDefinition, classes: Sequence[str], values: Sequence[float]
) -> tuple[str, dict[str, float]]:
    """Return the likeliest label and the probability of every label; labels that training lacked have none."""
    shares = dict.fromkeys(definition.labels, 0.0) | dict(zip(classes, values, strict=True))
    return max(classes, key=lambda label: shares[label]), shares


def _seen_labels(task: Task) -> tuple[str, ...]:
    seen = {label for row in task.train for label, part in answer_parts(task.definition, row) if part > 0}
    return tuple(label for label in task.definition.labels if label in seen)


def _examples(definition: TaskDefinition, rows: Sequence[Row], classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return texts and class numbers; a label that training lacks has the number -1."""
    numbers = {label: number for number, label in enumerate(classes)}
    golds = [numbers.get(definition.gold(row)[0], -1) for row in rows]
    return [definition.input_text(row) for row in rows], golds


def _validation_score(classifier: LinearClassifier, task: Task, classes: Sequence[str]) -> float:
    """Return macro F1 or accuracy on validation; 0 without validation rows."""
    from sklearn.metrics import accuracy_score, f1_score

    if not task.validation:
        return 0.0
    texts, golds = _examples(task.definition, task.validation, classes)
    guesses = classifier.probabilities(texts).argmax(axis=1)
    if task.definition.metrics[0] == "accuracy":
        return float(accuracy_score(golds, guesses))
    return float(f1_score(golds, guesses, average="macro", zero_division=0.0))
