"""Students in a study: planned, left out with a reason, priced, compared, saved and loaded like everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.costs.trial_cost import TrialCost
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.studies.budget import StudyBudget
from taskfit.studies.compare_study import compare
from taskfit.studies.report import read_report
from taskfit.studies.result import trial_folder
from taskfit.studies.spent import read_spent
from taskfit.studies.study_file import read_study
from taskfit.testing import tiny_decoder
from taskfit.testing.service import FakeService

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


def test_a_cascade_in_a_study_tells_its_report_the_whole_range(tmp_path: Path) -> None:
    """What its thresholds cost and give is measured while it is fitted, and drawn."""
    for split, count in (("train", 20), ("validation", 40), ("test", 24)):
        lines = "\n".join(json.dumps(row) for row in _rows(split, count))
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "task.yaml").write_text(TASK.replace("unlabelled: more.jsonl\n", ""), encoding="utf-8")
    named = "cascade(student=majority, teacher=linear, agreement=0.6)"
    found = compare(tmp_path / "task.yaml", strategies=("linear", named), seeds=1, out=tmp_path / "study")
    points = read_report(found.folder)["cascades"][0]["points"]
    assert (points[0]["teacher"], points[-1]["student"], sum(one["is_chosen"] for one in points)) == (1.0, 1.0, 1)
    assert points[0]["usd"] > points[-1]["usd"] > 0
    assert "Cascades: cost against agreement" in found.report_path.read_text(encoding="utf-8")


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


def test_a_teacher_that_a_strategy_names_is_paid_from_the_budget_of_the_study(tmp_path: Path) -> None:
    """What the service bills for the labels is what the study counts; a budget below it ends the trial, with no label
    above it.
    """
    for split, count in (("train", 20), ("validation", 10), ("test", 24), ("more", 30)):
        lines = "\n".join(json.dumps(row) for row in _rows(split, count))
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")

    def study(service: FakeService, out: str, usd: float) -> float:
        model = service.name(usd_in=1000, usd_out=1000, concurrency=1)
        named = parse(f'distil(teacher=zero-shot, teacher_model="{model}", rows=6)').name
        config = {"strategies": ("majority", named), "seeds": 1, "budget": StudyBudget(usd=usd)}
        compare(tmp_path / "task.yaml", out=tmp_path / out, **config)  # type: ignore[arg-type]
        spent: float = read_spent(tmp_path / out).usd_services
        return spent

    with FakeService(lambda text: "login") as service:
        whole = study(service, "rich", 1000.0)
        assert whole > 0
        asked = service.answered
        assert study(service, "poor", whole / 2) <= whole / 2
        assert service.answered < 2 * asked
