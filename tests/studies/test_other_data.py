"""What a strategy learns from besides the task's own rows is part of a trial, and checked by the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.errors import ConfigError, DataError
from taskfit.strategy.grammar import parse
from taskfit.studies.needs import check_task, labels_used, learned_rows, other_data
from taskfit.studies.spec import trial_id
from taskfit.tasks import load_task

TASK = "kind: classification\ninput: text\ntarget: label\ndata: rows.jsonl\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A task and another one that it is mixed with, and a text."""
    for name, word in (("rows", "fish"), ("other", "boat")):
        made = [{"text": f"{word} {n}", "label": "ab"[n % 2]} for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    (tmp_path / "other.yaml").write_text(TASK.replace("rows", "other"), encoding="utf-8")
    (tmp_path / "task.yaml").write_text(TASK + "mixture: {tasks: [other.yaml]}\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("the tide comes in", encoding="utf-8")
    return tmp_path / "task.yaml"


def test_other_data_makes_another_trial_and_no_data_the_same_as_ever() -> None:
    """Trials of older studies keep their ids."""
    parts = ("f", "lora", "tiny", "m", 0, None)
    assert trial_id(*parts) == trial_id(*parts, "")
    assert trial_id(*parts) != trial_id(*parts, "x") != trial_id(*parts, "y")


def test_only_strategies_that_learn_other_data_depend_on_it(path: Path) -> None:
    """A text that changes touches no trial of plain lora."""
    names = ("lora", "zero-shot", "majority", "lora(train_on=mixture)", "continued-pretraining(text=notes.txt)+lora")
    before = [other_data(parse(name), load_task(path)) for name in names]
    assert before[:3] == ["", "", ""]
    assert all(before[3:])
    path.with_name("notes.txt").write_text("the tide goes out", encoding="utf-8")
    after = [other_data(parse(name), load_task(path)) for name in names]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, True, True, False]


def test_a_plan_leaves_out_what_the_task_cannot_give(path: Path) -> None:
    """Before a model is loaded for it."""
    task = load_task(path)
    check_task(parse("lora(train_on=others)+few-shot(k=2)"), task)
    check_task(parse("continued-pretraining(text=notes.txt)+lora(train_on=mixture)"), task)
    check_task(parse("majority"), task)
    with pytest.raises(ConfigError, match="needs rationales"):
        check_task(parse("continued-pretraining(text=notes.txt)+lora(rationale=1)"), task)
    with pytest.raises(DataError, match=r"none\.txt"):
        check_task(parse("continued-pretraining(text=none.txt)+lora"), task)
    with pytest.raises(ConfigError, match="wording"):
        check_task(parse("lora+zero-shot(wording=3)"), task)


def test_a_search_depends_on_what_its_strategy_depends_on(path: Path) -> None:
    """Another text is another trial, and a task that lacks what the strategy needs is left out."""
    searched = parse("tune(strategy=continued-pretraining(text=notes.txt)+lora, tries=2)")
    before = other_data(searched, load_task(path))
    path.with_name("notes.txt").write_text("the tide goes out", encoding="utf-8")
    assert before and before != other_data(searched, load_task(path))
    with pytest.raises(ConfigError, match="needs rationales"):
        check_task(parse("tune(strategy=lora(rationale=1), tries=2)"), load_task(path))
    with pytest.raises(DataError, match=r"none\.txt"):
        check_task(parse("tune(strategy=continued-pretraining(text=none.txt)+lora, tries=2)"), load_task(path))


def test_a_search_is_charged_the_validation_rows_that_it_chooses_on(path: Path) -> None:
    """Random worked examples alone need no other label; who searches their number looks at all rows."""
    task = load_task(path)
    assert labels_used(parse("few-shot(k=2, select=random)"), task, None) == 2
    searched = parse("tune(strategy=few-shot(select=random), tries=4)")
    assert labels_used(searched, task, None) == len(task.train) + len(task.validation)


def test_a_forecast_counts_what_is_learned_besides_the_tasks_rows(path: Path) -> None:
    """Other tasks' rows up to the cap, and text as so many rows; another number of passes is reckoned in."""
    task = load_task(path)
    own, other = len(task.train), len(load_task(path.with_name("other.yaml")).train)
    path.with_name("notes.txt").write_text("tide " * 200, encoding="utf-8")

    def rows(name: str) -> int:
        return learned_rows(parse(name), task, own, 10.0)

    assert rows("majority") == rows("few-shot(k=2)") == rows("lora") == own
    assert rows("lora(train_on=mixture)") == own + other
    assert rows("lora(train_on=others)") == other
    assert rows("continued-pretraining(text=notes.txt)") == 100
    assert rows("continued-pretraining(text=notes.txt, epochs=6)+lora(epochs=3)") == own + 200
