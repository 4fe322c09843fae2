"""Stored expectations: written whole, read with suspicion, precise about what changed; and the test against them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError, PredictorError
from taskfit.strategy.contract import Prediction
from taskfit.studies.expectation import (
    Expectation,
    changes_since,
    file_digests,
    read_expectation,
    row_digest,
    rows_of,
    write_expectation,
)
from taskfit.studies.predictions import stored
from taskfit.studies.regression import compare_with_expected
from taskfit.tasks.task import Row
from tests.studies.fakes import LABELS, load_task, write_task


def expectation(task, answers=None) -> Expectation:
    """All test rows of the task, answered rightly or as given."""
    golds = [task.definition.gold(row) for row in task.test]
    said = [gold[0] for gold in golds] if answers is None else answers
    predictions = [Prediction(row.id, answer) for row, answer in zip(task.test, said, strict=True)]
    return Expectation(
        metric="accuracy",
        value=0.75,
        low=0.5,
        high=1,
        task="fake",
        task_path="task.json",
        split="test",
        rows={row.id: row_digest(row) for row in task.test},
        answers=tuple(stored(p, gold) for p, gold in zip(predictions, golds, strict=True)),
        files={"predictor.json": "aa", "gone": "bb"},
        versions={"torch": "2.0", "python": "3.11"},
    )


@pytest.fixture
def task(tmp_path):
    return load_task(write_task(tmp_path / "task.json", test=24))


def test_what_is_written_is_read(task, tmp_path):
    """Every value comes back; a second write replaces the first."""
    first = expectation(task)
    write_expectation(tmp_path, first)
    assert read_expectation(tmp_path) == first
    second = replace(first, value=0.5)
    write_expectation(tmp_path, second)
    assert read_expectation(tmp_path) == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.json", "expected.parquet", "task.json"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", 2, "expected format 1"),
        ("value", "high", "value must be float"),
        ("split", "train", "split must be test or validation"),
        ("rows", {}, "its rows must be those of expected.parquet"),
        ("rows", {"a": {"text": 1}}, "rows.a must map names to texts"),
        ("files", ["a"], "files must map names to texts"),
        ("answers_sha256", "0", "is not the file that expected.json belongs to"),
    ],
)
def test_damaged_head_is_refused(task, tmp_path, key, value, said):
    """The file is read as hostile; the hint says how to store anew."""
    write_expectation(tmp_path, expectation(task))
    values = json.loads((tmp_path / "expected.json").read_text())
    (tmp_path / "expected.json").write_text(json.dumps(values | {key: value}))
    with pytest.raises(PredictorError, match=said) as caught:
        read_expectation(tmp_path)
    assert "--save --force" in str(caught.value.hint)


def test_missing_and_broken_files_are_refused(task, tmp_path):
    """No head, no answers, no JSON, no Parquet."""
    with pytest.raises(PredictorError, match="holds no expectation"):
        read_expectation(tmp_path)
    write_expectation(tmp_path, expectation(task))
    (tmp_path / "expected.parquet").unlink()
    with pytest.raises(PredictorError, match="cannot be read"):
        read_expectation(tmp_path)
    (tmp_path / "expected.json").write_text("{")
    with pytest.raises(PredictorError, match="cannot be read"):
        read_expectation(tmp_path)


def test_answers_without_a_right_answer_are_refused(task, tmp_path):
    """A Parquet file of the right form may still hold nothing where something must be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_expectation(tmp_path, expectation(task))
    table = pq.read_table(tmp_path / "expected.parquet")
    place = table.schema.get_field_index("gold")
    field = table.schema.field("gold")
    empty = table.set_column(place, field, pa.nulls(len(table), field.type))
    pq.write_table(empty, tmp_path / "expected.parquet")
    values = json.loads((tmp_path / "expected.json").read_text())
    values["answers_sha256"] = hashlib.sha256((tmp_path / "expected.parquet").read_bytes()).hexdigest()
    (tmp_path / "expected.json").write_text(json.dumps(values))
    with pytest.raises(PredictorError, match="values of another kind"):
        read_expectation(tmp_path)


def test_rows_are_found_again_whatever_their_order(task):
    """The expectation's order, the task's rows."""
    turned = replace(task, splits={**task.splits, "test": tuple(reversed(task.test))})
    assert rows_of(expectation(task), turned) == task.test


def test_changed_rows_are_named_with_what_changed(task):
    """A field, several fields, a right answer."""
    first = task.test[0]

    def seen(row: Row, definition=task.definition) -> str:
        changed = replace(task, definition=definition, splits={**task.splits, "test": (row, *task.test[1:])})
        with pytest.raises(DataError) as caught:
            rows_of(expectation(task), changed)
        return caught.value.message

    assert "'test-0': field text" in seen(Row(first.id, {**first.fields, "text": "x"}))
    assert "'test-0': fields new, text" in seen(Row(first.id, {"label": first.fields["label"], "new": 1}))
    other = replace(task.definition, references=("{{ 'login' }}",))
    assert "'test-0': the right answer was 'billing' and is 'login'" in seen(first, other)


def test_changes_are_told_by_file_and_version(tmp_path):
    """Changed, gone and new files; versions of libraries known at both times."""
    (tmp_path / "sub").mkdir()
    for name in ("predictor.json", "sub/new", "expected.json", "expected.parquet"):
        (tmp_path / name).write_text(name)
    files = file_digests(tmp_path)
    assert sorted(files) == ["predictor.json", "sub/new"]
    old = Expectation(
        "accuracy", 1, 1, 1, "t", "", "test", {}, (), {"predictor.json": "aa", "gone": "bb"}, {"torch": "2.0"}
    )
    assert changes_since(old, files, {"torch": "2.1", "numpy": "2"}) == [
        "file gone",
        "file predictor.json",
        "file sub/new",
        "torch 2.0 is 2.1 now",
    ]
    assert changes_since(replace(old, files=files), files, {}) == []


@settings(max_examples=25, deadline=None)
@given(lost=st.integers(0, 12), won=st.integers(0, 12))
def test_p_value_is_the_sign_tests(tmp_path_factory, lost, won):
    """For accuracy, swapping rows at random is tossing a coin for each row that moved."""
    task = load_task(write_task(tmp_path_factory.mktemp("t") / "task.json", test=24))
    golds = [task.definition.gold(row)[0] for row in task.test]
    wrong = [LABELS[(LABELS.index(gold) + 1) % 3] for gold in golds]
    then = golds[:lost] + wrong[lost : lost + won] + golds[lost + won :]
    now = wrong[:lost] + golds[lost:]
    found = compare_with_expected(
        task.definition,
        expectation(task, then),
        task.test,
        [Prediction(row.id, answer) for row, answer in zip(task.test, now, strict=True)],
    )
    moved = lost + won
    tail = sum(comb(moved, k) for k in range(lost, moved + 1)) / 2**moved
    assert (len(found.worse_rows), len(found.better_rows)) == (lost, won)
    assert found.difference == pytest.approx((won - lost) / 24)
    if lost > won:
        assert found.p_value == pytest.approx(tail, abs=0.012)
        assert found.is_worse == (found.p_value < 0.05)
    else:
        assert found.p_value >= 0.5 and not found.is_worse
    assert 0 < found.detectable <= 1


def test_detectable_fall_of_graded_metrics_is_that_of_a_paired_mean():
    """Half a point on each of 9 of 24 rows; and never less than if one row had moved by a whole point."""
    from taskfit.studies.regression import _detectable

    moved = _detectable([0.5] * 4 + [-0.5] * 5 + [0.0] * 15, is_graded=True)
    assert moved == pytest.approx((1.6449 + 0.8416) * (9 * 0.25 / 24 / 24) ** 0.5, abs=1e-4)
    assert _detectable([0.0] * 24, is_graded=True) == pytest.approx(2.4865 / 24, abs=1e-4)
    assert _detectable([0.0] * 2, is_graded=True) == 1.0
