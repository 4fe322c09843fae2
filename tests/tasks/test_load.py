"""From a task file to a task: splits, ids, reports and faults."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError, TaskError
from taskfit.tasks import load_task, rows_from, unlabelled_rows
from taskfit.tasks.task import Task

from .conftest import WriteTask, json_lines, sentiment_rows

TASK = "name: t\nkind: classification\ndata: rows.jsonl\ninput: text\ntarget: label\n"
SPLIT_DATA = "{train: train.jsonl, validation: valid.jsonl, test: test.jsonl}"
CHOICE = "name: t\nkind: choice\ndata: rows.jsonl\ninput: text\ntarget: answer\noptions: choices\n"
GENERATION = "name: t\nkind: generation\ndata: rows.jsonl\ninput: text\ntarget: answer\n"

_rows = st.lists(
    st.fixed_dictionaries(
        {"text": st.sampled_from([f"t{n}" for n in range(30)]), "label": st.sampled_from(["a", "b"])}
    ),
    min_size=1,
    max_size=60,
).map(lambda rows: [*rows, *({"text": f"fixed {n}", "label": "ab"[n % 2]} for n in range(12))])


def texts(task: Task) -> dict[str, set[str]]:
    """The input texts of each split."""
    return {split: {task.definition.input_text(row) for row in rows} for split, rows in task.splits.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows, data=st.data())
def test_splits_are_disjoint_complete_and_independent_of_order(
    write_task: WriteTask, rows: list[dict[str, str]], data: st.DataObject
) -> None:
    """Every text is in exactly one split, and stays there when the file is shuffled."""
    task = load_task(write_task(TASK, rows__jsonl=rows))
    parts = texts(task)
    assert sum(len(part) for part in parts.values()) == len({row["text"] for row in rows})
    assert set.union(*parts.values()) == {row["text"] for row in rows}
    assert sum(len(split) for split in task.splits.values()) == len({(row["text"], row["label"]) for row in rows})
    shuffled = load_task(write_task(TASK, rows__jsonl=data.draw(st.permutations(rows))))
    assert texts(shuffled) == parts
    assert {row.id for row in shuffled.test} == {row.id for row in task.test}


def test_one_file_is_cut_into_three_splits(write_task: WriteTask) -> None:
    """A fifth for test, a tenth for validation, labels in proportion; the report says so."""
    task = load_task(write_task(TASK, rows__jsonl=sentiment_rows(100)))
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 70, "validation": 10, "test": 20}
    assert sum(row.fields["label"] == "good" for row in task.test) == 10
    assert task.report.made_splits == ("train", "test", "validation")
    assert list(task.report.files.values()) == [100]
    assert task.definition.labels == ("bad", "good")
    assert any("labels were read from the training rows: bad, good" in note for note in task.report.notes)


def test_given_splits_are_kept_and_only_missing_ones_are_cut(write_task: WriteTask) -> None:
    """Validation comes from train; test is what the file says."""
    path = write_task(
        TASK.replace("rows.jsonl", "{train: train.jsonl, test: test.jsonl}"),
        train__jsonl=sentiment_rows(50),
        test__jsonl=sentiment_rows(10, start=50),
    )
    task = load_task(path)
    assert [len(task.train), len(task.validation), len(task.test)] == [45, 5, 10]
    assert task.report.made_splits == ("validation",)


def test_the_share_of_a_split_that_is_given_counts_for_nothing(write_task: WriteTask) -> None:
    """Most of the rows may go to validation where test has a file of its own; not all of them."""
    data = TASK.replace("rows.jsonl", "{train: train.jsonl, test: test.jsonl}")
    rows = {"train__jsonl": sentiment_rows(100), "test__jsonl": sentiment_rows(10, start=100)}
    task = load_task(write_task(data + "split: {validation: 0.85}\n", **rows))
    assert [len(task.train), len(task.validation), len(task.test)] == [15, 85, 10]


def test_the_home_of_an_unknown_user_is_a_path_that_is_not_there(write_task: WriteTask) -> None:
    """No traceback of the system's."""
    path = write_task(TASK.replace("rows.jsonl", "~nobody-of-this-name/rows.jsonl"))
    with pytest.raises(DataError, match="nobody-of-this-name"):
        load_task(path)


def test_the_same_input_stays_in_test_then_validation_then_train(write_task: WriteTask) -> None:
    """A test set never shrinks because of train, even when the answers differ."""
    path = write_task(
        TASK.replace("rows.jsonl", SPLIT_DATA),
        train__jsonl=[*sentiment_rows(20), {"text": "seen", "label": "good"}, {"text": "valid", "label": "good"}],
        valid__jsonl=[
            *sentiment_rows(4, start=20),
            {"text": "seen", "label": "bad"},
            {"text": "valid", "label": "bad"},
        ],
        test__jsonl=[*sentiment_rows(4, start=24), {"text": "seen", "label": "bad"}],
    )
    task = load_task(path)
    assert [len(task.train), len(task.validation), len(task.test)] == [20, 5, 5]
    assert len(task.report.moved_rows) == 3
    assert task.report.conflicting_rows == ()


def test_duplicates_are_dropped_and_conflicts_are_kept_and_both_reported(write_task: WriteTask) -> None:
    """Labels that contradict each other are the data's news, not ours to mend."""
    rows = [
        *sentiment_rows(30),
        {"text": "twice", "label": "good"},
        {"text": "twice", "label": "good"},
        {"text": "torn", "label": "good"},
        {"text": "torn", "label": "bad"},
    ]
    task = load_task(write_task(TASK, rows__jsonl=rows))
    assert len(task.report.duplicate_rows) == 1
    assert sum(len(split) for split in task.splits.values()) == 33
    (pair,) = task.report.conflicting_rows
    by_id = {row.id: row for split in task.splits.values() for row in split}
    assert {by_id[row_id].fields["label"] for row_id in pair} == {"good", "bad"}


def test_groups_never_straddle_made_splits(write_task: WriteTask) -> None:
    """All rows of a customer stay together."""
    rows = [{**row, "who": f"customer {n // 5}"} for n, row in enumerate(sentiment_rows(100))]
    task = load_task(write_task(TASK + "groups: who\n", rows__jsonl=rows))
    groups = [{row.fields["who"] for row in split} for split in task.splits.values()]
    assert sum(len(group) for group in groups) == 20
    assert all(groups)


def test_groups_that_given_splits_share_are_noted(write_task: WriteTask) -> None:
    """The file's own splits stand, but not in silence; a row without a group is a fault."""
    train = [{**row, "who": "same"} for row in sentiment_rows(20)]
    test = [{**row, "who": "same"} for row in sentiment_rows(4, start=20)]
    valid = [{**row, "who": "other"} for row in sentiment_rows(4, start=24)]
    text = TASK.replace("rows.jsonl", SPLIT_DATA) + "groups: who\n"
    task = load_task(write_task(text, train__jsonl=train, valid__jsonl=valid, test__jsonl=test))
    assert "1 groups stand in both train and test, as the task file gives them" in task.report.notes
    with pytest.raises(DataError, match="`who`, the field of groups, is missing"):
        load_task(write_task(text, train__jsonl=train, valid__jsonl=sentiment_rows(4, start=24), test__jsonl=test))


def test_options_belong_to_the_input_of_a_choice(write_task: WriteTask) -> None:
    """The same question with other options is another row; with shuffled options it is the same."""

    def rows(*pairs: tuple[str, str]) -> list[dict[str, object]]:
        return [{"text": "Which?", "choices": list(pair), "answer": pair[0]} for pair in pairs]

    path = write_task(
        CHOICE.replace("rows.jsonl", SPLIT_DATA),
        train__jsonl=rows(("a", "b"), ("c", "d"), ("f", "e")),
        valid__jsonl=rows(("g", "h")),
        test__jsonl=rows(("e", "f")),
    )
    task = load_task(path)
    assert [len(task.train), len(task.validation), len(task.test)] == [2, 1, 1]


def test_label_outside_the_set_names_row_and_label(write_task: WriteTask) -> None:
    """With file, line and the nearest label."""
    rows = [*sentiment_rows(10), {"id": "x", "text": "odd", "label": "goood"}]
    with pytest.raises(DataError) as caught:
        load_task(write_task(TASK + "labels: [good, bad]\n", rows__jsonl=rows))
    assert "label 'goood' is none of the labels (did you mean 'good'?); labels: good, bad" in caught.value.message
    assert "rows.jsonl:11" in caught.value.message
    assert caught.value.hint is not None and "faulty_rows: drop" in caught.value.hint


def test_faulty_rows_are_dropped_only_when_asked_for_and_then_reported(write_task: WriteTask) -> None:
    """Their ids and the reason stand in the report; nothing else moves."""
    good = sentiment_rows(40)
    text = TASK + "labels: [good, bad]\nfaulty_rows: drop\n"
    whole = load_task(write_task(text, rows__jsonl=good))
    task = load_task(write_task(text, rows__jsonl=[*good, {"text": "odd", "label": "goood"}]))
    assert len(task.report.dropped_rows) == 1
    assert any(note.startswith("dropped: label 'goood'") for note in task.report.notes)
    assert {split: len(rows) for split, rows in task.splits.items()} == {
        s: len(rows) for s, rows in whole.splits.items()
    }


def test_all_faults_of_rows_are_reported_together_and_at_most_twenty(write_task: WriteTask) -> None:
    """Each fault once, with the number of rows that have it."""
    rows = [{"text": f"t{n}", "label": f"wrong {n // 2}"} for n in range(60)]
    with pytest.raises(DataError) as caught:
        load_task(write_task(TASK + "labels: [a, b]\n", rows__jsonl=rows))
    assert caught.value.message.count("is none of the labels") == 20
    assert "and 10 more" in caught.value.message
    assert "; and 1 more row)" in caught.value.message


def test_a_field_that_some_rows_lack_is_a_task_error_with_the_fields(write_task: WriteTask) -> None:
    """StrictUndefined, for every row."""
    rows = [*sentiment_rows(10), {"body": "no text", "label": "good"}]
    with pytest.raises(TaskError, match=r"names 'text', which is no field.*fields: body, label.*rows\.jsonl:11"):
        load_task(write_task(TASK, rows__jsonl=rows))
    with pytest.raises(TaskError, match=r"names 'lable', which is no field \(did you mean 'label'\?\)"):
        load_task(write_task(TASK.replace("target: label", "target: lable"), rows__jsonl=sentiment_rows(10)))


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        (TASK, [], "no rows in"),
        (TASK, sentiment_rows(2), "the split"),
        (TASK, [{"text": f"t{n}", "label": "a"} for n in range(20)], "all rows of train have one label, 'a'"),
        (TASK, [*sentiment_rows(20), {"text": "x", "label": None}], "the target is empty"),
        (GENERATION, [{"text": f"t{n}", "answer": " " if n == 7 else "a"} for n in range(20)], "the target is empty"),
        (CHOICE, [{"text": f"t{n}", "choices": ["a"], "answer": "a"} for n in range(9)], "at least 2 options (got 1)"),
        (
            CHOICE,
            [{"text": f"t{n}", "choices": ["a", "a"], "answer": "a"} for n in range(9)],
            "two options are the same: 'a'",
        ),
        (CHOICE, [{"text": f"t{n}", "choices": ["a", ""], "answer": "a"} for n in range(9)], "an option is empty"),
        (
            CHOICE,
            [{"text": f"t{n}", "choices": ["ab", "c"], "answer": "abb"} for n in range(9)],
            "none of the options: 'abb'",
        ),
        (CHOICE, [{"text": f"t{n}", "choices": 7, "answer": "a"} for n in range(9)], "options must be a list"),
        (TASK + "id: key\n", sentiment_rows(9), "no text or whole number in `key`"),
        (TASK, [{"text": f"t{n}", "label": f"l{n}"} for n in range(1001)], "1001 different answers"),
    ],
)
def test_faulty_rows_say_what_is_wrong(write_task: WriteTask, text: str, rows: list[object], said: str) -> None:
    """Every check has its sentence."""
    with pytest.raises((DataError, TaskError)) as caught:
        load_task(write_task(text, rows__jsonl=rows))
    assert said in caught.value.message


WORDINGS = """name: t
kind: classification
data: rows.jsonl
templates:
  - {name: plain, prompt: "{{ text }}?", target: label}
  - {name: asked, prompt: "Is '{{ text }}' good?", target: "{% if label == 'good' %}Yes{% else %}No{% endif %}"}
"""


def test_wordings_bring_their_own_label_texts(write_task: WriteTask) -> None:
    """Read from what the target template says for each label."""
    definition = load_task(write_task(WORDINGS, rows__jsonl=sentiment_rows(30))).definition
    assert definition.wordings[0].label_texts == {}
    assert definition.wordings[1].label_texts == {"good": "Yes", "bad": "No"}
    assert definition.text == "{{ text }}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{% if label == 'good' %}Yes{% else %}No{% endif %}", "{{ 'Yes' }}", "two labels have the same text 'Yes'"),
        ("{% if label == 'good' %}Yes{% else %}No{% endif %}", "{{ text }}", "is not the text of the label"),
        ("target: label}", "target: label, labels: {good: a, bda: b}}", "`labels` names 'bda', which is no label"),
        ("target: label}", "target: label, labels: {good: bad, other: x}}", "two labels have the same text 'bad'"),
        ("Is '{{ text }}' good?", "{{ txt }}", "wording 'asked': template '{{ txt }}' names 'txt'"),
        (
            "{% if label == 'good' %}Yes{% else %}No{% endif %}",
            "{% if label == 'good' %}Y{% endif %}",
            "the target is empty",
        ),
    ],
)
def test_wordings_are_checked_against_the_rows(write_task: WriteTask, old: str, new: str, said: str) -> None:
    """A template that says the same for two labels would train a guess."""
    assert old in WORDINGS
    with pytest.raises((DataError, TaskError)) as caught:
        load_task(write_task(WORDINGS.replace(old, new), rows__jsonl=sentiment_rows(30)))
    assert said in caught.value.message


def test_a_label_without_rows_has_its_own_value_as_text_and_the_note_says_so(write_task: WriteTask) -> None:
    """Nothing shows what the wording would say for it."""
    text = WORDINGS.replace("templates:", "labels: [good, bad, rare]\ntemplates:")
    task = load_task(write_task(text, rows__jsonl=sentiment_rows(30)))
    assert any("no row shows what wording 'asked' says for rare" in note for note in task.report.notes)


def test_the_text_of_a_label_counts_as_its_value(write_task: WriteTask) -> None:
    """Rows may hold either."""
    task = load_task(write_task(TASK + "labels: {0: bad, 1: good}\n", rows__jsonl=sentiment_rows(30)))
    assert {task.definition.gold(row) for row in task.train} == {("0",), ("1",)}


def test_without_fields_of_text_the_input_is_the_prompt(write_task: WriteTask) -> None:
    """Nested fields cannot be named by themselves; the note says what is used."""
    rows = [{"q": {"stem": f"t{n}"}, "label": "ab"[n % 2]} for n in range(30)]
    text = "name: t\nkind: classification\ndata: rows.jsonl\ntemplates: [{prompt: 'Q: {{ q.stem }}', target: label}]\n"
    task = load_task(write_task(text, rows__jsonl=rows))
    assert task.definition.input_text(task.train[0]).startswith("Q: t")
    assert any("the prompt of wording 'wording 1'" in note for note in task.report.notes)


def test_labels_absent_from_a_split_are_noted(write_task: WriteTask) -> None:
    """Allowed, because rare labels exist; said, because a score depends on it."""
    task = load_task(write_task(TASK + "labels: [good, bad, rare]\n", rows__jsonl=sentiment_rows(30)))
    assert "test has no row with the label rare" in task.report.notes


def test_numbered_labels_stand_in_order_of_number(write_task: WriteTask) -> None:
    """10 comes after 9."""
    rows = [{"text": f"t{n}", "label": n % 12} for n in range(120)]
    assert load_task(write_task(TASK, rows__jsonl=rows)).definition.labels == tuple(str(n) for n in range(12))


def test_the_fingerprint_is_that_of_the_content(write_task: WriteTask, tmp_path: Path) -> None:
    """Not of file names or compression; any change of a row or of the definition changes it."""
    rows = sentiment_rows(30)
    first = load_task(write_task(TASK, rows__jsonl=rows)).fingerprint
    (tmp_path / "other.jsonl.gz").write_bytes(gzip.compress(json_lines(rows).encode()))
    assert load_task(write_task(TASK.replace("rows.jsonl", "other.jsonl.gz"))).fingerprint == first
    assert load_task(write_task(TASK + "instruction: Say it.\n")).fingerprint != first
    rows[3] = {**rows[3], "note": "x"}
    assert load_task(write_task(TASK, rows__jsonl=rows)).fingerprint != first


def test_a_text_of_one_megabyte_loads(write_task: WriteTask) -> None:
    """Prompt, id and splits of long documents."""
    rows = [*sentiment_rows(20), {"text": "long " * 200_000, "label": "good"}]
    task = load_task(write_task(TASK, rows__jsonl=rows))
    assert max(len(task.definition.prompt_text(row)) for split in task.splits.values() for row in split) > 1_000_000


def test_csv_and_globs_load(write_task: WriteTask, tmp_path: Path) -> None:
    """Several files of one kind make one source; headers with spaces are fields."""
    for part in range(3):
        lines = [f'"text, {part} {n}",{"ab"[n % 2]}' for n in range(10)]
        (tmp_path / f"part-{part}.csv").write_text("Customer query,label\n" + "\n".join(lines))
    text = TASK.replace("rows.jsonl", "part-*.csv").replace("input: text", "input: Customer query")
    task = load_task(write_task(text))
    assert len(task.report.files) == 3
    assert sum(len(rows) for rows in task.splits.values()) == 30
    with pytest.raises(DataError, match="no file has a name like this"):
        load_task(write_task(text.replace("part-", "prat-")))
    with pytest.raises(DataError, match="a folder; name its files"):
        load_task(write_task(text.replace("part-*.csv", ".")))


def test_rows_to_predict_are_streamed_with_the_ids_of_the_task(write_task: WriteTask, tmp_path: Path) -> None:
    """The same row has the same id in a task and in a file to predict; a broken line comes after the rows before it."""
    path = write_task(
        TASK + "unlabelled: [rows.jsonl, more.csv]\n", rows__jsonl=sentiment_rows(30), more__csv="text\nz\n"
    )
    task = load_task(path)
    ids = {row.id for rows in task.splits.values() for row in rows}
    assert {row.id for row in rows_from(tmp_path / "rows.jsonl")} == ids
    assert [row.fields.get("text") for row in unlabelled_rows(task)][-1] == "z"
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\nbroken\n')
    rows = rows_from(str(tmp_path / "bad.jsonl"))
    assert next(rows).id == "a"
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        next(rows)


def test_wordings_after_the_first_are_checked_on_a_sample_and_the_note_says_so(write_task: WriteTask) -> None:
    """Many wordings over many rows would take minutes."""
    task = load_task(write_task(WORDINGS, rows__jsonl=sentiment_rows(1500)))
    assert any("checked on the first 1000 rows" in note for note in task.report.notes)


def test_several_references_are_all_gold(write_task: WriteTask) -> None:
    """A split that has fewer of them gives empty texts, which are left out."""
    rows = [{"text": f"t{n}", "answer": "a", **({"second": "b"} if n % 2 else {})} for n in range(30)]
    text = GENERATION + "references: [answer, '{{ second | default(\"\") }}']\nmetrics: rouge1\n"
    task = load_task(write_task(text, rows__jsonl=rows))
    golds = {task.definition.gold(row) for row in task.train}
    assert golds == {("a",), ("a", "b")}
    assert json.loads(json.dumps(task.definition.to_json()))["metrics"] == ["rouge1"]
