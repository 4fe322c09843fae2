"""A first task file is guessed, explained, and loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.errors import DataError, TaskError
from taskfit.tasks import init_task, load_task
from taskfit.tasks.init import guess_task

from .conftest import json_lines, sentiment_rows


def test_a_csv_of_texts_and_labels_is_a_classification(tmp_path: Path) -> None:
    """Odd headers and values are quoted; the id field is found."""
    lines = [f'u{n},"I like it, number {n}",{"yes: sure" if n % 2 else "no"}' for n in range(40)]
    (tmp_path / "my rows.csv").write_text("uid,Customer query,#label\n" + "\n".join(lines))
    text = init_task(tmp_path / "my rows.csv", tmp_path / "task.yaml")
    assert (tmp_path / "task.yaml").read_text() == text
    task = load_task(tmp_path / "task.yaml")
    assert task.definition.kind == "classification"
    assert task.definition.labels == ("no", "yes: sure")
    assert task.train[0].id.startswith("u")
    assert "# the field with the longest text" in text


def test_splits_in_one_folder_are_found(tmp_path: Path) -> None:
    """By the names train, dev and test; a file among them brings the others."""
    for name, count, start in (("train", 40, 0), ("dev", 10, 40), ("test", 10, 50)):
        (tmp_path / f"{name}.jsonl").write_text(json_lines(sentiment_rows(count, start)))
    (tmp_path / "readme.txt").write_text("no rows")
    for data in (tmp_path, tmp_path / "train.jsonl"):
        out = tmp_path / "tasks" / f"{data.name}.yaml"
        assert 'validation: "../dev.jsonl"' in init_task(data, out)
        task = load_task(out)
        assert [len(task.train), len(task.validation), len(task.test)] == [40, 10, 10]
        assert task.report.made_splits == ()


def test_lists_with_an_answer_among_them_are_a_choice(tmp_path: Path) -> None:
    """By position-free values."""
    rows = [{"question": f"q{n}", "choices": ["a", f"b{n}", "c"], "answer": ("a", f"b{n}")[n % 2]} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text(json_lines(rows))
    init_task(tmp_path / "rows.jsonl", tmp_path / "task.yaml")
    definition = load_task(tmp_path / "task.yaml").definition
    assert (definition.kind, definition.wordings[0].options) == ("choice", "{{ choices }}")


def test_two_texts_are_a_generation(tmp_path: Path) -> None:
    """With the answer found by its name."""
    rows = [{"id": n, "summary": f"short {n}", "dialogue": f"a long talk about {n}" * 3} for n in range(30)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    init_task(tmp_path / "rows.json", tmp_path / "task.yaml")
    task = load_task(tmp_path / "task.yaml")
    assert task.definition.kind == "generation"
    assert task.definition.target_text(task.train[0]).startswith("short")
    assert {row.id for rows in task.splits.values() for row in rows} == {str(n) for n in range(30)}


def test_numbered_labels_ask_for_texts(tmp_path: Path) -> None:
    """A pair of fields makes one input; a line break in a header cannot end a comment."""
    rows = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 3, "odd\nname": n} for n in range(60)]
    (tmp_path / "train.jsonl").write_text(json_lines(rows))
    text = init_task(tmp_path / "train.jsonl")
    assert '# labels: {"0": …, "1": …, "2": …}' in text
    assert "are cut from train" in text
    (tmp_path / "task.yaml").write_text(text)
    task = load_task(tmp_path / "task.yaml")
    assert task.definition.input_text(task.train[0]).count("\n") == 1
    assert task.definition.name == tmp_path.name


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    """Not even with itself."""
    (tmp_path / "rows.jsonl").write_text(json_lines(sentiment_rows(20)))
    (tmp_path / "task.yaml").write_text("mine")
    with pytest.raises(TaskError, match="exists already"):
        init_task(tmp_path / "rows.jsonl", tmp_path / "task.yaml")
    assert (tmp_path / "task.yaml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "task.yaml"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no rows"),
        ([{"a": 1.5}], "no field of text"),
        ([{"a": "x"}], "no field of text"),
        ([{"n": 1, "m": 2}], "no field"),
    ],
)
def test_data_without_an_answer_cannot_be_guessed(rows: list[dict[str, object]], said: str) -> None:
    """The message lists the fields."""
    with pytest.raises(DataError, match=said):
        guess_task(rows)  # type: ignore[arg-type]


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A missing file, and a folder without a training file."""
    with pytest.raises(DataError, match="no such file"):
        init_task(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="needs a file called train"):
        init_task(tmp_path)
    (tmp_path / "test.jsonl").write_text(json_lines(sentiment_rows(20)))
    assert "data: test.jsonl" in init_task(tmp_path / "test.jsonl")
