from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.retained import (
    MOST_UNITS,
    RetainedAnswers,
    RetainedTask,
    RetainedText,
    read_retained,
    suite,
)

TASK = """
name: colours
kind: classification
data: {train: rows.jsonl, validation: rows2.jsonl, test: rows3.jsonl}
input: "{{ text }}"
target: "{{ label }}"
labels: [red, blue]
metrics: [accuracy]
"""


def write_task(folder: Path, rows: int = 12) -> Path:
    """Write a task of two labels."""
    for number, name in enumerate(("rows", "rows2", "rows3")):
        lines = [json.dumps({"text": f"{name} {i}", "label": ("red", "blue")[i % 2]}) for i in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines[: rows if number != 1 else 2]), encoding="utf-8")
    path = folder / "colours.yaml"
    path.write_text(TASK, encoding="utf-8")
    return path


def test_the_shipped_suite_is_whole_and_small() -> None:
    """Nothing comes twice, and nothing is empty."""
    text, answers = suite()
    assert isinstance(text, RetainedText) and isinstance(answers, RetainedAnswers)
    assert len(set(text.texts)) == len(text.texts) >= 30
    assert len(set(answers.pairs)) == len(answers.pairs) == 60
    assert all(200 < len(each) < 700 for each in text.texts)
    assert all(question and answer for question, answer in answers.pairs)
    path = Path(read_retained.__code__.co_filename).with_name("retained_suite.jsonl")
    assert path.stat().st_size < 100_000


def test_nothing_named_is_the_suite_and_names_keep_their_order(tmp_path: Path) -> None:
    """A task file is asked on its test rows; a file that is called task is told by its folder."""
    path = write_task(tmp_path)
    assert read_retained([]) == suite()
    task, *rest = read_retained([path, "suite"])
    assert tuple(rest) == suite()
    assert isinstance(task, RetainedTask)
    assert (task.name, len(task.rows)) == ("colours", 12)


def test_a_plain_file_is_cut_at_blank_lines_into_pieces(tmp_path: Path) -> None:
    """Paragraphs are kept whole and joined until a piece is long enough; nothing is lost."""
    paragraphs = [f"Paragraph {number} " + "word " * 30 for number in range(12)]
    path = tmp_path / "notes.txt"
    path.write_text("\n\n \n".join(paragraphs), encoding="utf-8")
    (found,) = read_retained([path])
    assert isinstance(found, RetainedText)
    assert found.name == "notes"
    assert len(found.texts) == 3
    assert all(len(text) >= 500 for text in found.texts)
    assert "".join(found.texts).count("Paragraph") == 12


def test_rows_with_a_text_are_documents_and_many_are_sampled(tmp_path: Path) -> None:
    """The sample is always the same, and it is told."""
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"document {i}"}) for i in range(500)), encoding="utf-8")
    (found,) = read_retained([str(path)])
    assert isinstance(found, RetainedText)
    assert len(found.texts) == MOST_UNITS
    assert found.note == "a sample of 200 of 500 documents"
    assert read_retained([path]) == (found,)
    task = write_task(tmp_path, rows=600)
    (rows,) = read_retained([task])
    assert isinstance(rows, RetainedTask)
    assert len(rows.rows) == MOST_UNITS
    assert rows.note == "a sample of 200 of 600 rows"


def test_fingerprints_tell_contents_apart(tmp_path: Path) -> None:
    """Losses over other texts are other losses."""
    path = tmp_path / "a.txt"
    path.write_text("One. " * 150 + "\n\n" + "Two. " * 150, encoding="utf-8")
    (first,) = read_retained([path])
    path.write_text("One. " * 150 + "\n\n" + "Twa. " * 150, encoding="utf-8")
    (second,) = read_retained([path])
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "is missing"),
        ("one.txt", "A single paragraph.", "at least 2 documents"),
        ("empty.txt", "", "at least 2 documents"),
        ("rows.jsonl", '{"text": "a"}\n{"body": "b"}', "field `text`"),
        ("rows.jsonl", '{"text": "a"}\n{"text": " "}', "field `text`"),
        ("rows.weights", "x", "must be in a file that ends in"),
    ],
)
def test_files_that_say_nothing_of_memory_are_refused(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    """Before anything is fitted."""
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_retained([tmp_path / name])


def test_bytes_that_are_no_text_and_files_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hostile or broken."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(DataError, match="cannot be read"):
        read_retained([path])
    monkeypatch.setattr("taskfit.evaluation.retained._LARGEST_BYTES", 10)
    with pytest.raises(DataError, match="larger than"):
        read_retained([path])


def test_parts_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    """A report joins the seeds of a part by its name, so two files called alike would be taken for two seeds."""
    for folder in ("news", "sports"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.jsonl").write_text('{"text": "a b"}\n{"text": "c d"}\n', encoding="utf-8")
    (tmp_path / "text.txt").write_text("one two\n" * 100 + "\n" + "three four", encoding="utf-8")
    named = ["suite", tmp_path / "text.txt", tmp_path / "news" / "test.jsonl", tmp_path / "sports" / "test.jsonl"]
    names = [part.name for part in read_retained(named)]
    assert names == ["text", "answers", *(path.as_posix() for path in named[1:] if isinstance(path, Path))]
    assert [part.name for part in read_retained(named[2:3])] == ["test"]


def test_a_name_twice_and_a_task_of_one_row_are_refused(tmp_path: Path) -> None:
    """One row has no interval."""
    with pytest.raises(ConfigError, match="named once"):
        read_retained(["suite", "suite"])
    path = write_task(tmp_path)
    (tmp_path / "rows3.jsonl").write_text(json.dumps({"text": "only", "label": "red"}), encoding="utf-8")
    with pytest.raises(DataError, match="at least 2 test rows"):
        read_retained([path])
