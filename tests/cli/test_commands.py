"""The commands do what their help says, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.cli.compare import split_names
from taskfit.errors import ConfigError
from tests.cli.conftest import Taskfit, topic_rows, write_rows


def test_compare_prints_a_table_a_recommendation_and_writes_the_report(taskfit: Taskfit, topics: Path) -> None:
    """The main job on floors: linear is right everywhere, so it is recommended."""
    ran = taskfit("compare", topics, "--strategies", "majority,linear", "--out", "study", "--seeds", 1)
    assert ran.code == 0, ran.err
    assert "linear" in ran.out
    assert "majority" in ran.out
    assert "report.html" in ran.out
    page = Path("study/report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "src=" not in page
    assert Path("study/report.md").exists()


def test_compare_again_runs_nothing_and_says_the_same(taskfit: Taskfit, topics: Path) -> None:
    """A finished study is only read."""
    first = taskfit("compare", topics, "--strategies", "majority,linear", "--out", "study", "--seeds", 1)
    second = taskfit("compare", topics, "--strategies", "majority,linear", "--out", "study", "--seeds", 1)
    assert second.code == 0
    assert second.out == first.out
    assert second.err.count("found, done") == 2


def test_compare_without_a_recommendation_ends_with_code_1(taskfit: Taskfit, topics: Path) -> None:
    """The answer is no: nothing is within the limit, and the report says so."""
    ran = taskfit("compare", topics, "--strategies", "linear", "--out", "study", "--max-cost", 1e-12)
    assert ran.code == 1
    assert "No strategy is within the limits" in ran.out
    assert Path("study/report.html").exists()


def test_compare_as_json_is_one_document(taskfit: Taskfit, topics: Path) -> None:
    """Data goes to standard output, all else to standard error."""
    ran = taskfit("compare", topics, "--strategies", "linear", "--out", "study", "--seeds", 1, "--json")
    values = json.loads(ran.out)
    assert values["table"][0]["strategy"] == "linear"
    assert values["table"][0]["low"] <= values["table"][0]["value"] <= values["table"][0]["high"]


def test_fit_then_predict_gives_one_answer_a_row_in_order(taskfit: Taskfit, topics: Path) -> None:
    """A saved predictor answers unlabelled rows."""
    assert taskfit("fit", topics, "--strategy", "linear", "--out", "mine").code == 0
    rows = [{"id": row["id"], "text": row["text"]} for row in topic_rows(6, start=300)]
    ran = taskfit("predict", "mine", write_rows(Path("new.jsonl"), rows))
    answers = [json.loads(line) for line in ran.out.splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert [answer["answer"] for answer in answers] == ["food", "music"] * 3
    assert all(0.5 <= answer["probability"] <= 1 for answer in answers)


def test_predict_into_a_file_writes_it_whole(taskfit: Taskfit, topics: Path) -> None:
    """The file holds what standard output would have held, and is never overwritten."""
    taskfit("fit", topics, "--strategy", "majority", "--out", "mine")
    test = topics.with_name("test.jsonl")
    shown = taskfit("predict", "mine", test).out
    assert taskfit("predict", "mine", test, "--out", "answers.jsonl").code == 0
    assert Path("answers.jsonl").read_text(encoding="utf-8") == shown
    assert taskfit("predict", "mine", test, "--out", "answers.jsonl").code == 2
    assert [path.name for path in Path().glob(".*.partial")] == []


def test_init_writes_a_task_that_compare_accepts(taskfit: Taskfit, topics: Path) -> None:
    """From a data file to a recommendation without writing YAML."""
    data = write_rows(Path("messages.jsonl"), topic_rows(120))
    made = taskfit("init", data)
    assert made.code == 0, made.err
    ran = taskfit("compare", "task.yaml", "--strategies", "majority,linear", "--seeds", 1, "--out", "study")
    assert ran.code == 0, ran.err
    assert "linear" in ran.out


def test_report_is_written_again_from_the_folder_alone(taskfit: Taskfit, topics: Path) -> None:
    """The report is a pure function of the study folder."""
    taskfit("compare", topics, "--strategies", "majority,linear", "--out", "study", "--seeds", 1)
    page = Path("study/report.html")
    before = page.read_bytes()
    page.unlink()
    ran = taskfit("report", "study")
    assert ran.code == 0
    assert page.read_bytes() == before
    shown = json.loads(taskfit("report", "study", "--json").out)
    assert shown["recommendation"]["chosen"] == "linear" and len(shown["trials"]) == 2


@pytest.mark.parametrize("command", ["strategies", "models"])
def test_lists_are_given_in_words_and_as_json(taskfit: Taskfit, command: str) -> None:
    """Both forms name the same things."""
    names = [entry["name"] for entry in json.loads(taskfit(command, "--json").out)]
    shown = taskfit(command).out
    assert names
    assert all(name in shown for name in names)


def test_doctor_names_versions_and_the_number_format(
    taskfit: Taskfit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The machine is described."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    facts = json.loads(taskfit("doctor", "--json").out)
    assert {"taskfit", "torch", "cores", "memory", "number format"} <= set(facts)


def test_version_and_help(taskfit: Taskfit) -> None:
    """Both end with exit code 0."""
    assert taskfit("--version").out.startswith("taskfit 0.")
    ran = taskfit("--help")
    assert ran.code == 0
    assert "compare" in ran.out


def test_names_are_split_at_commas_outside_parentheses() -> None:
    """A parameter's comma does not split."""
    assert split_names('zero-shot, lora(rank=4, targets="a,b"),full') == (
        "zero-shot",
        'lora(rank=4, targets="a,b")',
        "full",
    )
    for wrong in ("", "a,,b", "lora(rank=4", "a)"):
        with pytest.raises(ConfigError):
            split_names(wrong)


def test_progress_is_told_in_lines_and_on_a_terminal_in_a_bar(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both say which trial runs, what it reports, how it ended and how long the rest takes."""
    from taskfit.cli import output, progress
    from taskfit.studies.events import TrialEnded, TrialFound, TrialSaid, TrialStarted
    from taskfit.studies.result import TrialResult
    from taskfit.studies.spec import TrialSpec

    spec = TrialSpec("0123456789ab", "linear", None, None, 0, None)
    done = TrialResult(spec, "done", metrics={"accuracy": 0.75}, wall_s=65.0)
    failed = TrialResult(spec, "failed", "TrainingError", "the loss is nan", None, wall_s=3.0)
    events = [
        TrialFound(done, 1, 3),
        TrialStarted(spec, 2, 3, 125.0),
        TrialSaid(spec, "step 1 of 2"),
        TrialEnded(done, 2, 3, 60.0),
        TrialEnded(failed, 3, 3, None),
    ]
    for has_terminal in (False, True):
        monkeypatch.setattr(output, "is_terminal", lambda has=has_terminal: has)
        with progress.Progress() as shown:
            for event in events:
                shown.show(event)
        told = capfd.readouterr().err
        assert "step 1 of 2" in told
        assert "accuracy 0.750" in told
        assert "failed: the loss is nan" in told
        assert ("2 min 5 s left" in told) or has_terminal
