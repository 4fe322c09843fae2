from __future__ import annotations

import numpy as np
import pytest

from taskfit.errors import ConfigError
from taskfit.evaluation.metrics import score
from taskfit.evaluation.perturb import PERTURBATIONS, SWAPS, perturb, worst_case
from taskfit.evaluation.robustness import changed_side, row_metric
from taskfit.evaluation.word_pairs import AMERICAN, COLLOQUIAL, GENDERED, SYNONYMS
from tests.evaluation.build import chosen


def runs(rows: int = 80, forms: int = 3) -> list:
    """Runs over the same rows that are right on four of five."""
    generator = np.random.default_rng(0)
    return [chosen((generator.random(rows) < 0.8).tolist()) for _ in range(forms)]


def test_the_headline_is_the_worst_case_and_every_change_has_its_three_figures() -> None:
    """The metric over all rows; its fall and the changed answers over the rows that were changed."""
    original, typos, lower = runs()
    ids = original.row_ids
    side = changed_side(
        "robustness", "accuracy", original, {"typos": typos, "lower": lower}, {"typos": ids, "lower": ids[:40]}
    )
    worst = worst_case("accuracy", original, {"typos": typos, "lower": lower})
    assert side.headline is not None
    assert side.headline.value == pytest.approx(score("accuracy", worst))
    assert side.headline.name == "accuracy, worst of 2 changes and the input as it is"
    found = {figure.name: figure for figure in side.figures}
    assert found["accuracy, typos"].value == pytest.approx(score("accuracy", typos))
    assert found["accuracy, typos less as it is, changed rows only"].rows == 80
    fall = found["accuracy, lower less as it is, changed rows only"]
    assert fall.rows == 40
    keep = np.array([row in ids[:40] for row in ids])
    assert fall.value == pytest.approx(score("accuracy", lower.only(keep)) - score("accuracy", original.only(keep)))
    moved = found["answers that lower changes"]
    assert moved.value == pytest.approx(
        np.mean([a != b for a, b in zip(original.answers[:40], lower.answers[:40], strict=True)])
    )
    assert all(figure.low is not None for figure in side.figures)


def test_what_changes_no_row_is_told_and_counts_nowhere() -> None:
    """A list none of whose words occur shows nothing of robustness."""
    original, other, _ = runs()
    side = changed_side("robustness", "accuracy", original, {"a": other, "b": other}, {"a": other.row_ids, "b": ()})
    assert side.notes == ("no row holds a word that b would change",)
    assert not any(" b" in figure.name for figure in side.figures)
    nothing = changed_side("fairness", "accuracy", original, {"b": other}, {"b": ()})
    assert nothing.headline is None
    assert nothing.reason == "no row holds a word that b would change"
    assert changed_side("fairness", "accuracy", original, {}, {}).reason == "no change was tried"


def test_a_single_changed_row_has_a_figure_and_no_interval() -> None:
    """Said, not NaN."""
    original, other, _ = runs()
    side = changed_side("robustness", "accuracy", original, {"a": other}, {"a": other.row_ids[:1]})
    fall = next(figure for figure in side.figures if "less as it is, changed" in figure.name)
    assert (fall.low, fall.high) == (None, None)
    assert "a single row" in fall.note
    assert all(not np.isnan(figure.value) for figure in side.figures)


def test_worst_cases_go_by_a_metric_of_rows() -> None:
    """Macro F1 has no worst row."""
    assert row_metric(["macro_f1", "accuracy"]) == "accuracy"
    assert row_metric(["macro_f1"]) == "accuracy"
    assert row_metric(["bleu", "token_f1"]) == "token_f1"
    assert row_metric(["bleu"]) == "rouge_l"
    with pytest.raises(ConfigError, match="at least one metric"):
        row_metric([])


def test_shipped_words_change_texts_as_their_names_say() -> None:
    """By hand; case is kept."""
    assert perturb("The colour of the THEATER", "spelling", "r") == "The color of the THEATRE"
    assert perturb("I am going to leave because it isn't this", "dialect", "r") == "I am gonna leave cause it ain't dis"
    assert perturb("He gave his wife her book; ask her.", "gender", "r") == "She gave her husband his book; ask him."
    found = {perturb("a big film", "synonyms", f"r{number}") for number in range(40)}
    assert found == {"a big film", "a large film", "a big movie", "a large movie"}


def test_swapping_gender_twice_gives_the_text_again() -> None:
    """Where no *his*, *him* or *her* leaves it open."""
    text = "He and his sister saw the king; MEN and Ladies, sir."
    assert perturb(perturb(text, "gender", "r"), "gender", "r") == text


def test_no_word_stands_for_itself_and_lists_are_whole() -> None:
    """Each way; names of changes are told apart."""
    for words in (SYNONYMS, AMERICAN, GENDERED):
        assert all(words[words[word]] == word for word in words)
    assert all(word != other for words in (SYNONYMS, AMERICAN, GENDERED, COLLOQUIAL) for word, other in words.items())
    assert not PERTURBATIONS.keys() & SWAPS.keys()
    with pytest.raises(ConfigError, match="did you mean 'gender'"):
        perturb("a", "gendr", "r")
