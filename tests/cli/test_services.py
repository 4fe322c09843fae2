"""The whole way with a service for a model: plan, trials, price, recommendation, predictor, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.testing.service import FakeService
from tests.cli.conftest import TASK, Taskfit, topic_rows, write_rows

PRICES = """
date: {date}
currency: USD
services:
  127.0.0.1/fake: {{usd_per_mtok_in: 100, usd_per_mtok_out: 1000, source: made up}}
"""
MUSIC = ("drum", "violin", "song", "choir")


def topic(text: str) -> str:
    return "music" if any(word in text for word in MUSIC) else "food"


def likely(before: str, token: str) -> float:
    return -0.1 if token.strip() == topic(before.rpartition("talked")[2]) else -5.0


@pytest.fixture
def written(tmp_path: Path, topics: Path) -> Path:
    """The same rows, the topic to be written."""
    path = topics.with_name("written.yaml")
    path.write_text(
        TASK.replace("classification", "generation").replace("labels: [food, music]\n", ""), encoding="utf-8"
    )
    path.write_text(path.read_text().replace("[accuracy]", "[exact_match]"), encoding="utf-8")
    return path


def test_a_service_is_compared_priced_recommended_and_predicts(
    taskfit: Taskfit, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero-shot and few-shot, a key from the environment, in processes of their own."""
    import datetime

    monkeypatch.setenv("FAKE_API_KEY", "sk-123")
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES.format(date=datetime.date.today()), encoding="utf-8")
    with FakeService(topic, key="sk-123") as service:
        name = service.name(key="FAKE_API_KEY")
        words = ("compare", written, "--models", name, "--strategies", "zero-shot,few-shot(k=2),lora", "--seeds", 1)
        ran = taskfit(*words, "--out", "study", "--prices", prices, "--json")
        assert ran.code == 0, ran.err
        table = {row["strategy"]: row for row in json.loads(ran.out)["table"]}
        assert set(table) == {"zero-shot", "few-shot(k=2)"}
        assert {row["value"] for row in table.values()} == {1.0}
        assert "a service gives answers only" in Path("study/report.md").read_text(encoding="utf-8")
        assert service.answered == 48

        results = [json.loads(path.read_text()) for path in Path("study/trials").glob("*/result.json")]
        for result in results:
            cost, usage = result["cost"], result["cost"]["predict_work"]
            expected = (100 * usage["service_prompt_tokens"] + 1000 * usage["service_answer_tokens"]) / 1e6
            assert cost["usd_service_predict"] == cost["usd_paid"] == pytest.approx(expected)
            assert expected > 0
            assert cost["usd_predict"] > expected
            assert cost["predict_flops"] is None
            assert result["spec"]["forecast_usd"] == pytest.approx(expected, rel=0.7)
        shown = table["zero-shot"]
        zero = next(r["cost"] for r in results if r["spec"]["strategy"] == "zero-shot")
        assert shown["usd_per_thousand_rows"] * 24 / 1000 == pytest.approx(zero["usd_predict"], rel=0.1)
        assert not [path for path in Path("study").rglob("*") if path.is_file() and b"sk-123" in path.read_bytes()]

        predictor = next(Path("study/trials").glob("*/predictor"))
        rows = write_rows(tmp_path / "rows.jsonl", topic_rows(4, start=900))
        refused = taskfit("predict", predictor, rows)
        assert refused.code == 2
        assert "the rows and the key in FAKE_API_KEY would be sent there" in refused.error_line
        predicted = taskfit("predict", predictor, rows, "--model", name)
        answers = [json.loads(line)["answer"] for line in predicted.out.splitlines()]
        assert answers == [row["topic"] for row in topic_rows(4, start=900)]


def test_a_budget_in_money_holds_for_a_service_that_bills_more_than_was_told(
    taskfit: Taskfit, written: Path, tmp_path: Path
) -> None:
    """Calls are entered at the most they can cost; what is left out is said, and a larger budget asks on."""
    import datetime

    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES.format(date=datetime.date.today()).replace("_out: 1000", "_out: 3000"), encoding="utf-8")
    with FakeService(lambda text: f"{topic(text)} and more of it and more of it and more") as service:
        words = ("compare", written, "--models", service.name(), "--strategies", "zero-shot", "--seeds", 1)
        capped = taskfit(*words, "--out", "study", "--prices", prices, "--json", "--budget", "0.4usd")
        assert (capped.code, service.answered < 24) == (1, True)
        (left_out,) = json.loads(capped.out)["left_out"]
        assert left_out.startswith("zero-shot on") and "the study's budget of $0.40 is reached" in left_out
        spent = json.loads(Path("study/result.json").read_text())["spent"]
        assert 0 < spent["usd_services"] <= spent["usd"] <= 0.4
        whole = taskfit(*words, "--out", "study", "--prices", prices, "--json", "--budget", "100usd")
        assert (whole.code, json.loads(whole.out)["left_out"]) == (0, [])


def test_a_service_that_scores_chooses_among_labels(taskfit: Taskfit, topics: Path, tmp_path: Path) -> None:
    """With echoed log-probabilities; a saved predictor of a service on this machine predicts without more words."""
    with FakeService(logprob=likely) as service:
        ran = taskfit(
            "fit",
            topics,
            "--strategy",
            "few-shot(k=2)",
            "--model",
            service.name(style="completions"),
            "--out",
            "fitted",
        )
        assert ran.code == 0, ran.err
        rows = write_rows(tmp_path / "rows.jsonl", topic_rows(6, start=900))
        predicted = taskfit("predict", "fitted", rows)
        lines = [json.loads(line) for line in predicted.out.splitlines()]
        assert [line["answer"] for line in lines] == [row["topic"] for row in topic_rows(6, start=900)]
        assert all(line["probability"] == pytest.approx(0.993, abs=0.001) for line in lines)
        assert service.answered == 12


def test_a_service_that_cannot_score_names_what_still_works(taskfit: Taskfit, topics: Path, tmp_path: Path) -> None:
    with FakeService(topic) as service:
        assert taskfit("fit", topics, "--strategy", "zero-shot", "--model", service.name(), "--out", "fitted").code == 0
        rows = write_rows(tmp_path / "rows.jsonl", topic_rows(6))
        ran = taskfit("predict", "fitted", rows)
        assert ran.code == 2
        assert "offers no log-probabilities" in ran.error_line
        assert "hint: Strategies that generate still work: zero-shot" in ran.err


def test_answers_are_kept_where_the_name_says_so(
    taskfit: Taskfit, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(6))
    with FakeService(topic) as service:
        taskfit("fit", written, "--strategy", "zero-shot", "--model", service.name(cache="on"), "--out", "fitted")
        first, second = taskfit("predict", "fitted", rows), taskfit("predict", "fitted", rows)
    assert first.out == second.out != ""
    assert service.answered == 6
    assert (tmp_path / "cache" / "taskfit" / "answers.sqlite").is_file()


@pytest.mark.parametrize("command", ["lora", "full", "encoder"])
def test_strategies_that_need_weights_are_refused(taskfit: Taskfit, topics: Path, command: str) -> None:
    ran = taskfit("fit", topics, "--strategy", command, "--model", "http://localhost:9/v1#m", "--out", "fitted")
    assert ran.code == 2
    assert "needs a model's weights, and a service gives answers only" in ran.error_line


def test_faults_of_a_service_are_found_while_planning(taskfit: Taskfit, written: Path) -> None:
    def error(name: str) -> str:
        ran = taskfit("compare", written, "--models", name, "--strategies", "zero-shot", "--out", "study")
        assert ran.code == 2
        assert not Path("study").exists()
        return ran.error_line

    with FakeService(models=["fake-small", "fake-large"]) as service:
        assert "has no model 'fake-smal' (did you mean 'fake-small'?)" in error(service.name("fake-smal"))
        assert "is not set" in error(service.name(key="ABSENT_API_KEY"))
    assert "cannot be reached" in error(service.name())
