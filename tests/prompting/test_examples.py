"""Worked examples chosen by likeness, spread out, and in which order."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.prompting import similarity
from taskfit.prompting.examples import Examples, draw_examples, examples_from_json
from taskfit.prompting.shots import FewShot
from taskfit.prompting.similarity import Bm25, embed, far_apart, ranker
from taskfit.tasks.task import Row
from taskfit.testing import tiny_decoder, tiny_encoder
from tests.strategy.small_tasks import small_task

WORDS = st.lists(st.sampled_from(["sea", "boat", "net", "cat", "Sun"]), max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
def test_bm25_is_the_formula(pool, text):
    """Equal to a loop over the definition, word by word."""
    split = [re.findall(r"\w+", one.casefold()) for one in pool]
    mean = max(sum(map(len, split)) / len(split), 1.0)
    expected = []
    for words in split:
        total = 0.0
        for word in text.casefold().split():
            holding = sum(word in other for other in split)
            idf = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            total += idf * words.count(word) * 2.5 / (words.count(word) + 1.5 * (0.25 + 0.75 * len(words) / mean))
        expected.append(total)
    assert Bm25(pool).scores(text) == pytest.approx(expected)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder")))


def test_similar_examples_share_the_questions_words():
    """A film "a warm film" is shown warm ones; the likest first, or last where asked."""
    task = small_task("classification", train=12)
    first = FewShot(k=3, select="similar").prepare(task, seed=0)
    last = FewShot(k=3, select="similar", order="similar-last").prepare(task, seed=0)
    for row in task.test:
        word = row.fields["text"].split()[1]
        shown = first.prompt(task.definition, row).shots
        assert word in shown[0].question
        assert last.prompt(task.definition, row).shots == shown[::-1]
        assert len(shown) == 3


@pytest.mark.parametrize("select", ["similar", "diverse", "balanced"])
def test_a_training_row_never_sees_itself_and_still_gets_k(select):
    """The likest to a training row is itself; it is left out and the next ones follow."""
    task = small_task("classification", train=9)
    prepared = FewShot(k=3, select=select).prepare(task, seed=0)
    for row in task.train:
        prompt = prepared.prompt(task.definition, row)
        assert prompt.text not in {shot.question for shot in prompt.shots}
        assert len(prompt.shots) == 3 or select != "similar"


def test_loaded_examples_choose_the_same(encoder):
    """The pool goes through JSON whole, also where an encoder measures likeness."""
    task = small_task("choice", train=7)
    for by in ("bm25", encoder):
        examples = draw_examples(task, 2, "similar", wording=1, seed=3, order="similar-last", by=by)
        loaded = examples_from_json(examples.to_json(), Faults(""))
        assert loaded == examples
        for row in task.test:
            question = task.definition.prompt_text(row, 1)
            assert loaded.shown(task.definition, row, question) == examples.shown(task.definition, row, question)
    assert examples.fingerprint


def test_another_encoder_than_at_the_fit_is_refused(encoder):
    """Its examples would be others."""
    with pytest.raises(PredictorError, match="fingerprint"):
        ranker(["a"], encoder, fingerprint="0" * 64)


def test_only_encoders_measure_likeness(tmp_path):
    """A decoder named by mistake is a ConfigError, before anything runs."""
    with pytest.raises(ConfigError, match="bm25 or an encoder"):
        FewShot(select="similar", by=str(tiny_decoder(tmp_path / "d"))).prepare(small_task("choice"), seed=0)


def test_vectors_do_not_depend_on_their_neighbours(encoder):
    """Alone or padded beside a longer text; a text is most like itself."""
    model = similarity._encoder(encoder)
    texts = ["the boat", "boats come in with fish and the market wakes up", "a cat", "the boat"]
    together = embed(model, texts)
    assert np.allclose(together, np.vstack([embed(model, [text]) for text in texts]), atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1)
    assert ranker(texts, encoder).scores("a cat").argmax() == 2


def test_diverse_examples_are_far_apart(encoder):
    """Two of each topic: the three taken are of three topics; by an encoder, k different ones."""
    texts = ["red cat", "red cat cat", "blue sea wave", "blue wave", "old net rope", "rope net", "!!!"]
    assert {place // 2 for place in far_apart(texts[:6], 3, "bm25")} == {0, 1, 2}
    assert len(set(far_apart(texts, 5, encoder))) == 5
    assert sorted(far_apart(texts, 99, "bm25")) == list(range(7))


def test_orders():
    """Fixed is the draw's own; shuffled is another one for other rows, the same one for the same row."""
    task = small_task("classification", train=9, test=9)
    fixed = FewShot(k=6).prepare(task, seed=0)
    shuffled = FewShot(k=6, order="shuffled").prepare(task, seed=0)
    orders = set()
    for row in task.test:
        shots = shuffled.prompt(task.definition, row).shots
        assert Counter(shots) == Counter(fixed.examples.shots)
        assert shots == shuffled.prompt(task.definition, row).shots
        orders.add(shots)
    assert len(orders) > 3
    assert fixed.examples.is_shared and not shuffled.examples.is_shared
    last = FewShot(k=6, order="similar-last").prepare(task, seed=0)
    assert Counter(last.prompt(task.definition, task.test[0]).shots) == Counter(fixed.examples.shots)
    assert not last.examples.is_shared


def test_texts_must_go_with_examples():
    """A folder changed by hand is refused."""
    task = small_task("classification")
    values = draw_examples(task, 2, "similar", wording=0, seed=0).to_json()
    del values["shots"][0]["text"]
    faults = Faults("x")
    examples_from_json(values | {"order": "best"}, faults)
    assert len(faults.messages) == 2
    assert examples_from_json(Examples().to_json(), Faults("")) == Examples()


def test_no_texts_to_compare_still_gives_examples():
    """An empty input is like nothing; the first of the pool are shown."""
    task = small_task("classification")
    prepared = FewShot(k=2, select="similar").prepare(task, seed=0)
    row = Row("empty", {"text": "", "label": "good"})
    assert len(prepared.prompt(task.definition, row).shots) == 2
    assert replace(prepared, wording=1).prompt(task.definition, row).shots
