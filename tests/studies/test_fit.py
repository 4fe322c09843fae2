"""One strategy, fitted outside any study."""

from __future__ import annotations

import json

import pytest

from taskfit.errors import ConfigError, PredictorError
from taskfit.strategy.predictor import load_predictor
from taskfit.studies.fit import fit
from taskfit.tasks import load_task

TASK = """
name: tiny
kind: classification
data: {train: rows.jsonl, validation: validation.jsonl, test: test.jsonl}
input: "{{ text }}"
target: "{{ label }}"
"""


@pytest.fixture
def task_path(tmp_path):
    for name, rows in (("rows", 9), ("validation", 4), ("test", 4)):
        lines = [json.dumps({"text": f"{name} {i}", "label": "ab"[i % 3 == 0]}) for i in range(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path / "task.yaml"


def test_fitted_predictor_is_saved_and_loads(task_path, tmp_path):
    """What is returned and what is saved predict the same; the scratch folder is gone."""
    predictor = fit(task_path, "majority", out=tmp_path / "one", train_rows=6)
    rows = load_task(task_path).test
    assert list(load_predictor(tmp_path / "one").predict(rows)) == list(predictor.predict(rows))
    assert not (tmp_path / "one.scratch").exists()


def test_existing_folder_is_never_written_over(task_path, tmp_path):
    """A folder with a predictor stays; so does any other."""
    (tmp_path / "one").mkdir()
    with pytest.raises(PredictorError, match="exists already"):
        fit(task_path, "majority", out=tmp_path / "one")


def test_model_for_a_strategy_without_one_is_refused(task_path):
    """A model that would be ignored is a mistake worth saying."""
    with pytest.raises(ConfigError, match="needs no model"):
        fit(task_path, "majority", model="taskfit-tiny")
