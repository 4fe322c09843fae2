"""Wrong input on purpose: one clear line, exit code 2, nothing written, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.testing import tiny_decoder
from tests.cli.conftest import TASK, Taskfit, topic_rows, write_rows


def _refused(taskfit: Taskfit, task: Path, *expected: str, options: tuple[object, ...] = ()) -> None:
    """Compare must end with code 2 and one line holding all expected words; no study folder may appear."""
    ran = taskfit("compare", task, "--strategies", "majority", "--out", "study", *options)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err
    told = ran.err[ran.err.index("error: ") :]
    for words in expected:
        assert words in told
    assert not Path("study").exists()


def test_missing_task_file(taskfit: Taskfit, tmp_path: Path) -> None:
    """A path that is not there is named."""
    _refused(taskfit, tmp_path / "nowhere.yaml", "nowhere.yaml")


def test_missing_data_file(taskfit: Taskfit, topics: Path) -> None:
    """A data file that is not there is named."""
    topics.with_name("test.jsonl").unlink()
    _refused(taskfit, topics, "test.jsonl")


def test_broken_json_line_names_file_and_line(taskfit: Taskfit, topics: Path) -> None:
    """The third line of the training file is broken."""
    lines = topics.with_name("train.jsonl").read_text(encoding="utf-8").splitlines()
    lines[2] = '{"text": "cut in the mid'
    topics.with_name("train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    _refused(taskfit, topics, "train.jsonl", "3")


def test_label_outside_the_set_names_row_and_label(taskfit: Taskfit, topics: Path) -> None:
    """A typing error in a label is found, with the nearest label."""
    rows = topic_rows(24)
    rows[5]["topic"] = "musik"
    write_rows(topics.with_name("train.jsonl"), rows)
    _refused(taskfit, topics, "musik", "music", "r5")


def test_template_with_an_unknown_field_names_it(taskfit: Taskfit, topics: Path) -> None:
    """The rows have no field ``message``; those they have are listed."""
    topics.write_text(TASK.replace("{{ text }}", "{{ message }}"), encoding="utf-8")
    _refused(taskfit, topics, "message", "text")


def test_empty_split_is_named(taskfit: Taskfit, topics: Path) -> None:
    """An empty test file is no test split."""
    topics.with_name("test.jsonl").write_text("", encoding="utf-8")
    _refused(taskfit, topics, "test")


def test_one_class_only_is_refused(taskfit: Taskfit, topics: Path) -> None:
    """Nothing can be learnt from one class."""
    rows = [row | {"topic": "food"} for row in topic_rows(24)]
    write_rows(topics.with_name("train.jsonl"), rows)
    _refused(taskfit, topics, "food")


def test_all_faults_of_a_task_file_come_together(taskfit: Taskfit, topics: Path) -> None:
    """An unknown key and an unknown kind are told in one go, each with the nearest known word."""
    text = TASK.replace("kind: classification", "kind: clasification").replace("metrics:", "metrcs:")
    topics.write_text(text, encoding="utf-8")
    _refused(taskfit, topics, "clasification", "classification", "metrcs", "metrics")


@pytest.mark.parametrize(
    ("strategies", "expected"),
    [
        ("fewshot(k=2)", ("fewshot", "few-shot")),
        ("lora(rnak=8)", ("rnak", "rank")),
        ("lora(rank=-1)", ("rank", "-1")),
        ("lora(rank=", ("lora",)),
        ("majority,,linear", ("majority,,linear",)),
    ],
)
def test_wrong_strategy_is_refused_with_the_nearest_name(
    taskfit: Taskfit, topics: Path, strategies: str, expected: tuple[str, ...]
) -> None:
    """Names and parameters are checked before anything runs."""
    _refused(taskfit, topics, *expected, options=("--strategies", strategies))


def test_more_shots_than_training_rows(taskfit: Taskfit, topics: Path) -> None:
    """K is checked in the plan, not in the third hour."""
    _refused(taskfit, topics, "25", "24", options=("--strategies", "few-shot(k=25)"))


def test_model_folder_without_tokenizer(taskfit: Taskfit, topics: Path, tmp_path: Path) -> None:
    """A model cannot be used without its tokenizer."""
    folder = tiny_decoder(tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    _refused(taskfit, topics, "tokenizer", options=("--strategies", "zero-shot", "--models", folder))


def test_pickle_weights_are_refused(taskfit: Taskfit, topics: Path, tmp_path: Path) -> None:
    """Weights that could run code are not opened."""
    folder = tiny_decoder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    _refused(taskfit, topics, "safetensors", options=("--strategies", "zero-shot", "--models", folder))


def test_remote_code_is_refused(taskfit: Taskfit, topics: Path, tmp_path: Path) -> None:
    """A configuration that asks for its own code is not followed."""
    folder = tiny_decoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _refused(taskfit, topics, "code", options=("--strategies", "zero-shot", "--models", folder))


def test_unknown_model_names_the_nearest(taskfit: Taskfit, topics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no folder, not known, and not to be had from a hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _refused(
        taskfit,
        topics,
        "taskfit-tinny",
        "taskfit-tiny",
        options=("--strategies", "zero-shot", "--models", "taskfit-tinny"),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--seeds", 0), "seeds"),
        (("--train-sizes", "0"), "train-sizes"),
        (("--train-sizes", "500"), "500"),
        (("--volume", -1), "volume"),
        (("--max-cost", -1), "usd"),
        (("--max-cost", "inf"), "limits.usd must be above 0 and finite"),
        (("--max-latency", "inf"), "limits.latency_ms must be above 0 and finite"),
        (("--timeout-s", "inf"), "timeout_s must be above 0 and finite"),
        (("--jobs", 0), "--jobs"),
        (("--budget", "0m"), "above 0"),
        (("--budget", "5eur"), "US dollars alone"),
    ],
)
def test_numbers_out_of_range(taskfit: Taskfit, topics: Path, options: tuple[object, ...], expected: str) -> None:
    """Each option says what it takes."""
    _refused(taskfit, topics, expected, options=options)


def test_a_study_folder_of_another_plan_is_left_alone(taskfit: Taskfit, topics: Path) -> None:
    """The same folder with another plan: what differs is said, and nothing is touched."""
    first = taskfit("compare", topics, "--strategies", "majority", "--out", "study", "--seeds", 1)
    assert first.code == 0, first.err
    before = {path: path.read_bytes() for path in Path("study").rglob("*") if path.is_file()}
    second = taskfit("compare", topics, "--strategies", "linear", "--out", "study", "--seeds", 1)
    assert second.code == 2
    assert "strategies" in second.err
    assert {path: path.read_bytes() for path in Path("study").rglob("*") if path.is_file()} == before


def test_fit_does_not_overwrite(taskfit: Taskfit, topics: Path) -> None:
    """A predictor folder that exists is refused before anything is fitted."""
    Path("mine").mkdir()
    ran = taskfit("fit", topics, "--strategy", "majority", "--out", "mine")
    assert ran.code == 2
    assert "mine" in ran.error_line
    assert list(Path("mine").iterdir()) == []


def test_predict_with_a_folder_that_is_no_predictor(taskfit: Taskfit, topics: Path) -> None:
    """The folder is named, and no output appears."""
    Path("empty").mkdir()
    ran = taskfit("predict", "empty", topics.with_name("test.jsonl"), "--out", "answers.jsonl")
    assert ran.code == 2
    assert "predictor.json" in ran.err
    assert not Path("answers.jsonl").exists()


def test_unknown_option_is_refused(taskfit: Taskfit, topics: Path) -> None:
    """A misspelt option ends with exit code 2."""
    assert taskfit("compare", topics, "--stratgies", "majority").code == 2


def test_report_of_a_folder_without_a_study(taskfit: Taskfit) -> None:
    """A folder without ``study.json`` is named."""
    Path("nothing").mkdir()
    ran = taskfit("report", "nothing")
    assert ran.code == 2
    assert "nothing" in ran.err


def test_init_does_not_overwrite(taskfit: Taskfit, topics: Path) -> None:
    """The user's own task file is safe."""
    before = topics.read_bytes()
    ran = taskfit("init", topics.with_name("train.jsonl"))
    assert ran.code == 2
    assert "task.yaml" in ran.err
    assert topics.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "TASK", "--strategies", "majority", "--out", "file/study"),
        ("compare", "TASK", "--strategies", "majority", "--out", "file"),
        ("fit", "TASK", "--strategy", "majority", "--out", "file/mine"),
        ("init", "ROWS", "--out", "file/task.yaml"),
    ],
)
def test_a_path_that_cannot_be_written_is_told_in_one_line(
    taskfit: Taskfit, topics: Path, words: tuple[str, ...]
) -> None:
    """A file stands where a folder would have to."""
    Path("file").write_text("mine", encoding="utf-8")
    given = {"TASK": topics, "ROWS": topics.with_name("train.jsonl")}
    ran = taskfit(*(given.get(word, word) for word in words))
    assert ran.code == 2
    assert "file" in ran.error_line and "Traceback" not in ran.err
    assert Path("file").read_text(encoding="utf-8") == "mine"


def test_shards_of_no_rows_are_refused(taskfit: Taskfit, topics: Path) -> None:
    """A size of 0 is no wish for the default."""
    assert taskfit("fit", topics, "--strategy", "majority", "--out", "mine").code == 0
    ran = taskfit("predict", "mine", topics.with_name("test.jsonl"), "--out", "answers", "--shard-rows", 0)
    assert ran.code == 2
    assert "at least 1 row" in ran.error_line
    assert not Path("answers").exists()


def test_an_interrupted_command_says_how_to_go_on(
    taskfit: Taskfit, topics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C ends with code 130 and one line."""

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("taskfit.tasks.init.init_task", stop)
    ran = taskfit("init", topics.with_name("train.jsonl"))
    assert ran.code == 130
    assert "run the same command again" in ran.err
