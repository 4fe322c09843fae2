from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from taskfit.evaluation.intervals import bootstrap_interval
from taskfit.evaluation.metrics import notes, score
from taskfit.evaluation.outcomes import outcomes
from taskfit.evaluation.translation import signature
from tests.evaluation.build import generated

words = st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "Cats", "1,5", "ü"])
texts = st.lists(words, max_size=9).map(" ".join)
rows_of_texts = st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), texts), min_size=1, max_size=6)


def by_sacrebleu(golds: list[list[str]], answers: list[str]) -> tuple[float, float]:
    """BLEU and chrF of the package itself."""
    most = max(len(texts) for texts in golds)
    streams = [[texts[place] if place < len(texts) else None for texts in golds] for place in range(most)]
    return BLEU().corpus_score(answers, streams).score / 100, CHRF().corpus_score(answers, streams).score / 100


@settings(max_examples=80, deadline=None)
@given(rows_of_texts)
def test_bleu_and_chrf_agree_with_sacrebleu(rows: list[tuple[list[str], str]]) -> None:
    """Any number of references, empty answers and references included."""
    golds, answers = [golds for golds, _ in rows], [answer for _, answer in rows]
    found = generated(golds, answers)
    expected = by_sacrebleu(golds, answers)
    assert (score("bleu", found), score("chrf", found)) == pytest.approx(expected, abs=1e-9)


def test_a_resample_by_weights_is_the_resample_by_copies() -> None:
    """What makes intervals and paired tests of BLEU possible without counting again."""
    golds = [["the cat sat on the mat"], ["a dog ran in the park today"], ["one two three four five"]]
    answers = ["the cat sat on a mat", "a dog ran in a park today", "one two three four"]
    weights = np.array([2.0, 0.0, 1.0])
    drawn = [0, 0, 2]
    expected = by_sacrebleu([golds[row] for row in drawn], [answers[row] for row in drawn])
    found = generated(golds, answers)
    assert (score("bleu", found, weights), score("chrf", found, weights)) == pytest.approx(expected, abs=1e-9)
    interval = bootstrap_interval("bleu", found, resamples=200)
    assert 0 <= interval.low < interval.value < interval.high <= 1


def test_unparsed_answers_count_as_empty() -> None:
    """Their references still have to be met."""
    found = outcomes("generation", ["a", "b"], [("x y z w",)] * 2, ["x y z w"] * 2, is_parsed=[True, False])
    expected = by_sacrebleu([["x y z w"]] * 2, ["x y z w", ""])
    assert (score("bleu", found), score("chrf", found)) == pytest.approx(expected, abs=1e-9)


def test_bleu_of_short_answers_says_that_it_is_undefined() -> None:
    """A perfect answer of two words has BLEU 0 by definition."""
    found = generated([["good day"]], ["good day"])
    assert score("bleu", found) == 0.0
    assert "no answer has four words" in notes("bleu", found)[0]
    assert score("chrf", found) == pytest.approx(1.0)
    assert notes("bleu", generated([["a b c d"]], ["a b c d"])) == []


def test_a_figure_above_0_is_not_called_undefined() -> None:
    """Three words with their signs are five tokens: what counts is the tokens that BLEU cuts, not the spaces."""
    found = generated([["Yes, I do."]], ["Yes, I do."])
    assert score("bleu", found) == pytest.approx(1.0)
    assert notes("bleu", found) == []


def test_the_signature_names_references_tokenizer_and_version() -> None:
    """As people quote it."""
    one = generated([["a"], ["b"]], ["a", "b"])
    several = generated([["a", "c"], ["b"]], ["a", "b"])
    assert signature("bleu", one).startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "nrefs:var" in signature("bleu", several)
    assert "nc:6|nw:0" in signature("chrf", one)
