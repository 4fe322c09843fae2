"""TF-IDF with logistic regression: fitted with scikit-learn, kept as plain numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from taskfit.errors import DataError, PredictorError
from taskfit.strategy.folder import write_file
from taskfit.strategy.manifest import read_json

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LinearClassifier", "fit_linear", "load_linear", "save_linear"]

View = Literal["words", "characters"]

_SETTINGS: dict[View, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
_MOST_FEATURES = 50_000
_WEIGHTS_FILE = "linear.safetensors"
_VOCABULARY_FILE = "vocabulary.json"
_MOST_ITERATIONS = 300


@dataclass(frozen=True)
class LinearClassifier:
    """What predicts.

    Attributes:
        views: for each view that found any feature, its vectorizer (scikit-learn's, with vocabulary and idf).
        coefficients: shape (classes, features); features of the views side by side.
        intercept: shape (classes,).
        has_converged: whether the optimiser came to its end.
    """

    views: dict[View, Any]
    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]
    has_converged: bool = True

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability of each class for each text, shape (texts, classes); rows sum to 1."""
        from scipy.special import softmax

        scores = _features(self.views, texts) @ self.coefficients.T + self.intercept
        probabilities: NDArray[np.float64] = softmax(scores, axis=1)
        return probabilities


def fit_linear(
    texts: Sequence[str],
    classes: Sequence[int],
    strengths: Sequence[float],
    targets: NDArray[np.float64] | None = None,
) -> list[LinearClassifier]:
    """Fit one classifier for each regularisation strength, over the same features.

    Args:
        texts: at least one.
        classes: class number of each text; numbers from 0 without a gap.
        strengths: scikit-learn's C, larger is looser.
        targets: what is learned instead of ``classes``, shape (texts, classes); see
            :func:`taskfit.tuning.teacher_answers.class_targets`.

    Raises:
        DataError: no text holds any character to learn from.
    """
    views, features = _fit_views(texts)
    weights = None
    if targets is not None:
        from taskfit.tuning.vector_head import expanded

        rows, taught, weights = expanded(targets)
        features, classes = features[rows], taught.tolist()
    return [LinearClassifier(views, *_fit_regression(features, classes, strength, weights)) for strength in strengths]


def save_linear(classifier: LinearClassifier, folder: Path) -> None:
    """Write the classifier into an existing folder: numbers as safetensors, features as JSON."""
    import numpy as np
    from safetensors.numpy import save_file

    numbers = {"coefficients": classifier.coefficients, "intercept": classifier.intercept}
    numbers |= {f"idf_{view}": vectorizer.idf_ for view, vectorizer in classifier.views.items()}
    # safetensors writes the bytes as they lie: scikit-learn's column-major coefficients would come back shuffled
    save_file({name: np.ascontiguousarray(values) for name, values in numbers.items()}, folder / _WEIGHTS_FILE)
    vocabulary = {view: list(vectorizer.get_feature_names_out()) for view, vectorizer in classifier.views.items()}
    write_file(folder / _VOCABULARY_FILE, json.dumps(vocabulary, ensure_ascii=False))


def load_linear(folder: Path, classes: int) -> LinearClassifier:
    """Read what ``save_linear`` wrote; it predicts the same numbers.

    Args:
        folder: the predictor folder.
        classes: number of classes it must have.

    Raises:
        PredictorError: a file is missing, or numbers and features do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / _WEIGHTS_FILE
    try:
        numbers = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PredictorError(f"cannot read {path}: {error}") from error
    vocabulary = _checked_vocabulary(folder / _VOCABULARY_FILE)
    features = sum(len(terms) for terms in vocabulary.values())
    shapes: dict[str, tuple[int, ...]] = {"coefficients": (classes, features), "intercept": (classes,)}
    shapes |= {f"idf_{view}": (len(terms),) for view, terms in vocabulary.items()}
    _check_numbers(path, numbers, shapes)
    views = {view: _view(view, terms, numbers[f"idf_{view}"]) for view, terms in vocabulary.items()}
    return LinearClassifier(views, numbers["coefficients"], numbers["intercept"])


def _fit_views(texts: Sequence[str]) -> tuple[dict[View, Any], Any]:
    """Return the vectorizers of the views that find something in the texts, and the sparse features of the texts."""
    from scipy.sparse import hstack

    views: dict[View, Any] = {}
    features: list[Any] = []
    for view in _SETTINGS:
        vectorizer = _vectorizer(view)
        analyze = vectorizer.build_analyzer()
        if any(analyze(text) for text in texts):  # scikit-learn refuses an empty vocabulary
            features.append(vectorizer.fit_transform(texts))
            views[view] = vectorizer
    if not views:
        raise DataError(f"all {len(texts)} training texts are empty", "check the task's `input`")
    return views, hstack(features, format="csr")


def _vectorizer(view: View, vocabulary: list[str] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        **_SETTINGS[view], sublinear_tf=True, max_features=_MOST_FEATURES, vocabulary=vocabulary, lowercase=True
    )


def _view(view: View, vocabulary: list[str], idf: NDArray[np.float64]) -> Any:
    vectorizer = _vectorizer(view, vocabulary)
    vectorizer.idf_ = idf
    return vectorizer


def _features(views: dict[View, Any], texts: Sequence[str]) -> Any:
    """Return the sparse features, shape (texts, features)."""
    from scipy.sparse import hstack

    return hstack([vectorizer.transform(texts) for vectorizer in views.values()], format="csr")


def _fit_regression(
    features: Any, classes: Sequence[int], strength: float, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Return coefficients, intercept, and whether the optimiser converged. One class alone needs no optimiser.

    On one thread: the optimiser adds vectors, which several threads do up to ten times more slowly on a busy machine,
    and in an order, thus with a rounding, that depends on their number.
    """
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    if len(set(classes)) == 1:
        return np.zeros((1, features.shape[1])), np.zeros(1), True
    regression = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by has_converged
        regression.fit(features, classes, sample_weight=weights)
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(set(classes)) == 2:  # scikit-learn keeps the second class alone; the first one's scores are zero
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercept = np.concatenate([np.zeros_like(intercept), intercept])
    return coefficients, intercept, bool(regression.n_iter_.max() < _MOST_ITERATIONS)


def _checked_vocabulary(path: Path) -> dict[View, list[str]]:
    values = read_json(path)
    vocabulary: dict[View, list[str]] = {}
    for view in _SETTINGS:
        terms = values.get(view)
        if terms is None:
            continue
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            raise PredictorError(f"{path}: {view} must be a list of texts")
        listed = [str(term) for term in terms]
        if not listed or len(set(listed)) != len(listed):
            raise PredictorError(f"{path}: {view} must hold texts that all differ, at least one")
        vocabulary[view] = listed
    if not vocabulary:
        raise PredictorError(f"{path}: expected {' or '.join(_SETTINGS)} (got {', '.join(values) or 'nothing'})")
    return vocabulary


def _check_numbers(path: Path, numbers: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    import numpy as np

    if numbers.keys() != shapes.keys():
        raise PredictorError(f"{path}: expected {', '.join(shapes)} (got {', '.join(numbers) or 'nothing'})")
    for name, shape in shapes.items():
        if numbers[name].shape != shape or numbers[name].dtype != np.float64:
            got = f"{numbers[name].dtype} {numbers[name].shape}"
            raise PredictorError(f"{path}: {name} must be float64 {shape} (got {got})")
        if not np.isfinite(numbers[name]).all():
            raise PredictorError(f"{path}: {name} holds NaN or infinity")
