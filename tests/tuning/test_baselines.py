"""The floors: majority and linear."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.sparse import hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from taskfit.errors import ConfigError, DataError, PredictorError
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import read_manifest
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.task import Row
from taskfit.tuning import tfidf
from taskfit.tuning.baselines import Linear, Majority, medoid
from taskfit.tuning.tfidf import fit_linear
from tests.strategy.small_tasks import small_task


def _fit(strategy, task, say=print):
    return strategy.fit(None, task, seed=0, budget=Budget(say=say))


def _task(kind="classification", fields=(), **sizes):
    """Return a small task whose training rows have these fields instead of their own."""
    task = small_task(kind, **sizes)
    if not fields:
        return task
    rows = tuple(Row(f"t{number}", values) for number, values in enumerate(fields))
    return replace(task, splits=dict(task.splits) | {"train": rows})


def test_majority_answers_the_most_frequent_label_with_the_shares():
    """Counted by hand; a label without rows has the share 0, and the first of equals is taken."""
    task = _task(fields=[{"text": "x", "label": label} for label in ("odd", "good", "odd", "good", "odd")])
    [prediction, *_] = _fit(Majority(), task).predict(task.test)
    assert prediction.answer == "odd"
    assert prediction.probabilities == {"bad": 0.0, "good": 0.4, "odd": 0.6}
    assert (prediction.tokens_in, prediction.tokens_out) == (0, 0)


def test_majority_answers_the_option_at_the_most_frequent_place():
    """A row without that place takes its most frequent one; a row of unseen places alone gets even shares."""
    options = ["u", "v", "w"]
    task = _task("choice", [{"text": "x", "label": label, "options": options} for label in ("w", "w", "v")])
    fitted = _fit(Majority(), task)
    rows = [Row("a", {"text": "x", "options": ["1", "2", "3", "4"]}), Row("b", {"text": "x", "options": ["1", "2"]})]
    four, two = fitted.predict(rows)
    assert (four.answer, four.probabilities) == ("3", {"1": 0.0, "2": 1 / 3, "3": 2 / 3, "4": 0.0})
    assert (two.answer, two.probabilities) == ("2", {"1": 0.0, "2": 1.0})
    late = _task("choice", [{"text": "x", "label": "w", "options": options}])
    [even] = _fit(Majority(), late).predict(rows[1:])
    assert even.probabilities == {"1": 0.5, "2": 0.5}


def test_majority_generates_the_answer_most_like_the_others():
    """The outlier is not taken, whatever its place."""
    answers = ["nothing at all", "the film is good", "the film is bad", "the film is very good"]
    task = _task("generation", [{"text": "x", "label": answer} for answer in answers])
    assert {p.answer for p in _fit(Majority(), task).predict(task.test)} == {"the film is good"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab ", max_size=8), min_size=1, max_size=8))
def test_the_medoid_has_the_highest_mean_overlap(answers):
    """Against token F1 written out with loops."""

    def f1(left: str, right: str) -> float:
        ours, theirs = left.lower().split(), right.lower().split()
        if not ours and not theirs:
            return 1.0
        common = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
        return 2 * common / (len(ours) + len(theirs))

    means = {answer: sum(f1(answer, other) for other in answers) / len(answers) for answer in answers}
    assert means[medoid(answers)] == pytest.approx(max(means.values()))


def test_linear_learns_a_keyword():
    """Words seen in training decide the labels of new texts."""
    task = small_task("classification", train=30, test=9)
    predictions = list(_fit(Linear(), task).predict(task.test))
    assert [p.answer for p in predictions] == [row.fields["label"] for row in task.test]
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-12) for p in predictions)


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.filterwarnings("ignore:.*:sklearn.exceptions.ConvergenceWarning")
def test_probabilities_equal_those_of_scikit_learn(labels, tmp_path):
    """To 1e-9, before and after saving: for two classes and for more."""
    task = small_task("classification", train=24, test=9)
    rows = [row for row in task.train if row.fields["label"] in task.definition.labels[:labels]]
    texts = [row.fields["text"] for row in rows]
    classes = [task.definition.labels.index(row.fields["label"]) for row in rows]
    [fitted] = fit_linear(texts, classes, [10.0])
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit(texts)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit(texts)

    def features(some):
        return hstack([words.transform(some), letters.transform(some)])

    expected = LogisticRegression(C=10.0, max_iter=300).fit(features(texts), classes)
    new = [row.fields["text"] for row in task.test]
    found = fitted.probabilities(new)
    np.testing.assert_allclose(found, expected.predict_proba(features(new)), atol=1e-9, rtol=0)
    tfidf.save_linear(fitted, tmp_path)
    np.testing.assert_array_equal(tfidf.load_linear(tmp_path, labels).probabilities(new), found)


def test_a_loaded_linear_predictor_predicts_the_same(tmp_path):
    """To the last bit, and one row at a time."""
    task = small_task("classification", train=18)
    fitted = _fit(Linear(), task)
    fitted.save(tmp_path / "p")
    loaded = load_predictor(tmp_path / "p")
    assert list(loaded.predict(task.test)) == list(fitted.predict(task.test))
    assert [next(loaded.predict([row])) for row in task.test] == list(fitted.predict(task.test))
    assert loaded.predict_work == loaded.fit_work == Work()


def test_the_strength_is_chosen_on_validation(monkeypatch):
    """The first of the best; without validation rows the middle one."""
    task = small_task("classification")
    scores = iter([0.5, 0.9, 0.9])
    monkeypatch.setattr("taskfit.tuning.baselines._validation_score", lambda *args: next(scores))
    assert _fit(Linear(), task).manifest.state["strength"] == 10.0
    monkeypatch.undo()
    alone = replace(task, splits=dict(task.splits) | {"validation": ()})
    assert _fit(Linear(), alone).manifest.state["strength"] == 10.0


@pytest.mark.parametrize(("metric", "expected"), [("accuracy", 2 / 3), ("macro_f1", (2 / 3 + 2 / 3) / 2)])
def test_validation_is_scored_by_the_first_metric(metric, expected):
    """Three rows, one wrong; worked by hand."""
    from taskfit.tuning.baselines import _validation_score

    class Fixed:
        def probabilities(self, texts):
            return np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]])

    task = small_task("classification")
    rows = tuple(Row(f"v{i}", {"text": "x", "label": label}) for i, label in enumerate(("bad", "good", "bad")))
    definition = replace(task.definition, metrics=(metric,))
    task = replace(task, definition=definition, splits=dict(task.splits) | {"validation": rows})
    assert _validation_score(Fixed(), task, ("bad", "good")) == pytest.approx(expected)


def test_one_label_alone_and_labels_without_rows():
    """A class that training lacks has the probability 0; one class alone is certain."""
    task = _task(fields=[{"text": f"film {number}", "label": "good"} for number in range(3)])
    [prediction, *_] = _fit(Linear(), task).predict(task.test)
    assert prediction.probabilities == {"bad": 0.0, "good": 1.0, "odd": 0.0}


def test_texts_without_words_are_read_by_their_signs_and_empty_ones_are_refused():
    """A view that finds nothing is left out."""
    task = _task(fields=[{"text": sign * 3, "label": label} for sign, label in ((":)", "good"), (":(", "bad"))])
    happy, sad = _fit(Linear(), task).predict([Row("a", {"text": ":):)"}), Row("b", {"text": ":(:("})])
    assert (happy.answer, sad.answer) == ("good", "bad")
    with pytest.raises(DataError, match="all 2 training texts are empty"):
        _fit(Linear(), _task(fields=[{"text": " ", "label": "good"}, {"text": "", "label": "bad"}]))


def test_an_optimiser_that_stops_early_is_told_and_not_warned(monkeypatch):
    """Through the budget, once."""
    monkeypatch.setattr(tfidf, "_MOST_ITERATIONS", 1)
    said = []
    _fit(Linear(), small_task("classification"), said.append)
    assert len(said) == 1
    assert "stopped before its end" in said[0]
    assert issubclass(ConvergenceWarning, UserWarning)


def test_linear_is_for_classification():
    """Other kinds are refused by name."""
    with pytest.raises(ConfigError, match=r"kind classification \(got choice\)"):
        _fit(Linear(), small_task("choice"))


def _damage_numbers(folder, change):
    numbers = load_file(folder / "linear.safetensors")
    change(numbers)
    save_file(numbers, folder / "linear.safetensors")


def _damage_words(folder, change):
    words = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(change(words)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "linear.safetensors").unlink(), "cannot read"),
        (lambda f: (f / "linear.safetensors").write_bytes(b"pickle"), "cannot read"),
        (lambda f: _damage_numbers(f, lambda n: n.pop("intercept")), "expected coefficients, intercept"),
        (lambda f: _damage_numbers(f, lambda n: n.update(intercept=n["intercept"][:1])), "intercept must be float64"),
        (lambda f: _damage_numbers(f, lambda n: n["idf_words"].fill(np.nan)), "idf_words holds NaN"),
        (lambda f: (f / "vocabulary.json").unlink(), "cannot read"),
        (lambda f: _damage_words(f, lambda w: {}), "expected words or characters"),
        (lambda f: _damage_words(f, lambda w: w | {"words": [1, 2]}), "words must be a list of texts"),
        (lambda f: _damage_words(f, lambda w: w | {"words": ["a", "a"]}), "must hold texts that all differ"),
        (lambda f: _damage_words(f, lambda w: w | {"words": [*w["words"], "new"]}), "coefficients must be float64"),
    ],
)
def test_a_damaged_linear_folder_is_refused(damage, message, tmp_path):
    """Missing, superfluous or misshapen parts are a PredictorError with the file's name."""
    _fit(Linear(), small_task("classification")).save(tmp_path / "p")
    damage(tmp_path / "p")
    with pytest.raises(PredictorError, match=message):
        load_predictor(tmp_path / "p")


@pytest.mark.parametrize(
    ("kind", "name", "state"),
    [
        ("classification", "linear", {"classes": ["unheard"]}),
        ("classification", "linear", {}),
        ("classification", "majority", {"label_counts": {"good": -1}}),
        ("classification", "majority", {"label_counts": [1]}),
        ("choice", "majority", {"place_counts": [0, 0]}),
        ("generation", "majority", {"answer": 3}),
    ],
)
def test_a_damaged_state_is_refused(kind, name, state, tmp_path):
    """What the manifest says is checked before it answers."""
    _fit(parse(name), small_task(kind)).save(tmp_path / "p")
    manifest = replace(read_manifest(tmp_path / "p"), state=state)
    with pytest.raises(PredictorError):
        parse(name).restore(None, tmp_path / "p", manifest)


def test_majority_counts_what_is_there():
    """Its shares are the training shares of a task built in code."""
    task = small_task("classification", train=10)
    counts = Counter(row.fields["label"] for row in task.train)
    [prediction] = _fit(Majority(), task).predict(task.test[:1])
    assert prediction.probabilities == {label: counts[label] / 10 for label in task.definition.labels}
