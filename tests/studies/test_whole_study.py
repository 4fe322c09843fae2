"""A whole study with the real rooms below: task file, tiny model, prompting, floors, costs, report."""

from __future__ import annotations

import json
import re

import pytest

from taskfit.errors import ConfigError
from taskfit.studies.compare_study import compare
from taskfit.studies.events import StudyPlanned, TrialStarted
from taskfit.studies.result import read_trial_predictions, trial_folder
from taskfit.studies.rooms import load_task
from taskfit.testing import tiny_decoder

WORDS = {"refund": "money back refund please", "login": "cannot sign in password", "praise": "great service thanks"}

TASK = """
name: tiny
kind: classification
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
input: "{{ text }}"
target: "{{ label }}"
labels: [login, praise, refund]
metrics: [accuracy, macro_f1]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Floors and few-shot prompting of a tiny random model on 45 rows."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "task.yaml").write_text(TASK)
    for split, rows in (("train", 24), ("validation", 9), ("test", 30)):
        lines = [
            json.dumps({"text": f"{WORDS[label]} {split} {number}", "label": label})
            for number in range(rows)
            for label in [sorted(WORDS)[number % 3]]
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    model = tiny_decoder(folder / "model")
    events: list = []
    arguments = {
        "strategies": ("majority", "linear", "few-shot(k=2)", "encoder"),
        "models": (str(model),),
        "seeds": 2,
        "max_seeds": 2,
        "runs_all_seeds": True,
        "train_sizes": (12, None),
        "out": folder / "study",
    }
    return folder, arguments, compare(folder / "task.yaml", **arguments, on_event=events.append), events


def test_every_strategy_runs_once_for_each_seed_and_size_that_matter(study):
    """Floors have no chance in them: with all rows they run once; samples of rows differ by seed."""
    _, _, found, events = study
    cells = {(row.strategy, row.train_rows): row.seeds for row in found.table}
    assert cells == {
        ("majority", None): 1,
        ("majority", 12): 2,
        ("linear", None): 1,
        ("linear", 12): 2,
        ("few-shot(k=2)", None): 2,
        ("few-shot(k=2)", 12): 2,
    }
    plan = next(event.plan for event in events if isinstance(event, StudyPlanned))
    assert [s.strategy for s in plan.skipped] == ["encoder"]
    assert all(spec.forecast_s is not None for spec in plan.trials)
    assert not found.comparison.failures


def test_linear_beats_the_floor_and_a_random_model(study):
    """The words give the label away, so the recommendation must be the linear model."""
    _, _, found, _ = study
    assert found.recommendation.chosen.strategy == "linear"
    assert next(row.value for row in found.table if row.strategy == "linear") > 0.9
    assert next(row.value for row in found.table if row.strategy == "majority") == pytest.approx(1 / 3)


def test_costs_are_counted(study):
    """Tokens and operations for the model, none for the floors; memory and bytes for all."""
    _, _, found, _ = study
    for row in found.table:
        has_model = row.strategy.startswith("few-shot")
        assert (row.tokens_in_per_row > 0) == has_model and (row.flops_per_row > 0) == has_model
        assert min(row.fit_memory_bytes, row.predict_memory_bytes) > 10_000_000
        assert row.artefact_bytes > 0 and row.usd_total > 0 and row.latency_ms > 0


def test_saved_predictors_predict_what_was_scored(study):
    """Delivered is what was evaluated: every trial's predictor, loaded again, gives the stored answers."""
    from taskfit.strategy.manifest import read_manifest
    from taskfit.strategy.predictor import load_predictor

    folder, _, found, _ = study
    test = load_task(folder / "task.yaml").test
    for candidate in found.comparison.candidates:
        spec = candidate.results[0].spec
        saved = trial_folder(found.folder, spec.id) / "predictor"
        stored = read_trial_predictions(found.folder, spec.id)
        again = list(load_predictor(saved).predict(test))
        assert [(p.row_id, p.answer) for p in again] == [(p.row_id, p.answer) for p in stored]
        assert read_manifest(saved).cost["rows_predicted"] == 30


def test_prompts_and_the_data_report_stand_in_the_report(study):
    """What was asked, and what reading the data showed."""
    _, _, found, _ = study
    page = found.report_path.read_text()
    assert "few-shot(k=2) on model" in page
    assert "duplicate rows dropped" in page and "train 24, validation 9, test 30" in page
    assert re.search(r"<summary>.{0,200}few-shot\(k=2\)", page, re.S)


def test_second_call_runs_nothing(study):
    """The same call finds all trials and says the same."""
    folder, arguments, found, _ = study
    events: list = []
    again = compare(folder / "task.yaml", **arguments, on_event=events.append)
    assert not [event for event in events if isinstance(event, TrialStarted)]
    assert again.recommendation.text == found.recommendation.text and again.table == found.table


def test_wrong_strategy_writes_nothing(study):
    """A misspelt name is an error with the nearest one, before any folder is made."""
    folder, _, _, _ = study
    with pytest.raises(ConfigError, match="majority"):
        compare(folder / "task.yaml", strategies=("majorty",), out=folder / "other")
    assert not (folder / "other").exists()


def test_another_price_needs_no_trial(study):
    """Costs are told at the price of the day: a dearer machine changes the money and nothing else."""
    folder, arguments, found, _ = study
    table = "date: 2026-01-01\ncurrency: USD\nmachines: {this-machine: {price_usd_per_hour: 100.0}}\n"
    (folder / "prices.yaml").write_text(table)
    events: list = []
    dear = compare(folder / "task.yaml", **arguments, prices=folder / "prices.yaml", on_event=events.append)
    assert not [event for event in events if isinstance(event, TrialStarted)]
    before = {row.label: row for row in found.table}
    factor = 100.0 / found.comparison.study.plan.price.usd_per_hour
    for row in dear.table:
        assert row.usd_total == pytest.approx(factor * before[row.label].usd_total)
        assert (row.value, row.fit_s) == (before[row.label].value, before[row.label].fit_s)
    assert "100 USD an hour (of 2026-01-01)" in dear.report_path.read_text()


def test_costs_on_another_machine_are_forecast_with_the_choice_there(study):
    """Work of the model is told anew, the rest stays as measured; page, Markdown, JSON and command say so."""
    from taskfit.studies.report import read_report, write_report

    _, arguments, found, _ = study
    try:
        path = write_report(arguments["out"], machines=["gpu-l4"])
        assert "On gpu-l4: a forecast" in path.read_text()
        assert "On gpu-l4: a forecast" in path.with_name("report.md").read_text()
    finally:
        write_report(arguments["out"])
    (there,) = read_report(arguments["out"], machines=["gpu-l4"])["elsewhere"]
    assert (there["usd_per_hour"], there["unknown"]) == (0.8, [])
    told, here = {one["label"]: one for one in there["candidates"]}, {row.label: row for row in found.table}
    assert set(told) == set(here)
    assert told["linear"]["basis"] == "no language model: seconds as measured here"
    assert told["linear"]["costs"]["usd_fit"] == pytest.approx(here["linear"].usd_fit * 8)
    assert told["linear"]["fit_s"] == here["linear"].fit_s
    (shots,) = (one for label, one in told.items() if label.startswith("few-shot") and "12 rows" not in label)
    assert shots["basis"] == "forecast from the measured work" and not shots["is_too_large"]
    assert there["choices"][0]["first"] <= 1000 and {choice["label"] for choice in there["choices"]} <= set(told)
    assert read_report(arguments["out"])["elsewhere"] == []


def test_an_unknown_machine_is_refused_and_nothing_is_written(study):
    """With the nearest name; while planning, too."""
    from taskfit.studies.report import write_report

    folder, arguments, found, _ = study
    before = found.report_path.read_bytes()
    for run in (
        lambda: write_report(arguments["out"], machines=["gpu-l5"]),
        lambda: compare(folder / "task.yaml", strategies=("majority",), machines=["gpu-l5"], out=folder / "other"),
    ):
        with pytest.raises(ConfigError, match="did you mean 'gpu-l4'"):
            run()
    assert found.report_path.read_bytes() == before and not (folder / "other").exists()
