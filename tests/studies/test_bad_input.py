"""What is asked of a study that no study can give, or that its folder has lost."""

from __future__ import annotations

import json
import math

import pytest

from taskfit.errors import ConfigError
from taskfit.studies.compare_study import compare, open_study, run_study
from taskfit.studies.events import TrialFound, TrialStarted
from taskfit.studies.evidence import evidence_of
from taskfit.studies.result import trial_folder
from taskfit.studies.spec import Limits, StudyConfig
from tests.studies.fakes import FAKES, write_task


def study_of(tmp_path, *strategies, test=60, events=None, **settings):
    path = write_task(tmp_path / "task.json", test=test, metrics=("accuracy", "mcc"))
    config = StudyConfig(strategies=strategies, **{"seeds": 1, **settings})
    on_event = (lambda event: None) if events is None else events.append
    return run_study(path, config, tmp_path / "s", on_event=on_event, rooms=FAKES)


def test_five_rows_rank_nothing_and_say_how_many_would(tmp_path):
    """In the plan before anything runs, in the verdict, and in the page; nothing is chosen."""
    study = study_of(tmp_path, "right(0.9)", "right(0.2)", test=5)
    assert study.recommendation.chosen is None
    assert "the test set has 5 rows" in study.recommendation.text and "at least 15" in study.recommendation.text
    assert any("at least 20 are needed" in note for note in study.comparison.study.plan.notes)
    assert {row.verdict for row in study.table} == {"unranked"}
    written = json.loads((tmp_path / "s" / "result.json").read_text())
    assert (written["chosen"], written["pairs"], written["break_evens"]) == (None, [], [])
    assert "Nothing is ranked" in study.report_path.read_text()


def test_identical_predictions_everywhere_are_a_tie_that_the_cheaper_wins(tmp_path):
    """No difference, no winner's correction below the figure, no division by nothing."""
    study = study_of(tmp_path, "right(1)", "right(1.0)")
    first, second = study.table
    assert (first.value, second.value, second.difference, second.p_value) == (1.0, 1.0, 0.0, 1.0)
    assert {first.verdict, second.verdict} == {"recommended", "tied"}
    (pair,) = evidence_of(study.comparison).pairs
    assert pair.is_same and pair.mcnemar.mid_p == 1.0
    assert "same answers everywhere" in study.report_path.read_text()
    assert study.comparison.winner is not None and study.comparison.winner.corrected == 1.0


def test_a_metric_without_a_meaning_on_the_split_is_said_and_ranks_nobody_wrongly(tmp_path):
    """One label right throughout: Matthews correlation is 0 by convention, and the study ends with a choice."""
    path = write_task(tmp_path / "task.json", test=60, metrics=("mcc", "accuracy"))
    values = json.loads(path.read_text())
    values["splits"]["test"] = [{"text": f"other row {i}", "label": "other"} for i in range(60)]
    path.write_text(json.dumps(values))
    config = StudyConfig(strategies=("right(1)", "right(0.5)"), seeds=1)
    study = run_study(path, config, tmp_path / "s", rooms=FAKES)
    assert all(math.isfinite(number) for row in study.table for number in (row.value, row.low, row.high))
    assert study.recommendation.chosen is not None
    assert any("mcc" in caveat.lower() or "label" in caveat for caveat in study.recommendation.caveats)


GROUPED = """
name: grouped
kind: classification
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
input: "{{ text }}"
target: "{{ label }}"
labels: [food, music]
metrics: [accuracy]
groups: who
"""


def test_a_group_of_one_row_is_a_group_like_any_other(tmp_path):
    """Rows of one person are drawn together; somebody with one row neither breaks nor rules the interval."""
    (tmp_path / "task.yaml").write_text(GROUPED)
    words = {"food": "soup bread cheese", "music": "drum violin song"}
    for split, rows in (("train", 24), ("validation", 8), ("test", 41)):
        lines = [
            json.dumps({"text": f"{words[label]} {split} {i}", "label": label, "who": f"{split} {who}"})
            for i in range(rows)
            for label in [sorted(words)[i % 2]]
            for who in ["alone" if i == 40 else str(i % 9)]
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    study = compare(tmp_path / "task.yaml", strategies=("majority", "linear"), seeds=1, out=tmp_path / "s")
    groups = study.comparison.candidates[0].runs[0].groups
    assert groups is not None and sorted(map(list(groups).count, set(groups)))[0] == 1
    (linear,) = (row for row in study.table if row.label == "linear")
    (floor,) = (row for row in study.table if row.label == "majority")
    assert linear.value == 1.0 and floor.low < floor.value < floor.high
    assert study.recommendation.chosen is not None and study.recommendation.chosen.label == "linear"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"volume": 0}, "volume must be at least 1"),
        ({"volume": -5}, "volume must be at least 1"),
        ({"limits": Limits(usd=0.0)}, "limits.usd must be above 0"),
        ({"limits": Limits(usd=math.nan)}, "limits.usd must be above 0"),
        ({"limits": Limits(labels=8), "train_sizes": (16,)}, "contradict each other"),
        ({"limits": Limits(forgetting=0.1), "retain": ("none",)}, "contradict each other"),
        ({"seeds": 3, "max_seeds": 2}, "max_seeds must be at least seeds"),
    ],
)
def test_volumes_of_nothing_and_limits_against_each_other_are_refused(tmp_path, settings, said):
    """Before anything is written."""
    with pytest.raises(ConfigError, match=said):
        study_of(tmp_path, "right(0.9)", **settings)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["result.json", "predictions.parquet"])
@pytest.mark.parametrize("kept", [0, 40])
def test_a_trial_whose_file_was_cut_short_runs_again_and_nothing_else_is_touched(tmp_path, name, kept):
    """All other files of the trials keep their bytes and their times; the study ends as before."""
    study = study_of(tmp_path, "right(0.9)", "right(0.5)", "right(0.7)")
    specs = study.comparison.study.plan.trials
    cut = trial_folder(tmp_path / "s", specs[1].id) / name
    cut.write_bytes(cut.read_bytes()[:kept])
    others = [path for spec in (specs[0], specs[2]) for path in trial_folder(tmp_path / "s", spec.id).rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in others}
    events: list = []
    again = study_of(tmp_path, "right(0.9)", "right(0.5)", "right(0.7)", events=events)
    assert [event.spec.id for event in events if isinstance(event, TrialStarted)] == [specs[1].id]
    assert len([event for event in events if isinstance(event, TrialFound)]) == 2
    assert {path: path.stat().st_mtime_ns for path in others} == before
    assert [(row.label, row.value) for row in again.table] == [(row.label, row.value) for row in study.table]
    assert open_study(tmp_path / "s").comparison.missing == 0
