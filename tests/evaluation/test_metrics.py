from __future__ import annotations

import warnings
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.classification import confusion
from taskfit.evaluation.metrics import METRICS, notes, per_row, score
from taskfit.evaluation.outcomes import Outcomes, outcomes
from taskfit.evaluation.overlap import normalise_answer, word_f1
from taskfit.tasks.metric_names import METRIC_NAMES
from tests.evaluation.build import chosen, classified, generated, judged, row_ids

COUNTED = ("macro_f1", "micro_f1", "mcc", "balanced_accuracy", "accuracy")

pairs_of_codes = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=40)
texts = st.text(alphabet="the cats\nsat. 1,5%A", max_size=30)


def by_scikit_learn(gold: list[int], predicted: list[int]) -> dict[str, float]:
    """The same five metrics by scikit-learn; label codes alone count, so -1 is no class, except in mcc."""
    seen = sorted({*gold, *predicted} - {-1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": reference.accuracy_score(gold, predicted),
            "macro_f1": reference.f1_score(gold, predicted, labels=seen, average="macro", zero_division=0),
            "micro_f1": reference.f1_score(gold, predicted, labels=seen, average="micro", zero_division=0),
            "mcc": reference.matthews_corrcoef(gold, predicted),
            "balanced_accuracy": reference.recall_score(
                gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0
            ),
        }


def test_the_table_has_exactly_the_metrics_a_task_file_may_name() -> None:
    """Two tables, one truth; figures of probabilities are no metrics of a task."""
    named = {name: entry.kinds for name, entry in METRICS.items() if not entry.needs_probabilities}
    assert named == dict(METRIC_NAMES)


@settings(max_examples=60, deadline=None)
@given(pairs_of_codes)
def test_classification_metrics_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    """Unparsed answers, absent labels and single classes included."""
    gold, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    expected = by_scikit_learn(gold, predicted)
    found = classified(gold, predicted, 4)
    for name in COUNTED:
        assert score(name, found) == pytest.approx(expected[name], abs=1e-9), name


@settings(max_examples=40, deadline=None)
@given(pairs_of_codes, st.randoms(use_true_random=False))
def test_weights_count_rows_as_often_as_they_say(pairs: list[tuple[int, int]], random: object) -> None:
    """A bootstrap resample by weights equals the resample by copies."""
    drawn = np.random.default_rng(len(pairs)).integers(0, len(pairs), len(pairs)).tolist()
    weights = np.array([Counter(drawn)[row] for row in range(len(pairs))], dtype=float)
    gold, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    copied = classified([gold[row] for row in drawn], [predicted[row] for row in drawn], 4)
    for name in COUNTED:
        assert score(name, classified(gold, predicted, 4), weights) == pytest.approx(score(name, copied), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), texts), min_size=1, max_size=6))
def test_rouge_agrees_with_rouge_score_and_takes_the_best_reference(rows: list[tuple[list[str], str]]) -> None:
    """Stemmed F-measures of the package itself, row by row."""
    from rouge_score.rouge_scorer import RougeScorer

    found = generated([golds for golds, _ in rows], [answer for _, answer in rows])
    kinds = {"rouge1": "rouge1", "rouge2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
    for (name, kind), is_stemmed in product(kinds.items(), (True, False)):
        scorer = RougeScorer([kind], use_stemmer=is_stemmed)
        expected = [scorer.score_multi(golds, answer)[kind].fmeasure for golds, answer in rows]
        full = name if is_stemmed else f"{name}_unstemmed"
        assert per_row(full, found) == pytest.approx(expected, abs=1e-12)
        assert score(full, found) == pytest.approx(np.mean(expected), abs=1e-12)


def test_stemming_and_lines_make_a_difference() -> None:
    """Walks is walked once stemmed, twice said counts once, and lines may stand in another order."""
    found = generated([["he walked home"]], ["he walks walks home"])
    assert score("rouge1", found) == pytest.approx(2 * 3 / (3 + 4))
    assert score("rouge1_unstemmed", found) == pytest.approx(2 * 2 / (3 + 4))
    turned = generated([["one two\nthree four"]], ["three four\none two"])
    assert (score("rouge_l", turned), score("rouge_lsum", turned)) == (0.5, 1.0)


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_word_f1_is_the_harmonic_mean_of_precision_and_recall(answer: str, gold: str) -> None:
    """By the definition, in plain loops."""
    one, other = normalise_answer(answer).split(), normalise_answer(gold).split()
    common, left = 0, list(other)
    for word in one:
        if word in left:
            left.remove(word)
            common += 1
    if not one or not other:
        expected = float(one == other)
    elif common == 0:
        expected = 0.0
    else:
        precision, recall = common / len(one), common / len(other)
        expected = 2 * precision * recall / (precision + recall)
    assert word_f1(answer, gold) == pytest.approx(expected, abs=1e-12)
    assert word_f1(gold, answer) == pytest.approx(expected, abs=1e-12)


def test_normalisation_keeps_decimal_points_and_little_else() -> None:
    """The awkward cases, by hand."""
    assert normalise_answer("60%") == normalise_answer("60")
    assert normalise_answer("1.5") != normalise_answer("15")
    assert normalise_answer("The U.S. is at 3.14.") == "us is at 3.14"
    assert normalise_answer("1,000") == "1000"
    assert normalise_answer(" An  ANSWER\nand the rest! ") == "answer and rest"


def test_unparsed_answers_are_wrong_whatever_they_say() -> None:
    """A right text that is not marked as parsed scores nothing."""
    for kind, name in (("choice", "accuracy"), ("generation", "exact_match"), ("generation", "rouge_l")):
        found = outcomes(kind, ["a", "b"], [("yes",), ("yes",)], ["yes", "yes"], is_parsed=[True, False])  # type: ignore[arg-type]
        assert score(name, found) == 0.5
        assert notes(name, found) == ["1 of 2 answers could not be parsed and count as wrong"]


def test_any_of_several_right_labels_counts() -> None:
    """Where a row has two right labels, the one answered is taken as its right one."""
    found = outcomes("classification", ["a", "b"], [("x", "y"), ("x", "y")], ["y", "z"], labels=["x", "y", "z"])
    assert score("accuracy", found) == 0.5
    assert confusion(found).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_confusion_agrees_with_scikit_learn() -> None:
    """Unparsed answers have a column of their own."""
    gold, predicted = [0, 1, 2, 2, 1, 0, 0], [0, 2, 2, -1, 1, 1, -1]
    found = confusion(classified(gold, predicted, 3))
    expected = reference.confusion_matrix(gold, predicted, labels=[0, 1, 2])
    assert np.array_equal(found[:, :3], expected)
    assert found[:, 3].tolist() == [1, 0, 1]


def test_undefined_figures_are_stated() -> None:
    """Mcc of a constant answer is 0, and says that it is undefined; absent labels are named."""
    constant = classified([0, 1, 1], [1, 1, 1], 2)
    assert score("mcc", constant) == 0.0
    assert "undefined" in notes("mcc", constant)[0]
    assert notes("mcc", classified([0, 1, 1], [0, 1, 0], 2)) == []
    assert "1 of 3 labels have no row here" in notes("macro_f1", classified([0, 1, 1], [0, 1, 0], 3))[0]
    assert notes("micro_f1", classified([0, 1, 1], [0, 1, 0], 3)) == []


def test_rouge_on_another_script_says_what_it_reads() -> None:
    """A score of 0 for a perfect Chinese answer must not pass in silence."""
    found = generated([["今天天气很好"]], ["今天天气很好"])
    assert score("rouge_l", found) == 0.0
    assert "100% of the letters" in notes("rouge_l", found)[0]
    assert "words between spaces" in notes("token_f1", found)[0]
    assert notes("exact_match", found) == []
    assert notes("rouge_l", generated([["good weather"]], ["fine"])) == []


def test_unknown_and_unfitting_metrics_name_what_fits() -> None:
    """Errors help on."""
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        score("acuracy", chosen([True]))
    with pytest.raises(ConfigError, match=r"macro_f1 cannot score a choice task; accuracy, .* can"):
        score("macro_f1", chosen([True]))
    with pytest.raises(ConfigError, match="no value per row"):
        per_row("macro_f1", classified([0], [0], 1))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    """Shape, sign and sum are checked."""
    with pytest.raises(DataError, match="weights must be 2 numbers"):
        score("accuracy", chosen([True, False]), np.array(weights))


def test_every_metric_is_perfect_for_perfect_answers() -> None:
    """All metrics reach 1 where all answers are right, and errors of calibration 0 where they are sure as well."""
    text = ["one two three four 5", "four five"]
    found: dict[str, Outcomes] = {
        "classification": judged([0, 1, 2, 1], np.eye(3)[[0, 1, 2, 1]].tolist()),
        "choice": outcomes("choice", ["a"], [("x",)], ["x"], probabilities=[{"x": 1.0, "y": 0.0}]),
        "generation": generated([[line] for line in text], text),
    }
    for name, entry in METRICS.items():
        for kind in entry.kinds:
            assert score(name, found[kind]) == pytest.approx(float(entry.higher_is_better)), name
    assert row_ids(2) == ["r000000", "r000001"]
