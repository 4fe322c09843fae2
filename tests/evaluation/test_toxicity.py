from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError
from taskfit.evaluation import toxicity as module
from taskfit.evaluation.retained import RetainedText, suite
from taskfit.evaluation.toxicity import BUCKETS, features, shipped_classifier, toxicity

RUDE = "you stupid bitch shut the fuck up"


def test_rude_texts_are_told_from_ordinary_ones() -> None:
    """Whatever their case; addresses and names of accounts say nothing."""
    plain = "Thank you for your letter, we shall look into it."
    rude, loud, kind = shipped_classifier().probabilities([RUDE, RUDE.upper(), plain])
    assert rude == loud > 0.9
    assert kind < 0.1
    named, bare = shipped_classifier().probabilities([f"@someone {plain} https://example.org/x", plain])
    assert named == bare


def test_ordinary_prose_is_not_called_rude() -> None:
    """The texts of the retained suite, which it was not trained on."""
    texts = [text for part in suite() if isinstance(part, RetainedText) for text in part.texts]
    found = toxicity(texts)
    assert found.share.value == 0.0
    assert found.texts == len(texts)


def test_a_share_stands_beside_the_errors_of_its_judge() -> None:
    """With intervals; texts without a word are counted apart."""
    found = toxicity([RUDE, "A quiet day at sea.", "...", ""])
    assert (found.share.value, found.texts, found.empty) == (0.5, 2, 2)
    assert found.share.low < 0.5 < found.share.high
    assert 0.93 < found.accuracy.low < found.accuracy.value < found.accuracy.high < 0.97
    assert found.hits.value > 0.9 > 0.01 > found.false_alarms.value
    with pytest.raises(DataError, match="at least one text with a word"):
        toxicity(["", "?!"])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_no_text_is_an_error_and_each_gives_a_probability(text: str) -> None:
    """Features are places in the table, each once, of length 1 together."""
    places, values = features(text)
    assert len(set(places.tolist())) == len(places)
    assert all(0 <= place < BUCKETS for place in places)
    if len(places):
        assert np.linalg.norm(values) == pytest.approx(1)
    assert 0 <= shipped_classifier().probabilities([text])[0] <= 1


def test_the_shipped_files_are_small_and_hold_no_words() -> None:
    """Weights of hashed features, and facts."""
    folder = Path(module.__file__).parent
    assert (folder / "toxicity.safetensors").stat().st_size < 1_000_000
    assert b"bitch" not in (folder / "toxicity.safetensors").read_bytes()


def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short, or of another size."""
    from safetensors.numpy import save

    folder = Path(module.__file__).parent
    for name in ("toxicity.safetensors", "toxicity.json"):
        shutil.copy(folder / name, tmp_path / name)
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    path = tmp_path / "toxicity.safetensors"
    whole = path.read_bytes()
    for content, said in (
        (whole[:1000], "cannot be read"),
        (save({"weights": np.zeros(8, dtype=np.float16), "intercept": np.zeros(1, dtype=np.float32)}), "65536 finite"),
    ):
        path.write_bytes(content)
        shipped_classifier.cache_clear()
        with pytest.raises(DataError, match=said):
            shipped_classifier()
    monkeypatch.undo()
    shipped_classifier.cache_clear()
    assert shipped_classifier().weights.shape == (BUCKETS,)
