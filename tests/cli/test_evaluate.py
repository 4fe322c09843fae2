"""``taskfit evaluate``: figures, and a regression test that tells a fall from noise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskfit.testing import tiny_decoder
from tests.cli.conftest import TASK, Taskfit, topic_rows, write_rows
from tests.cli.topic_engine import TopicEngine


@pytest.fixture
def task_path(topics: Path) -> Path:
    """The topics task with 40 validation and 40 test rows."""
    write_rows(topics.with_name("validation.jsonl"), topic_rows(40, start=100))
    write_rows(topics.with_name("test.jsonl"), topic_rows(40, start=200))
    return topics


@pytest.fixture
def saved(taskfit: Taskfit, task_path: Path, topic_engine: TopicEngine, decoder: Path) -> Path:
    """A few-shot predictor that is right on 38 of 40 test rows, with that stored as expected."""
    topic_engine.mistaken = {200, 201}
    ran = taskfit("fit", task_path, "--strategy", "few-shot(k=2)", "--model", decoder, "--out", "mine")
    assert ran.code == 0, ran.err
    ran = taskfit("evaluate", "mine", "--on", task_path, "--save")
    assert ran.code == 0, ran.err
    assert "0.950" in ran.out
    return Path("mine")


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """Replace texts of a file; each must be there."""
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_unchanged_predictor_passes_without_naming_the_task(taskfit: Taskfit, saved: Path) -> None:
    """The stored expectation names task, split and rows."""
    ran = taskfit("evaluate", saved)
    assert ran.code == 0, ran.err
    assert "Expected accuracy 0.950, found 0.950: unchanged; 0 rows worse than before, 0 better." in ran.out
    assert "few-shot(k=2) on 40 test rows of topics" in ran.out
    assert "changed" not in ran.err


def test_damaged_template_fails_with_code_1_and_says_what_changed(taskfit: Taskfit, saved: Path) -> None:
    """The message falls out of the prompt, so half of the answers are lost."""
    edit(saved / "predictor.json", ('"prompt": "{{ text }}\\n', '"prompt": "{{ text[:5] }}\\n'))
    ran = taskfit("evaluate", saved)
    assert ran.code == 1
    assert "It got WORSE, beyond noise" in ran.out
    assert "20 rows worse than before, 0 better" not in ran.out  # two of the lost ones were wrong before
    assert "changed since the expectation was stored: file predictor.json" in ran.err
    assert "the predictor keeps wordings of its own" in ran.err


def test_mangled_demonstrations_fail_with_code_1(taskfit: Taskfit, saved: Path) -> None:
    """Worked examples with wrong answers."""
    edit(
        saved / "predictor.json",
        ('"answer": "food"', '"answer": "?"'),
        ('"answer": "music"', '"answer": "food"'),
        ('"answer": "?"', '"answer": "music"'),
    )
    ran = taskfit("evaluate", saved, "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["is_worse"] is True
    assert found["regression"]["p_value"] < found["regression"]["alpha"] == 0.05
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(0.05)
    assert len(found["regression"]["worse_rows"]) == 38
    assert found["regression"]["better_rows"] == ["r200", "r201"]


def test_a_wobble_is_not_a_fall(taskfit: Taskfit, saved: Path, topic_engine: TopicEngine) -> None:
    """Four rows lost and one won is what chance does; the smallest visible fall is told."""
    topic_engine.mistaken = {201, 210, 211, 212, 213}
    ran = taskfit("evaluate", saved)
    assert ran.code == 0, ran.err
    assert "7.5 points lower; 4 rows worse than before, 1 better" in ran.out
    assert "It did not get worse beyond noise (one-sided p = 0.19" in ran.out  # 6 of 32 equally likely outcomes
    assert "would mostly go unseen" in ran.out


def test_five_rows_lost_and_none_won_is_a_fall(taskfit: Taskfit, saved: Path, topic_engine: TopicEngine) -> None:
    """One in 32: below 0.05, so the smallest fall that fails."""
    topic_engine.mistaken |= {210, 211, 212, 213, 214}
    assert taskfit("evaluate", saved).code == 1
    topic_engine.mistaken -= {214}
    assert taskfit("evaluate", saved).code == 0


def test_lower_figure_replaces_a_higher_one_only_by_force(
    taskfit: Taskfit, saved: Path, topic_engine: TopicEngine
) -> None:
    """Small falls, each within noise, must not add up unseen."""
    before = (saved / "expected.json").read_bytes()
    topic_engine.mistaken |= {210}
    ran = taskfit("evaluate", saved, "--save")
    assert ran.code == 2
    assert "not stored: accuracy 0.925 is lower than the 0.950 expected so far" in ran.error_line
    assert "0.925" in ran.out
    topic_engine.mistaken |= set(range(210, 230))
    assert taskfit("evaluate", saved, "--save").code == 1
    assert (saved / "expected.json").read_bytes() == before
    assert taskfit("evaluate", saved, "--save", "--force").code == 0
    assert "found 0.450: unchanged" in taskfit("evaluate", saved).out
    topic_engine.mistaken = set()
    assert taskfit("evaluate", saved, "--save").code == 0
    assert "Expected accuracy 1.000" in taskfit("evaluate", saved).out


def test_a_test_of_less_replaces_one_of_more_only_by_force(taskfit: Taskfit, saved: Path) -> None:
    """Fewer rows, or rows of another split, are not what was expected so far."""
    ran = taskfit("evaluate", saved, "--rows", 10, "--save")
    assert ran.code == 2
    assert "it covers 10 rows, fewer than the 40 expected so far" in ran.error_line
    ran = taskfit("evaluate", saved, "--split", "validation", "--save")
    assert "accuracy over validation rows, and accuracy over test rows is expected so far" in ran.error_line
    (saved / "expected.parquet").unlink()
    assert taskfit("evaluate", saved, "--save").code == 2
    ran = taskfit("evaluate", saved, "--on", "data/task.yaml", "--save", "--force")
    assert ran.code == 0, ran.err
    assert taskfit("evaluate", saved).code == 0


def test_task_file_that_is_gone_is_named(taskfit: Taskfit, saved: Path, task_path: Path) -> None:
    """The expectation names where it lay."""
    task_path.rename(task_path.with_name("moved.yaml"))
    ran = taskfit("evaluate", saved)
    assert ran.code == 2
    assert "task.yaml" in ran.error_line and "--on TASK" in ran.err
    assert taskfit("evaluate", saved, "--on", "data/moved.yaml").code == 0


def test_long_evaluations_say_how_far_they_are(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python; every few seconds, here at once."""
    import taskfit as package

    monkeypatch.setattr("taskfit.studies.evaluate._SAY_EVERY_S", -1.0)
    lines: list[str] = []
    package.evaluate(saved, say=lines.append)
    assert len(lines) == 39
    assert lines[0].startswith("1 of 40 rows, ") and lines[0].endswith(" left")
    with pytest.raises(package.TaskfitError, match="split must be test or validation"):
        package.evaluate(saved, split="train")


def test_rows_that_are_missing_or_changed_end_with_code_2(taskfit: Taskfit, saved: Path, task_path: Path) -> None:
    """Which rows, and what of them; nothing is compared over other rows."""
    rows = topic_rows(40, start=200)
    rows[3]["text"] = "we talked about the drum again, time 203"
    rows[9]["topic"] = "food"
    write_rows(task_path.with_name("test.jsonl"), rows[:38])
    ran = taskfit("evaluate", saved)
    assert ran.code == 2
    assert ran.out == ""
    assert "2 are missing, the first is 'r238'" in ran.err
    assert "2 have changed, the first is 'r203': field text" in ran.err
    write_rows(task_path.with_name("validation.jsonl"), rows[38:])
    assert "'r238', which now stands in validation" in taskfit("evaluate", saved).err


def test_rows_added_to_the_split_are_left_out_and_told(taskfit: Taskfit, saved: Path, task_path: Path) -> None:
    """The comparison stays over the rows that both have answered."""
    write_rows(task_path.with_name("test.jsonl"), topic_rows(50, start=200))
    ran = taskfit("evaluate", saved)
    assert ran.code == 0
    assert "on 40 test rows" in ran.out
    assert "10 rows of test are not in the expectation and are left out" in ran.err


def test_another_split_gives_figures_only(taskfit: Taskfit, saved: Path) -> None:
    """The expectation is over test rows, so validation has nothing to compare with."""
    ran = taskfit("evaluate", saved, "--split", "validation")
    assert ran.code == 0
    assert "1.000" in ran.out
    assert "Expected" not in ran.out
    assert "not compared: the expectation is over test rows" in ran.err


def test_a_sample_is_compared_over_its_own_rows(taskfit: Taskfit, saved: Path) -> None:
    """Fewer rows, same question."""
    ran = taskfit("evaluate", saved, "--rows", 10, "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert (found["rows"], found["regression"]["rows"]) == (10, 10)
    assert taskfit("evaluate", saved, "--rows", 41).code == 2


def test_another_folder_can_be_the_expectation(
    taskfit: Taskfit, saved: Path, task_path: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """A new prompt against the old one; their files differ and nobody minds."""
    topic_engine.mistaken = set(range(200, 220))
    taskfit("fit", task_path, "--strategy", "zero-shot", "--model", decoder, "--out", "new")
    for other in (saved, saved / "expected.json"):
        ran = taskfit("evaluate", "new", "--against", other)
        assert ran.code == 1
        assert "Expected accuracy 0.950, found 0.500" in ran.out
        assert "changed since" not in ran.err
    assert "holds no expectation" in taskfit("evaluate", "new", "--against", task_path.parent).error_line


def test_changed_base_model_is_refused(taskfit: Taskfit, saved: Path, tmp_path: Path) -> None:
    """Another model, or another tokenizer, is never evaluated in silence."""
    own = tiny_decoder(tmp_path / "own")
    values = json.loads((saved / "predictor.json").read_text(encoding="utf-8"))
    values["base"]["folder"] = str(own)
    (saved / "predictor.json").write_text(json.dumps(values), encoding="utf-8")
    assert taskfit("evaluate", saved).code == 0  # the same files in another place
    edit(own / "tokenizer_config.json", ('"eos_token": "</s>"', '"eos_token": "<s>"'))
    ran = taskfit("evaluate", saved)
    assert ran.code == 2
    assert "fingerprint" in ran.error_line


def test_without_an_expectation_there_are_figures_and_a_hint(taskfit: Taskfit, task_path: Path) -> None:
    """Any strategy's predictor; the first evaluation has nothing to compare with."""
    taskfit("fit", task_path, "--strategy", "linear", "--out", "lin")
    assert "needs a task" in taskfit("evaluate", "lin").error_line
    ran = taskfit("evaluate", "lin", "--on", task_path)
    assert ran.code == 0
    assert "linear on 40 test rows" in ran.out
    assert "--save" in ran.err
    assert not Path("lin/expected.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("taskfit-tiny",), "taskfit-tiny is a model"),
        (("nowhere",), "nowhere is no predictor folder"),
        (("lin", "--on", "mmlu"), "benchmarks by name come later"),
        (("lin", "--on", "nowhere.yaml"), "nowhere.yaml"),
        (("lin", "--on", "{task}", "--against", "nowhere"), "nowhere holds no expectation"),
        (("lin", "--on", "{other}"), "was fitted for classification with the labels food, music"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_line(
    taskfit: Taskfit, task_path: Path, words: tuple[str, ...], said: str
) -> None:
    """What cannot be evaluated yet is said, not tried."""
    other = task_path.with_name("other.yaml")
    other.write_text(TASK.replace("labels: [food, music]", "labels: [food, music, sport]"), encoding="utf-8")
    taskfit("fit", task_path, "--strategy", "linear", "--out", "lin")
    ran = taskfit("evaluate", *(word.format(task=task_path, other=other) for word in words))
    assert ran.code == 2
    assert said in ran.error_line
    assert ran.out == ""


def test_holistic_prints_seven_sides_as_a_table_or_json(taskfit: Taskfit, task_path: Path) -> None:
    """Headlines first, then what stands behind them; what was not measured says why."""
    taskfit("fit", task_path, "--strategy", "linear", "--out", "lin")
    ran = taskfit("evaluate", "lin", "--on", task_path, "--holistic", "--rows", 20)
    assert ran.code == 0, ran.err
    head = ran.out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in head[2:]] == [
        "accuracy",
        "calibration",
        "robustness",
        "fairness",
        "bias",
        "toxicity",
        "efficiency",
    ]
    assert "not measured: needs a set that does not ship" in head[6]
    assert "answers that typos changes" in ran.out
    ran = taskfit("evaluate", "lin", "--on", task_path, "--holistic", "--rows", 20, "--json", "--save")
    assert len(json.loads(ran.out)["sides"]) == 7
    assert json.loads(Path("lin/holistic.json").read_text()) == json.loads(ran.out)
    for words, said in (
        (("--holistic", "--force"), "compares nothing"),
        (("--group-by", "topic"), "belong to --holistic"),
        (("--holistic", "--group-by", "colour"), "no row has a field 'colour'"),
    ):
        assert said in taskfit("evaluate", "lin", "--on", task_path, *words).error_line


def test_tuned_model_with_a_damaged_prompt_fails(taskfit: Taskfit, task_path: Path, decoder: Path) -> None:
    """The whole way without a fake engine: train, store, damage."""
    strategy = "full(learning_rate=0.003, min_steps=16)"
    assert taskfit("fit", task_path, "--strategy", strategy, "--model", decoder, "--out", "tuned").code == 0
    assert taskfit("evaluate", "tuned", "--on", task_path, "--save").code == 0
    assert taskfit("evaluate", "tuned").code == 0
    edit(Path("tuned/predictor.json"), ('"prompt": "{{ text }}\\n', '"prompt": "{{ text[-8:] }}\\n'))
    assert taskfit("evaluate", "tuned").code == 1


def test_exit_codes_are_what_a_build_server_reads(taskfit: Taskfit, task_path: Path) -> None:
    """In processes of their own: 0 as stored, 1 with a damaged input template."""
    taskfit("fit", task_path, "--strategy", "linear", "--out", "lin")
    taskfit("evaluate", "lin", "--on", task_path, "--save")
    assert _exit_code("evaluate", "lin") == 0
    edit(Path("lin/predictor.json"), ('"text": "{{ text }}"', '"text": "{{ text[:5] }}"'))
    assert _exit_code("evaluate", "lin") == 1


def _exit_code(*words: str) -> int:
    code = "from taskfit.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], env=dict(os.environ), capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode
