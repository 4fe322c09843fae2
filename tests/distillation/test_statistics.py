"""Confidence, agreement, systematic errors, shares of a corpus, exchange rate: against laws that are known."""

from __future__ import annotations

import numpy as np
import pytest

from taskfit.distillation.agreement import agreement, systematic_errors
from taskfit.distillation.confidence import Calibrator, fit_calibrator, own_confidence
from taskfit.distillation.exchange import (
    Curve,
    exchange_rate,
    frozen_student,
    last_gain,
    learning_curves,
    linear_student,
)
from taskfit.distillation.prevalence import mean_of_corpus, shares_of_corpus
from taskfit.errors import ConfigError

WORDS = [f"word{n}" for n in range(300)]


def _texts(random: np.random.Generator, count: int, telling: np.ndarray | None = None) -> list[str]:  # type: ignore[type-arg]
    """Texts of 12 words by chance; those marked hold the word ``zeugma``, too."""
    marks = np.zeros(count, dtype=bool) if telling is None else telling
    return [" ".join([*random.choice(WORDS, 12), *(["zeugma"] if mark else [])]) for mark in marks]


def test_a_calibrator_finds_the_temperature_that_made_a_teacher_too_sure() -> None:
    """Log-odds three times too large: the slope is a third, and confidences are right on new rows."""
    random = np.random.default_rng(0)
    odds = random.normal(1.0, 1.0, 4000)
    right = random.random(4000) < 1 / (1 + np.exp(-odds))
    own = 1 / (1 + np.exp(-3 * odds))
    found = fit_calibrator(own[:2000].tolist(), right[:2000].tolist())
    assert found.slope == pytest.approx(1 / 3, abs=0.05)
    new = np.array(found.confidence(own[2000:].tolist()), dtype=float)
    assert abs(new.mean() - right[2000:].mean()) < 0.03
    assert abs(own[2000:].mean() - right[2000:].mean()) > 0.05
    assert np.array_equal(np.argsort(new), np.argsort(own[2000:]))


def test_the_calibrator_is_scikit_learns_logistic_regression_up_to_its_prior() -> None:
    """On many rows, where the prior weighs little."""
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(1)
    odds = random.normal(0.5, 1.5, 20_000)
    right = random.random(20_000) < 1 / (1 + np.exp(-(0.7 * odds - 0.4)))
    found = fit_calibrator((1 / (1 + np.exp(-odds))).tolist(), right.tolist())
    fitted = LogisticRegression(C=1e6).fit(odds[:, None], right)
    assert (found.slope, found.intercept) == pytest.approx((fitted.coef_[0, 0], fitted.intercept_[0]), abs=1e-3)


@pytest.mark.parametrize(
    ("own", "right", "expected", "note"),
    [
        ([0.9] * 40, [True] * 30 + [False] * 10, 31 / 42, "all equal"),
        ([None] * 40, [True] * 30 + [False] * 10, 31 / 42, "no probabilities"),
        ([0.9, 0.8, 0.7], [True, True, False], 3 / 5, "too few"),
        ([n / 50 for n in range(1, 41)], [n < 20 for n in range(40)], 21 / 42, "not right more often"),
    ],
)
def test_where_nothing_can_be_learnt_all_labels_have_the_share_of_right_ones(
    own: list[float | None], right: list[bool], expected: float, note: str
) -> None:
    """With Laplace's correction; the note says why."""
    found = fit_calibrator(own, right)
    assert found.confidence([0.99, None, 0.2]) == pytest.approx([expected] * 3)
    assert note in found.note


def test_without_known_answers_the_teachers_word_stands_and_the_note_says_so() -> None:
    """Nothing is invented."""
    found = fit_calibrator([], [])
    assert found.confidence([0.7, None]) == [0.7, None]
    assert "not calibrated" in found.note
    assert own_confidence("a", {"a": 0.7}) == 0.7
    assert own_confidence("a", None) is None
    assert isinstance(found, Calibrator)


def test_agreement_is_that_of_scikit_learn() -> None:
    """Kappa and the confusion; a row without a label is a disagreement."""
    from sklearn.metrics import cohen_kappa_score

    random = np.random.default_rng(2)
    people = random.choice(["a", "b", "c"], 200).tolist()
    teacher = [one if random.random() < 0.7 else str(random.choice(["a", "b", "c", ""])) for one in people]
    found = agreement(people, teacher)
    assert found.kappa == pytest.approx(cohen_kappa_score(people, teacher))
    assert found.rate.value == np.mean([one == other for one, other in zip(people, teacher, strict=True)])
    assert sum(found.confusion.values()) == 200
    assert agreement(["a", "a"], ["a", "a"]).kappa is None
    with pytest.raises(ConfigError):
        agreement([], [])


def test_systematic_errors_are_found_and_the_word_named() -> None:
    """Wrong wherever a word stands, and at random otherwise."""
    random = np.random.default_rng(3)
    marked = random.random(300) < 0.3
    wrong = np.where(marked, random.random(300) < 0.6, random.random(300) < 0.05)
    found = systematic_errors(_texts(random, 300, marked), wrong.tolist(), permutations=199)
    assert found.is_systematic
    assert found.auc is not None
    assert found.auc > 0.7
    assert found.words[0] == "zeugma"


def test_random_errors_are_called_systematic_no_more_often_than_one_time_in_twenty() -> None:
    """60 data sets with errors by chance: the p-values are uniform."""
    random = np.random.default_rng(4)
    found = [
        systematic_errors(_texts(random, 80), (random.random(80) < 0.3).tolist(), permutations=99, seed=n)
        for n in range(60)
    ]
    alarms = sum(one.is_systematic for one in found)
    assert alarms <= 8  # binomial with 0.05: more in one of 300 such tests
    assert 0.4 < np.mean([one.p_value for one in found if one.p_value is not None]) < 0.6


def test_few_errors_tell_nothing() -> None:
    """No figure is given, rather than a poor one."""
    found = systematic_errors(["a b"] * 50, [True] * 9 + [False] * 41)
    assert (found.auc, found.p_value, found.is_systematic) == (None, None, False)
    no_words = systematic_errors([f"x{n}" for n in range(40)], [n < 20 for n in range(40)], permutations=19)
    assert no_words.p_value == 1.0


@pytest.mark.parametrize(
    ("rows", "others", "accuracy", "share"),
    [(50, 1000, 0.9, 0.3), (100, 1000, 0.5, 0.5), (200, 4000, 0.95, 0.1), (40, 500, 0.9, 0.4)],
)
def test_intervals_hold_the_true_share_as_often_as_they_say(
    rows: int, others: int, accuracy: float, share: float
) -> None:
    """600 corpora of known shares; a machine that guesses (accuracy 0.5) must not hurt."""
    random = np.random.default_rng(5)
    held, saved = 0, []
    for _ in range(600):
        truth = random.random(rows + others) < share
        machine = np.where(random.random(rows + others) < accuracy, truth, ~truth)
        people, said = (["yes" if one else "no" for one in values] for values in (truth, machine))
        found = shares_of_corpus(["yes"], people[:rows], said[:rows], said[rows:])["yes"]
        held += found.interval.low <= share <= found.interval.high
        saved.append(found.human_rows_saved)
    assert held / 600 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 600)
    assert np.mean(saved) > 1.3 if accuracy > 0.5 else np.mean(saved) < 1.02


def test_the_estimate_is_the_papers_formula_in_plain_loops() -> None:
    """Value and variance, term by term, in float64."""
    random = np.random.default_rng(6)
    y, g = random.normal(2, 1, 80), random.normal(2.3, 1, 900)
    f = y + random.normal(0.3, 0.4, 80)
    found = mean_of_corpus(y, f, g)
    n, big = len(y), len(g)
    pooled = np.concatenate([f, g])
    shared = sum((a - y.mean()) * (b - f.mean()) for a, b in zip(y, f, strict=True)) / (n - 1)
    weight = shared / ((1 + n / big) * (sum((a - pooled.mean()) ** 2 for a in pooled) / (n + big - 1)))
    value = sum(a - weight * b for a, b in zip(y, f, strict=True)) / n + weight * sum(g) / big
    assert found.weight == pytest.approx(weight)
    assert found.interval.value == pytest.approx(value)
    assert found.human_rows_saved > 3


def test_a_useless_or_constant_machine_leaves_the_human_sample() -> None:
    """The same interval as without it."""
    y = [1.0, 0.0] * 30
    found = mean_of_corpus(y, [1.0] * 60, [1.0] * 500)
    assert (found.weight, found.interval, found.machine) == (0.0, found.human, 1.0)
    rare = shares_of_corpus(["a"], ["a"] * 2 + ["b"] * 58, ["a"] * 2 + ["b"] * 58, ["b"] * 500)["a"]
    assert rare.interval.method == "Wilson"


@pytest.mark.parametrize("values", [([1, 0], [1, 0], [1]), ([1, 0, 1], [1, 0], [1]), ([1, 0, 1], [1, 0, 1], [])])
def test_too_few_rows_are_refused(values: tuple[list[float], list[float], list[float]]) -> None:
    """With what there must be."""
    with pytest.raises(ConfigError, match="at least 3 human rows"):
        mean_of_corpus(*values)
    with pytest.raises(ConfigError, match="finite"):
        mean_of_corpus([1, 2, float("nan")], [1, 2, 3], [1])
    with pytest.raises(ConfigError, match="level"):
        mean_of_corpus([1, 2, 3], [1, 2, 3], [1], level=1)


def _curve(sizes: tuple[int, ...], accuracies: list[float], rows: int = 1500, seed: int = 0) -> Curve:
    random = np.random.default_rng(seed)
    return Curve(sizes, (random.random((len(sizes), 3, rows)) < np.array(accuracies)[:, None, None]).astype(float))


def test_the_exchange_rate_of_known_curves_is_found() -> None:
    """The teacher's curve is that of people, four labels for one; the interval holds the rate."""
    sizes = (32, 64, 128, 256, 512)
    people = _curve(sizes, [0.5, 0.6, 0.7, 0.8, 0.9])
    teacher = _curve(sizes, [0.3, 0.4, 0.5, 0.6, 0.7], seed=1)
    rates = exchange_rate(people, teacher)
    for rate, worth in zip(rates[:2], (128, 256), strict=True):
        assert rate.low <= worth <= rate.high
        assert rate.teacher == pytest.approx(worth, rel=0.25)
    assert [rate.teacher for rate in rates[3:]] == [float("inf")] * 2
    gain = last_gain(teacher)
    assert gain is not None
    assert gain.is_worth_it
    flat = last_gain(_curve((32, 64), [0.7, 0.66]))
    assert flat is not None
    assert not flat.is_worth_it
    assert last_gain(_curve((32,), [0.7])) is None


def test_a_students_curve_rises_and_a_noisy_teacher_is_worth_less() -> None:
    """Two words decide; the teacher errs in a third of rows."""
    random = np.random.default_rng(8)
    golds = random.choice(["good", "bad"], 600).tolist()
    texts = [f"{text} {gold}" for text, gold in zip(_texts(random, 600), golds, strict=True)]
    noisy = [gold if random.random() < 0.65 else {"good": "bad", "bad": "good"}[gold] for gold in golds]
    curves = learning_curves(
        {"people": (texts[:200], golds[:200]), "teacher": (texts[200:400], noisy[200:400])},
        (texts[400:], golds[400:]),
        linear_student,
        draws=2,
    )
    assert curves["people"].sizes == (25, 50, 100, 200)
    assert curves["people"].accuracy[-1] > 0.95
    assert curves["people"].accuracy[-1] > curves["teacher"].accuracy[-1]
    assert exchange_rate(curves["people"], curves["teacher"])[-1].teacher == float("inf")


def test_a_frozen_encoders_vectors_are_asked_for_once() -> None:
    """And a source with one label gives that label."""
    asked: list[str] = []

    def vectors(texts):  # type: ignore[no-untyped-def]
        asked.extend(texts)
        return [[len(text), text.count("a")] for text in texts]

    student = frozen_student(vectors)
    assert list(student(["a", "bb", "aaa", "bbbb"], ["a", "b", "a", "b"], ["aa", "bbb"])) == ["a", "b"]
    student(["a", "bb"], ["a", "b"], ["aa"])
    assert sorted(asked) == sorted(set(asked))
    assert student(["a"], ["x"], ["q", "r"]) == ["x", "x"]
    with pytest.raises(ConfigError, match="2 rows"):
        learning_curves({"people": (["a"], ["b"])}, (["a"], ["b"]), linear_student)
