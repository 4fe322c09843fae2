"""Smaller training sets are fair and nested."""

from __future__ import annotations

from collections import Counter

import pytest

from taskfit.errors import ConfigError
from taskfit.tasks import load_task, take_train

from .conftest import WriteTask, sentiment_rows

TASK = "name: t\nkind: classification\ndata: rows.jsonl\ninput: text\ntarget: label\n"


def test_a_smaller_sample_lies_inside_a_larger_one(write_task: WriteTask) -> None:
    """Stratified, in the rows' order, with validation and test untouched."""
    task = load_task(write_task(TASK, rows__jsonl=sentiment_rows(100)))
    before: set[str] = set()
    for size in (1, 2, 10, 33, 70):
        part = take_train(task, size, seed=3)
        ids = [row.id for row in part.train]
        assert len(ids) == size and before <= set(ids)
        assert ids == [row.id for row in task.train if row.id in set(ids)]
        counts = Counter(row.fields["label"] for row in part.train)
        assert abs(counts["good"] - counts["bad"]) <= 1
        assert (part.validation, part.test) == (task.validation, task.test)
        assert part.fingerprint != task.fingerprint or size == 70
        before = set(ids)
    assert take_train(task, 10, seed=3).train != take_train(task, 10, seed=4).train
    assert take_train(task, None, seed=3) is task


def test_sizes_beyond_the_training_rows_are_refused(write_task: WriteTask) -> None:
    """Never quietly fewer rows than asked for."""
    rows = [{"text": f"t{n}", "answer": "a"} for n in range(20)]
    task = load_task(write_task("kind: generation\ndata: rows.jsonl\ninput: text\ntarget: answer\n", rows__jsonl=rows))
    assert task.definition.name == "task"
    assert len(take_train(task, 14, seed=0).train) == 14
    for size in (0, 15):
        with pytest.raises(ConfigError, match=f"between 1 and 14 \\(got {size}\\)"):
            take_train(task, size, seed=0)
