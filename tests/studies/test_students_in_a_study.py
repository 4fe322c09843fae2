"""Students in a study: planned, left out with a reason, priced, compared, saved and loaded like everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.costs.trial_cost import TrialCost
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.studies.compare_study import compare
from taskfit.studies.result import trial_folder
from taskfit.studies.study_file import read_study
from taskfit.testing import tiny_decoder

WORDS = {"login": "cannot sign in password", "praise": "great service thanks"}
TASK = """
name: tiny
kind: classification
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
unlabelled: more.jsonl
input: text
target: label
metrics: [accuracy]
"""


def _rows(split: str, count: int) -> list[dict[str, str]]:
    names = sorted(WORDS)
    return [{"text": f"{WORDS[names[n % 2]]} {split} {n}", "label": names[n % 2]} for n in range(count)]


def test_students_are_compared_priced_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One teacher is a floor, one a model that the strategy names; a student that lacks rows is left out."""
    for split, count in (("train", 20), ("validation", 10), ("test", 24), ("more", 30)):
        lines = "\n".join(json.dumps(row) for row in _rows(split, count))
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
    tiny_decoder(tmp_path / "model")
    named = parse(f'distil(teacher_model="{tmp_path / "model"}", human=mixed, rows=6)').name
    strategies = ("linear", "distil(teacher=linear)", named, "distil(teacher_from=none/there)")
    found = compare(tmp_path / "task.yaml", strategies=strategies, seeds=1, out=tmp_path / "study")
    planned = read_study(tmp_path / "study").plan
    assert [one.strategy for one in planned.skipped] == ["distil(teacher_from=none/there)"]
    assert "neither a saved predictor nor labels" in planned.skipped[0].reason
    labels = {spec.strategy: spec.labels for spec in planned.trials}
    assert labels == {"linear": 30, "distil(teacher=linear)": 30, named: 30}
    rows = {row.strategy: row for row in found.table}
    assert rows["distil(teacher=linear)"].value == 1.0
    for spec in planned.trials:
        folder = trial_folder(tmp_path / "study", spec.id)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        cost = TrialCost.from_json(result["cost"])
        predictor = load_predictor(folder / "predictor")
        assert predictor.strategy == spec.strategy
        if spec.strategy == named:
            assert cost.fit_flops is not None
            assert cost.fit_flops > 0
            assert cost.fit_work.prompt_tokens == 0
