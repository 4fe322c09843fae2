from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.metrics import per_row, score
from taskfit.evaluation.outcomes import outcomes
from taskfit.evaluation.paired import compare_paired
from taskfit.evaluation.perturb import PERTURBATIONS, perturb, perturbed_rows, read_word_list, worst_case
from taskfit.tasks.task import Row
from tests.evaluation.build import chosen, generated, judged

TEXT = "It is not what I expected, and they are not sure that WE ARE right. " * 20


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60), st.sampled_from(sorted(PERTURBATIONS)), st.integers(0, 5))
def test_a_change_depends_on_seed_name_row_and_text_alone(text: str, name: str, seed: int) -> None:
    """Called twice it is the same, and no text is an error."""
    assert perturb(text, name, "row", seed=seed) == perturb(text, name, "row", seed=seed)


@pytest.mark.parametrize("text", ["WİTH THİS", "it ıs not", "iſ not"])
def test_letters_that_are_alike_without_case_only_are_left_alone(text: str) -> None:
    """The dotted capital I and the dotless one of Turkish and the long s are no letters of these lists."""
    for name in ("contract", "expand", "dialect"):
        assert perturb(text, name, "row") == text


def test_rows_and_seeds_are_changed_in_their_own_ways() -> None:
    """Where chance has a part."""
    for name in ("typos", "spaces"):
        found = {perturb(TEXT, name, row, seed=seed) for row in ("a", "b") for seed in (0, 1)}
        assert len(found) == 4
        assert TEXT not in found


def test_each_change_does_what_its_name_says() -> None:
    """By hand."""
    assert perturb("Good DAY", "lower", "r") == "good day"
    assert perturb("Good day", "upper", "r") == "GOOD DAY"
    assert perturb("It is not so; I AM sure we cannot.", "contract", "r") == "It's not so; I'M sure we can't."
    assert perturb("It isn't so; WON'T you?", "expand", "r") == "It is not so; WILL NOT you?"
    spaced = perturb("a b  c", "spaces", "r")
    assert spaced.split() == ["a", "b", "c"]
    assert len(spaced) >= 6


def test_typing_errors_change_about_every_tenth_long_word_by_one_letter() -> None:
    """First and last letters stay, short words too."""
    words = ["elephant", "Saturday", "of"] * 1000
    changed = perturb(" ".join(words), "typos", "r").split(" ")
    apart = [(old, new) for old, new in zip(words, changed, strict=True) if old != new]
    assert 140 < len(apart) < 260
    for old, new in apart:
        assert (old[0], old[-1], abs(len(old) - len(new)) <= 1) == (new[0], new[-1], True)
        assert old != "of"


def test_rows_keep_their_ids_labels_and_other_fields() -> None:
    """Only the named fields are changed, each in a way of its own."""
    row = Row("r1", {"text": "SOME Text", "other": "SOME Text", "number": 3, "label": "UP"})
    (found,) = perturbed_rows([row], ["text", "number"], "lower")
    assert found == Row("r1", {"text": "some text", "other": "SOME Text", "number": 3, "label": "UP"})
    assert row.fields["text"] == "SOME Text"
    with pytest.raises(DataError, match="'r1' has no field 'body'"):
        perturbed_rows([row], ["body"], "lower")
    with pytest.raises(ConfigError, match="did you mean 'lower'"):
        perturbed_rows([row], ["text"], "lowr")


def write_list(folder: Path, *entries: object) -> Path:
    """Write a word list."""
    path = folder / "words.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n", encoding="utf-8")
    return path


def test_word_lists_replace_words_in_their_case(tmp_path: Path) -> None:
    """One other word or a choice of several, always or by chance."""
    path = write_list(
        tmp_path, {"word": "film", "synonyms": ["movie", "picture"]}, {"word": "Mother", "swap": "father"}
    )
    always = read_word_list(path, name="synonyms")
    found = perturb("A film for MOTHER; Film films.", always, "r")
    assert found in [
        f"A {one} for FATHER; {two} films." for one in ("movie", "picture") for two in ("Movie", "Picture")
    ]
    seldom = read_word_list(path, name="seldom", chance=0.2)
    left = perturb("film " * 1000, seldom, "r").split().count("film")
    assert 740 < left < 860


@pytest.mark.parametrize(
    "entry",
    [
        ["film"],
        {"word": "film"},
        {"word": 3, "swap": "x"},
        {"word": "a", "b": "c", "d": "e"},
        {"word": "a", "b": []},
        {"word": "a", "b": [1]},
    ],
)
def test_lists_of_another_form_are_refused(tmp_path: Path, entry: object) -> None:
    """With file and line."""
    path = write_list(tmp_path, {"word": "fine", "swap": "good"}, entry)
    with pytest.raises(DataError, match=r"words\.jsonl, line 2: expected"):
        read_word_list(path, name="x")


def test_files_that_are_no_lists_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, empty, not JSON, too large; and a chance that is none."""
    with pytest.raises(DataError, match="cannot be read"):
        read_word_list(tmp_path / "none.jsonl", name="x")
    path = tmp_path / "words.jsonl"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no words"):
        read_word_list(path, name="x")
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="line 1: expected a JSON object"):
        read_word_list(path, name="x")
    monkeypatch.setattr("taskfit.evaluation.perturb._LARGEST_LIST", 10)
    with pytest.raises(DataError, match="larger than"):
        read_word_list(path, name="x")
    with pytest.raises(ConfigError, match="chance"):
        read_word_list(path, name="x", chance=0.0)


def test_the_worst_case_is_right_only_where_every_form_is() -> None:
    """And it is never better than any of them; being outcomes, it can be paired."""
    generator = np.random.default_rng(0)
    forms = [chosen((generator.random(60) < 0.8).tolist()) for _ in range(3)]
    worst = worst_case("accuracy", forms[0], {"typos": forms[1], "lower": forms[2]})
    expected = np.min([per_row("accuracy", form) for form in forms], axis=0)
    assert per_row("accuracy", worst).tolist() == expected.tolist()
    assert score("accuracy", worst) < min(score("accuracy", form) for form in forms)
    assert compare_paired("accuracy", [forms[0]], [worst], permutations=200).difference > 0
    assert score("accuracy", worst_case("accuracy", forms[0], {})) == score("accuracy", forms[0])


def test_the_worst_case_by_another_yardstick_is_that_of_the_changed_rows() -> None:
    """What the yardsticks of a choice would choose goes with the form of the row that scored worst."""
    ids, golds = ["1", "2"], [["x"], ["x"]]
    runs = [
        outcomes("choice", ids, golds, chosen_by, choices=[{"normalised": each} for each in chosen_by])
        for chosen_by in (["x", "x"], ["y", "x"])
    ]
    worst = worst_case("accuracy_normalised", runs[0], {"typos": runs[1]})
    assert per_row("accuracy_normalised", worst).tolist() == [0.0, 1.0]
    unscored = outcomes("choice", ids, golds, ["x", "y"])
    worst = worst_case("accuracy_normalised", runs[0], {"typos": unscored})
    assert per_row("accuracy_normalised", worst).tolist() == [1.0, 0.0]


def test_the_worst_case_of_texts_and_of_losses() -> None:
    """The lowest overlap, the highest loss."""
    golds = [["a b c d"], ["a b c d"]]
    worst = worst_case("token_f1", generated(golds, ["a b c d", "b"]), {"x": generated(golds, ["b", "a b c d"])})
    assert worst.answers == ("b", "b")
    sure, unsure = judged([0, 1], [[0.9, 0.1], [0.4, 0.6]]), judged([0, 1], [[0.7, 0.3], [0.1, 0.9]])
    lost = worst_case("nll", sure, {"x": unsure})
    assert per_row("nll", lost) == pytest.approx(-np.log([0.7, 0.6]))
    with pytest.raises(DataError, match="same rows"):
        worst_case("accuracy", chosen([True]), {"x": chosen([True, False])})
    with pytest.raises(ConfigError, match="no value per row"):
        worst_case("macro_f1", sure, {"x": unsure})
