"""``taskfit prompts``: wordings side by side, and a prompt that is kept as a test."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest

from tests.cli.conftest import TASK, Taskfit, topic_rows, write_rows
from tests.cli.topic_engine import TopicEngine

TEMPLATES = """
templates:
  - {name: short, prompt: "{{ text }}\\nTopic:", target: "{{ topic }}"}
  - {name: cut, prompt: "{{ text[:5] }}\\nTopic:", target: "{{ topic }}"}
  - {name: long, prompt: "Read this. {{ text }}\\nWhat is it about?", target: "{{ topic }}"}
"""


@pytest.fixture
def wordings(topics: Path, topic_engine: TopicEngine) -> Path:
    """The topics task in three wordings, one of which hides the message; row 100 is wrong where it is seen."""
    topic_engine.mistaken = {100}
    write_rows(topics.with_name("validation.jsonl"), topic_rows(40, start=100))
    topics.write_text(TASK + TEMPLATES, encoding="utf-8")
    return topics


def _json(taskfit: Taskfit, *words: object) -> dict:  # type: ignore[type-arg]
    ran = taskfit("prompts", *words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)  # type: ignore[no-any-return]


def test_wordings_are_ranked_with_intervals_and_the_bad_one_found(
    taskfit: Taskfit, wordings: Path, decoder: Path
) -> None:
    """Two are equal and one is worse; the shorter of the equals comes first."""
    ran = taskfit("prompts", wordings, "--model", decoder)
    assert ran.code == 0, ran.err
    table = [line.split()[:3] for line in ran.out.splitlines()[2:5]]
    assert table == [["→", "short", "0.975"], ["=", "long", "0.975"], ["cut", "0.500", "(0.352"]]
    assert "short is the best of 3: accuracy 0.975" in ran.out
    assert "1 of the other 2 is worse, beyond noise" in ran.out
    assert "runs from 0.500 to 0.975" in ran.out
    assert "40 rows of validation; the test rows were not looked at" in ran.out
    assert "cut: says food 40 times of 40 (20 would be right); said food when it was music: 20" in ran.out
    assert "[1/3] short" in ran.err
    assert "prompts/topics/prompts.html" in ran.out


def test_test_rows_are_never_read_by_a_prompt(
    taskfit: Taskfit, wordings: Path, decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No prompt holds a test row; only validation rows are asked."""
    asked: list[str] = []
    engine = TopicEngine()
    answer = engine._answer
    monkeypatch.setattr(engine, "_answer", lambda request: (asked.append(request.prompt.text), answer(request))[1])
    monkeypatch.setattr("taskfit.strategy.predictor.engine_for", engine.engine)
    _json(taskfit, wordings, "--model", decoder)
    assert any("time 139" in text for text in asked)
    assert not any(f"time {number}" in text for text in asked for number in range(200, 224))


def test_json_holds_every_answer_and_agrees_with_the_page(taskfit: Taskfit, wordings: Path, decoder: Path) -> None:
    """The figures can be computed again from the answers."""
    found = _json(taskfit, wordings, "--model", decoder)
    assert found == json.loads(Path("prompts/topics/prompts.json").read_text(encoding="utf-8"))
    assert [variant["name"] for variant in found["variants"]] == ["short", "long", "cut"]
    for variant in found["variants"]:
        right = [row["said"][variant["name"]][0] in row["right"] for row in found["answers"]]
        assert variant["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / 40)
    cut = found["variants"][2]
    assert cut["verdict"] == "worse"
    assert (cut["lost_count"], cut["won_count"]) == (20, 1)  # row 100 is wrong where its text is seen
    assert cut["won"][0]["row_id"] == "r100"
    assert cut["versus_best"]["p_value"] < 0.05
    assert {said["key"]: said["is_right"] for said in cut["lost"][0]["said"]} == {
        "cut": False,
        "short": True,
        "long": True,
    }
    assert "we ta\nTopic:" in cut["lost"][0]["prompt"]
    assert found["wording_spread"] == pytest.approx({"low": 0.5, "high": 0.975, "sd": 0.2239}, abs=1e-4)
    assert found["draw_spread"] is None
    page = unescape(Path("prompts/topics/prompts.html").read_text(encoding="utf-8"))
    assert found["finding"] in page
    assert all(sentence in page for sentence in (*found["reasons"], *found["caveats"]))
    assert "src=" not in page and "://" not in page and "<script" not in page


def test_draws_of_examples_show_how_fragile_the_prompt_is(
    taskfit: Taskfit, wordings: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """Each wording runs with each draw; examples whose draw is unlucky turn the answers round."""
    rows = topic_rows(24)
    for number in range(6):
        rows[number]["topic"] = "music" if rows[number]["topic"] == "food" else "food"
    write_rows(wordings.with_name("train.jsonl"), rows)
    found = _json(taskfit, wordings, "--model", decoder, "--strategy", "few-shot(k=2, wording=1)", "--draws", 4)
    assert found["strategy"] == "few-shot(k=2)"
    assert found["draws"] == [0, 1, 2, 3]
    short = next(variant for variant in found["variants"] if variant["name"] == "short")
    assert set(short["draws"].values()) == {0.975, 0.025}
    assert found["draw_spread"]["high"] - found["draw_spread"]["low"] == pytest.approx(0.95)
    assert any("4 draws of worked examples" in sentence for sentence in found["reasons"])
    assert any("Every wording is run" in sentence for sentence in found["caveats"])


def test_a_single_wording_shows_its_draws(taskfit: Taskfit, topics: Path, decoder: Path, topic_engine: object) -> None:
    """There is nothing to compare but the draws, and the page says so; without draws there is nothing at all."""
    found = _json(taskfit, topics, "--model", decoder, "--strategy", "few-shot(k=2)", "--draws", 2)
    assert sorted(variant["name"] for variant in found["variants"]) == ["draw 0", "draw 1"]
    assert any("single wording: its draws" in sentence for sentence in found["caveats"])
    assert found["wording_spread"] is None and found["draw_spread"] is not None
    ran = taskfit("prompts", topics, "--model", decoder)
    assert "The only prompt, default, reaches accuracy 1.000" in ran.out
    assert "nothing to compare" in ran.out
    assert "? " in ran.out.splitlines()[2]


def test_eight_rows_are_too_few_to_rank(taskfit: Taskfit, wordings: Path, decoder: Path) -> None:
    """Figures are shown and no winner is named."""
    found = _json(taskfit, wordings, "--model", decoder, "--rows", 8)
    assert found["rows"] == 8
    assert {variant["verdict"] for variant in found["variants"]} == {"unranked"}
    assert "nothing can be ranked" in found["finding"]
    assert any("A sample of 8 of 40 validation rows" in sentence for sentence in found["caveats"])


def test_saved_prompt_becomes_a_regression_test(
    taskfit: Taskfit, wordings: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """It passes as it is, survives a wobble, and fails when the prompt is damaged."""
    ran = taskfit("prompts", wordings, "--model", decoder, "--save", "best")
    assert ran.code == 0
    assert "saved short in best" in ran.err
    ran = taskfit("evaluate", "best")
    assert ran.code == 0, ran.err
    assert "40 validation rows" in ran.out and "Expected accuracy 0.975, found 0.975" in ran.out
    topic_engine.mistaken = {100, 110, 111}
    assert taskfit("evaluate", "best").code == 0
    manifest = Path("best/predictor.json")
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("{{ text }}\\nTopic:", "{{ text | length }}\\nTopic:"), encoding="utf-8")
    ran = taskfit("evaluate", "best")
    assert ran.code == 1
    assert "file predictor.json" in ran.err


@pytest.mark.parametrize("wording", ["2", "long"])
def test_any_wording_can_be_saved(taskfit: Taskfit, wordings: Path, decoder: Path, wording: str) -> None:
    """By number or by name."""
    ran = taskfit("prompts", wordings, "--model", decoder, "--save", "mine", "--wording", wording)
    assert "saved long in mine" in ran.err
    assert json.loads(Path("mine/predictor.json").read_text())["strategy"] == "zero-shot(wording=2)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategy", "linear"), "has no parameter `wording` to try"),
        (("--strategy", "lora+few-shot"), "changes its weights"),
        (("--strategy", "few-shot(k=99)"), "k=99"),
        (("--rows", "41"), "between 1 and 40"),
        (("--draws", "0"), "draws must be at least 1"),
        (("--wording", "1"), "give --save FOLDER too"),
        (("--save", "data"), "data exists already"),
        (("--save", "new", "--wording", "lang"), "no wording 'lang' (did you mean 'long'?)"),
        (("--hardware", "abacus"), "abacus"),
    ],
)
def test_wrong_input_ends_with_code_2(
    taskfit: Taskfit, wordings: Path, decoder: Path, words: tuple[str, ...], said: str
) -> None:
    """One line and a hint."""
    ran = taskfit("prompts", wordings, "--model", decoder, *words)
    assert ran.code == 2
    assert said in ran.error_line
    assert not Path("new").exists()


def test_embedded_model_goes_the_whole_way(taskfit: Taskfit) -> None:
    """No fake: the example's wordings on taskfit-tiny, saved, and evaluated again without a difference."""
    task = Path(__file__).parents[2] / "examples" / "support" / "wordings.yaml"
    ran = taskfit("prompts", task, "--rows", 20, "--save", "best")
    assert ran.code == 0, ran.err
    assert all(f"{name}: says" in ran.out for name in ("question", "bare", "desk", "options-first", "sentences"))
    again = taskfit("evaluate", "best")
    assert again.code == 0, again.err
    assert "unchanged; 0 rows worse than before, 0 better" in again.out
    assert "44 rows of validation are not in the expectation and are left out" in again.err
