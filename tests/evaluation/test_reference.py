"""Every metric against the library that others compute it with, to a millionth; or the test that stands for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn import metrics as sklearn
from sklearn.preprocessing import MultiLabelBinarizer

from taskfit.evaluation.label_sets import label_set
from taskfit.evaluation.metrics import METRICS, per_row, score
from taskfit.evaluation.outcomes import Outcomes, outcomes
from tests.evaluation.build import generated, judged, row_ids

NAMES = ["account", "billing", "delivery", "refund"]
WORDS = ["the", "ship", "ships", "sailed", "sailing", "to", "a", "quiet", "harbour", "at", "noon", "12", "fish"]


def classified_run() -> Outcomes:
    """A run with probabilities over four labels, unevenly often."""
    generator = np.random.default_rng(0)
    gold = generator.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
    shares = generator.dirichlet(np.ones(4), 200) + 0.6 * np.eye(4)[gold]
    return judged(gold.tolist(), (shares / shares.sum(1, keepdims=True)).tolist())


def codes(run: Outcomes) -> tuple[list[str], list[str]]:
    return [golds[0] for golds in run.golds], list(run.answers)


def shares_of(run: Outcomes) -> np.ndarray:
    assert run.probabilities is not None
    return np.array([[row[label] for label in run.labels] for row in run.probabilities if row is not None])


def texts_run() -> Outcomes:
    """Answers of several sentences, with two references each."""
    generator = np.random.default_rng(1)

    def text() -> str:
        lines = [" ".join(generator.choice(WORDS, generator.integers(3, 9))) for _ in range(generator.integers(1, 4))]
        return "\n".join(lines)

    return generated([[text(), text()] for _ in range(60)], [text() for _ in range(60)])


def labels_run() -> Outcomes:
    """Answers that list labels, in any order and case."""
    generator = np.random.default_rng(2)

    def listed() -> str:
        return ", ".join(generator.permutation(NAMES)[: generator.integers(1, 4)])

    golds, answers = [[listed()] for _ in range(80)], [listed().upper() for _ in range(80)]
    return outcomes("generation", row_ids(80), golds, answers)


def rouge(kind: str, is_stemmed: bool) -> Callable[[Outcomes], float]:
    def value(run: Outcomes) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=is_stemmed)
        rows = zip(run.golds, run.answers, strict=True)
        return float(np.mean([scorer.score_multi(golds, answer)[kind].fmeasure for golds, answer in rows]))

    return value


def sacrebleu(name: str) -> Callable[[Outcomes], float]:
    def value(run: Outcomes) -> float:
        from sacrebleu import metrics

        references = [list(column) for column in zip(*run.golds, strict=True)]
        return float(getattr(metrics, name)().corpus_score(list(run.answers), references).score) / 100

    return value


def label_f1(average: str) -> Callable[[Outcomes], float]:
    def value(run: Outcomes) -> float:
        binary = MultiLabelBinarizer(classes=NAMES)
        right = binary.fit_transform([label_set(golds[0]) for golds in run.golds])
        return float(sklearn.f1_score(right, binary.transform(map(label_set, run.answers)), average=average))

    return value


def by_codes(function: Callable[..., float], **options: object) -> Callable[[Outcomes], float]:
    return lambda run: float(function(*codes(run), **options))


def one_hot(run: Outcomes) -> np.ndarray:
    return np.array([[label == golds[0] for label in run.labels] for golds in run.golds], dtype=float)


REFERENCES: dict[str, tuple[Callable[[], Outcomes], Callable[[Outcomes], float]]] = {
    "accuracy": (classified_run, by_codes(sklearn.accuracy_score)),
    "macro_f1": (classified_run, by_codes(sklearn.f1_score, average="macro")),
    "micro_f1": (classified_run, by_codes(sklearn.f1_score, average="micro")),
    "mcc": (classified_run, by_codes(sklearn.matthews_corrcoef)),
    "balanced_accuracy": (classified_run, by_codes(sklearn.balanced_accuracy_score)),
    "nll": (classified_run, lambda run: float(sklearn.log_loss(codes(run)[0], shares_of(run), labels=run.labels))),
    "brier": (classified_run, lambda run: len(run.labels) * sklearn.mean_squared_error(one_hot(run), shares_of(run))),
    **{
        f"{ours}{'' if is_stemmed else '_unstemmed'}": (texts_run, rouge(theirs, is_stemmed))
        for ours, theirs in (
            ("rouge1", "rouge1"),
            ("rouge2", "rouge2"),
            ("rouge_l", "rougeL"),
            ("rouge_lsum", "rougeLsum"),
        )
        for is_stemmed in (True, False)
    },
    "bleu": (texts_run, sacrebleu("BLEU")),
    "chrf": (texts_run, sacrebleu("CHRF")),
    "labels_f1": (labels_run, label_f1("samples")),
    "labels_micro_f1": (labels_run, label_f1("micro")),
    "labels_macro_f1": (labels_run, label_f1("macro")),
}
BY_HAND = {
    "accuracy_raw": "test_choices: options, log-probabilities and lengths written out",
    "accuracy_normalised": "test_choices: the same",
    "exact_match": "test_metrics: SQuAD's rule, with one stated exception",
    "token_f1": "test_metrics: precision and recall of words, in a loop",
    "numeric_match": "test_numeric: numbers written and read back",
    "ece_10": "test_calibration: the sum over bins, in a loop",
    "ece_15": "test_calibration: the sum over bins, in a loop",
    "ece_adaptive": "test_calibration: bins of as many rows, in a loop",
    "aurc": "test_calibration: a loop over thresholds",
    "selective_accuracy": "test_calibration: a loop over thresholds",
}
"""Metrics that no library here computes, and what proves them."""


def test_every_metric_is_held_against_something() -> None:
    """A new metric needs a row above."""
    assert REFERENCES.keys() | BY_HAND.keys() == METRICS.keys()
    assert not REFERENCES.keys() & BY_HAND.keys()


@pytest.mark.parametrize("name", REFERENCES)
def test_metrics_agree_with_their_reference(name: str) -> None:
    """scikit-learn, rouge-score, sacrebleu; to 1e-6."""
    make, reference = REFERENCES[name]
    run = make()
    assert score(name, run) == pytest.approx(reference(run), abs=1e-6)
    if METRICS[name].is_per_row:
        assert float(np.mean(per_row(name, run))) == pytest.approx(reference(run), abs=1e-6)


def listed(golds: Sequence[Sequence[str]], answers: Sequence[str], parsed: Sequence[bool] | None = None) -> Outcomes:
    return outcomes("generation", row_ids(len(golds)), golds, answers, is_parsed=parsed)


def test_lists_of_labels_are_sets() -> None:
    """Order, case, repetition and space do not matter; of several references the likest one counts."""
    run = listed([["a, b"], ["b; c", "a"], ["a\nb"]], ["B,a , b", "A", "c"])
    assert per_row("labels_f1", run).tolist() == [1.0, 1.0, 0.0]
    assert score("labels_micro_f1", run) == pytest.approx(2 * 3 / (5 + 4))


def test_labels_that_are_right_nowhere_lower_micro_and_not_macro() -> None:
    """Stated in the metric's own words."""
    plain, more = listed([["a"], ["b"]], ["a", "b"]), listed([["a"], ["b"]], ["a, x", "b"])
    assert score("labels_macro_f1", more) == score("labels_macro_f1", plain) == 1.0
    assert score("labels_micro_f1", more) < 1.0


def test_unparsed_answers_list_nothing() -> None:
    """And nothing is ever NaN."""
    run = listed([["a"], ["b"]], ["a", "b"], [False, False])
    assert [score(name, run) for name in ("labels_f1", "labels_micro_f1", "labels_macro_f1")] == [0.0, 0.0, 0.0]
