from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.leaks import find_leaks, score_without, words_of
from taskfit.evaluation.metrics import score
from tests.evaluation.build import chosen, row_ids

LONG = "the quick brown fox jumps over the lazy dog while two old cats sleep in the warm barn"  # 18 words


def kinds_of(test: str, other: str) -> dict[str, float]:
    """Kinds of leak of one row against one text, with their shares."""
    return {leak.kind: leak.share for leak in find_leaks({"t": test}, [("o", other)]).leaks}


def test_the_same_text_is_found_whatever_its_case_and_punctuation() -> None:
    """And is of every kind it is long enough for."""
    assert kinds_of("My card is LOST!", "my card, is lost") == {"same": 1.0, "near": 1.0}
    assert kinds_of(LONG, f"  {LONG.upper()}. ") == {"same": 1.0, "13-gram": 1.0, "8-gram": 1.0, "near": 1.0}
    assert kinds_of("ﬁne café", "FINE CAFE\u0301") == {"same": 1.0, "near": 1.0}


def test_a_row_within_a_long_text_is_found_by_its_runs() -> None:
    """With the words around it left out of account."""
    found = find_leaks(
        {"t": LONG}, [("a", "nothing of it"), ("b", f"{'so they say ' * 30} {LONG} {'and so on ' * 40}")]
    )
    assert {leak.kind: (leak.share, leak.source, leak.text) for leak in found.leaks} == {
        "13-gram": (1.0, "b", LONG),
        "8-gram": (1.0, "b", LONG),
    }
    assert (found.rows, found.texts, found.short_rows) == (1, 2, 0)


def test_part_of_a_row_counts_by_how_much_it_covers() -> None:
    """13 words on end are a leak; 8 words on end only where they are most of the row."""
    words = LONG.split()
    found = kinds_of(LONG, " ".join(words[:13]))
    assert found == {"13-gram": pytest.approx(13 / 18)}  # 6 of 11 runs of 8 words
    assert kinds_of(LONG, " ".join(words[:12])) == {}
    assert kinds_of(LONG, " ".join(words[:17])).keys() == {"13-gram", "8-gram", "near"}
    assert kinds_of(" ".join(words[:9]), " ".join(words[:8])).keys() == {"near"}  # one of two runs of 8 words
    loose = find_leaks({"t": LONG}, [("o", " ".join(words[:12]))], share=0.4)
    assert [(leak.kind, leak.text) for leak in loose.leaks] == [("8-gram", " ".join(words[:12]))]


def test_nearly_equal_texts_are_found() -> None:
    """A typing error or a changed name in a longer text; another text on the same matter is none."""
    changed = LONG.replace("quick", "quikc").replace("two", "three")
    found = find_leaks({"t": LONG}, [("o", changed), ("p", LONG.replace("barn", "shed"))])
    near = [leak for leak in found.leaks if leak.kind == "near"]
    assert [(leak.source, leak.text) for leak in near] == [("p", LONG.replace("barn", "shed"))]
    assert kinds_of("my card was stolen in the city yesterday", "a card was lost near the town this morning") == {}


def test_a_turn_of_phrase_is_no_leak() -> None:
    """Runs of words that more than ten test rows share are passed over."""
    many = {f"t{number}": f"{LONG} said speaker number {number}" for number in range(11)}
    few = dict(list(many.items())[:10])
    assert find_leaks(many, [("o", LONG)]).counts == {"same": 0, "13-gram": 0, "8-gram": 0, "near": 0}
    assert find_leaks(few, [("o", LONG)]).counts["13-gram"] == 10


def test_scripts_without_spaces_are_read_sign_by_sign() -> None:
    """A Chinese sentence has runs of words like any other."""
    text = "今天天气很好我们一起去公园散步吧"
    assert words_of("今天 ok 3x") == ["今", "天", "ok", "3x"]
    assert kinds_of(text, f"他说{text}然后走了").keys() == {"13-gram", "8-gram"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=40))
def test_runs_agree_with_loops_over_all_pairs_of_places(row: list[int], text: list[int]) -> None:
    """Which words of the row stand in a common run, by trying everything."""
    mine, other = [f"w{code}" for code in row], [f"w{code}" for code in text]
    found = find_leaks({"t": " ".join(mine)}, [("o", " ".join(other))], share=1e-9)
    for length, kind in ((13, "13-gram"), (8, "8-gram")):
        covered: set[int] = set()
        for start in range(len(mine) - length + 1):
            for place in range(len(other) - length + 1):
                if mine[start : start + length] == other[place : place + length]:
                    covered.update(range(start, start + length))
        share = {leak.kind: leak.share for leak in found.leaks}.get(kind, 0.0)  # type: ignore[call-overload]
        assert share == pytest.approx(len(covered) / max(1, len(mine)))


def test_near_pairs_agree_with_comparing_all_pairs() -> None:
    """Hashes find candidates only; what is above the limit is what an exact comparison says."""
    generator = np.random.default_rng(0)
    vocabulary = [f"word{number}" for number in range(200)]
    base = [generator.choice(vocabulary, 12).tolist() for _ in range(40)]
    changed = [
        [word if generator.random() < 0.95 else str(generator.choice(vocabulary)) for word in words] for words in base
    ]
    test = {f"t{number:02d}": " ".join(words) for number, words in enumerate(base)}
    found = find_leaks(test, [(f"o{number:02d}", " ".join(words)) for number, words in enumerate(changed)])

    def pieces(words: list[str]) -> set[str]:
        text = " ".join(words)
        return {text[start : start + 5] for start in range(len(text) - 4)}

    expected = {}
    for number, words in enumerate(base):
        shares = [len(pieces(words) & pieces(other)) / len(pieces(words) | pieces(other)) for other in changed]
        if max(shares) >= 0.8:
            expected[f"t{number:02d}"] = (pytest.approx(max(shares)), f"o{int(np.argmax(shares)):02d}")
    assert {leak.row_id: (leak.share, leak.source) for leak in found.leaks if leak.kind == "near"} == expected
    assert 5 < len(expected) < 40


def test_order_of_rows_and_seed_of_hashes_change_nothing() -> None:
    """But for the text named where several hold the same run."""
    texts = [("a", LONG), ("b", "my card is lost"), ("c", "nothing")]
    test = {"x": "My card is lost.", "y": LONG, "z": ""}
    one = find_leaks(test, texts)
    other = find_leaks(dict(reversed(test.items())), reversed(texts), seed=7)
    assert one == other
    assert one.dirty() == {"x", "y"}
    assert one.dirty("13-gram", "8-gram") == {"y"}
    assert one.counts == {"same": 2, "13-gram": 1, "8-gram": 1, "near": 2}
    assert one.short_rows == 2


def test_figures_are_given_with_and_without_the_rows_that_leaked() -> None:
    """On all rows, the clean ones and the dirty ones; groups stay together."""
    rights = [True] * 10 + [True, False] * 20
    runs = [chosen(rights, groups=[str(row // 2) for row in range(50)])] * 2
    dirty = frozenset(row_ids(50)[:10])
    found = score_without("accuracy", runs, dirty)
    assert (found.rows, found.dirty_rows) == (50, 10)
    assert found.all_rows.value == pytest.approx(score("accuracy", runs[0]))
    assert found.clean is not None
    assert found.dirty is not None
    assert (found.clean.value, found.dirty.value) == (0.5, 1.0)
    clean = score_without("accuracy", [chosen(rights)], frozenset())
    assert (clean.dirty, clean.clean) == (None, clean.all_rows)
    assert score_without("accuracy", [chosen(rights)], frozenset(row_ids(50))).clean is None
    with pytest.raises(DataError, match="at least one row to keep"):
        runs[0].only(np.zeros(50, dtype=bool))


def test_faulty_settings_are_refused() -> None:
    """Shares outside their range, nothing to look for."""
    with pytest.raises(ConfigError, match="similarity must be above 0"):
        find_leaks({"t": "x"}, [], similarity=0.0)
    with pytest.raises(ConfigError, match="share"):
        find_leaks({"t": "x"}, [], share=70)
    with pytest.raises(DataError, match="at least one test row"):
        find_leaks({}, [])
    assert find_leaks({"t": "x"}, []).leaks == ()
