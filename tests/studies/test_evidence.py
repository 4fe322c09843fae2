"""What stands in ``result.json``: pairs, costs, curves, leaks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from taskfit.errors import ConfigError, StudyError
from taskfit.studies.compare_study import run_study
from taskfit.studies.evidence import MARGIN, evidence_of
from taskfit.studies.leaked_rows import read_leaked_rows
from taskfit.studies.learning_curve import CurvePoint, fit_curve, overtakes_at
from taskfit.studies.spec import StudyConfig
from taskfit.studies.volumes import VOLUMES
from taskfit.tasks.task import Row
from tests.studies.fakes import FAKES, load_task, write_task


def test_the_result_file_holds_every_finding(finished_study):
    """One entry a candidate, a pair for each but the best, a total for each volume; equal on every reading."""
    values = json.loads((finished_study.folder / "result.json").read_text())
    comparison = finished_study.comparison
    assert values["format"] == 2 and values["chosen"] == finished_study.recommendation.chosen.label
    assert [row["label"] for row in values["candidates"]] == [c.label for c in comparison.candidates]
    assert [pair["label"] for pair in values["pairs"]] == [c.label for c in comparison.candidates[1:]]
    for pair, candidate in zip(values["pairs"], comparison.candidates[1:], strict=True):
        assert pair["equivalence"]["margin"] == MARGIN
        assert pair["equivalence"]["difference"] == pytest.approx(candidate.versus_best.difference)
        right = [sum(a == g[0] for a, g in zip(c.runs[0].answers, c.runs[0].golds, strict=True))
                 for c in (candidate, comparison.candidates[0])]  # fmt: skip
        assert pair["mcnemar"]["only_a_right"] - pair["mcnemar"]["only_b_right"] == right[0] - right[1]
    for cost, candidate in zip(values["costs"], comparison.candidates, strict=True):
        assert cost["totals"] == [candidate.cost.total_usd(volume) for volume in VOLUMES]
    assert values["without_leaks"] == {} and values["leaks"]["dirty"] == []


def test_the_same_answers_everywhere_are_said_to_be_the_same(finished_study):
    """No row tells the two apart; being alike within a point follows only where the rows suffice."""
    comparison = finished_study.comparison
    best = comparison.candidates[0]
    twin = replace(best, strategy="twin")
    found = evidence_of(replace(comparison, candidates=(best, twin)))
    (pair,) = found.pairs
    assert pair.is_same and pair.mcnemar.only_a_right == pair.mcnemar.only_b_right == 0
    assert pair.equivalence.difference == 0 and "within 1 point" in pair.equivalence.text


def test_leaked_rows_are_found_and_taken_out(tmp_path):
    """Ten test rows stand in training; figures come with and without them."""
    path = write_task(tmp_path / "task.json", train=30, test=60)
    values = json.loads(path.read_text())
    for number in range(10):
        values["splits"]["test"][number]["text"] = values["splits"]["train"][number]["text"]
    path.write_text(json.dumps(values))
    study = run_study(path, StudyConfig(strategies=("right(0.9)", "right(0.8)"), seeds=1), tmp_path / "s", rooms=FAKES)
    found = evidence_of(study.comparison)
    assert {f"test-{number}" for number in range(10)} <= found.leaks.dirty
    assert "stand in the rows that strategies learn from" in found.leaks.text
    for candidate in study.comparison.candidates:
        clean = found.clean[candidate.label]
        assert clean.dirty_rows == len(found.leaks.dirty) and clean.rows == 60
        assert clean.all_rows.value == pytest.approx(candidate.metrics["accuracy"].value)
    assert any("stand in the rows" in caveat for caveat in study.recommendation.caveats)
    (tmp_path / "s" / "leaks.json").write_text('{"format": 1}')
    with pytest.raises(StudyError, match="is damaged"):
        read_leaked_rows(tmp_path / "s")


def points_of(law, sizes, half=0.01):
    return [CurvePoint(size, law(size), law(size) - half, law(size) + half) for size in sizes]


def test_a_power_law_is_found_again():
    """Figures made by a law: what twice the rows would bring lies in the range, and close to it."""

    def law(rows):
        return 0.9 - 1.2 * rows**-0.5

    curve = fit_curve("a", points_of(law, (32, 128, 512, 2048), 0.005))
    assert curve.doubled.rows == 4096
    assert curve.doubled.low <= law(4096) <= curve.doubled.high
    assert curve.doubled.value == pytest.approx(law(4096), abs=0.003)
    at = overtakes_at(curve, 0.8)
    assert at == pytest.approx(144, rel=0.1)
    assert overtakes_at(curve, 0.99) is None and overtakes_at(curve, -5.0) == 1.0
    assert "4,096 instead of 2,048" in curve.text


def test_a_curve_of_two_sizes_fits_no_law():
    """Three unknowns need three sizes; the points are kept."""
    curve = fit_curve("a", points_of(lambda rows: 0.5, (10, 20)))
    assert curve.doubled is None and "three are needed" in curve.text and overtakes_at(curve, 0.1) is None
    with pytest.raises(ConfigError, match="different sizes"):
        fit_curve("a", points_of(lambda rows: 0.5, (10, 10)))


def test_a_flat_curve_promises_nothing():
    """Where rows bring nothing, twice as many bring nothing."""
    curve = fit_curve("a", points_of(lambda rows: 0.7, (32, 128, 512)))
    assert curve.doubled.value == pytest.approx(0.7, abs=0.005)


def test_a_study_of_several_sizes_has_curves(tmp_path):
    """One for each strategy; the largest size is that of all rows."""
    path = write_task(tmp_path / "task.json", train=40, test=60)
    config = StudyConfig(strategies=("right(0.8)",), seeds=1, train_sizes=(10, 20, None))
    study = run_study(path, config, tmp_path / "s", rooms=FAKES)
    (curve,) = evidence_of(study.comparison).curves
    assert [point.rows for point in curve.points] == [10, 20, 40] and curve.doubled.rows == 80


def test_the_drawn_law_passes_through_what_is_told_of_it():
    """From the smallest size to twice the largest, the value inside its range, and wider beyond the points."""
    curve = fit_curve("a", points_of(lambda rows: 0.9 - 1.2 * rows**-0.5, (32, 128, 512), 0.01))
    sizes = [point.rows for point in curve.fitted]
    assert (sizes[0], sizes[-1]) == (32, 1024) and sizes == sorted(set(sizes))
    assert curve.fitted[-1] == curve.doubled
    assert all(point.low <= point.value <= point.high for point in curve.fitted)
    for rows in (32, 512):
        near = min(curve.fitted, key=lambda point: abs(point.rows - rows))
        assert near.value == pytest.approx(curve.points[[32, 128, 512].index(rows)].value, abs=0.01)
    low = fit_curve("b", points_of(lambda rows: 0.02, (32, 128, 512), 0.2))
    assert min(point.low for point in low.fitted) == 0.0  # no metric falls below its lowest
    widths = [point.high - point.low for point in curve.fitted]
    assert widths[-1] > widths[len(widths) // 2]


def test_choice_rows_leak_with_their_options_alone(tmp_path):
    """One question on every row is no leak; the same options under it are."""
    from taskfit.studies.leaked_rows import write_leaked_rows
    from tests.strategy.small_tasks import small_task

    def row(name: str, *options: str) -> Row:
        return Row(name, {"text": "Which is likelier?", "options": list(options), "label": options[0]})

    train = (row("a", "the candle burns down", "it snows"), row("b", "bread bakes", "bread swims"))
    test = (row("c", "bread swims", "bread bakes"), row("d", "he opens a window", "a goose sings"))
    splits = {"train": train, "validation": (), "test": test}
    write_leaked_rows(tmp_path, replace(small_task("choice"), splits=splits))
    found = read_leaked_rows(tmp_path)
    assert found.counts["same"] == 1
    assert found.dirty == {"c"}


def test_a_long_search_for_leaks_says_how_far_it_is(tmp_path):
    """Every five seconds of a clock that ticks a second a row; short ones say nothing."""
    from taskfit.studies.leaked_rows import write_leaked_rows

    task = load_task(write_task(tmp_path / "task.json", train=17))
    ticks, lines = iter(range(1000)), list[str]()
    write_leaked_rows(tmp_path, task, lines.append, clock=lambda: float(next(ticks)))
    assert [line.split(":")[1].split(",")[0].strip() for line in lines] == [
        "4 of 23",
        "9 of 23",
        "14 of 23",
        "19 of 23",
    ]
    assert lines[0].endswith("24 s left")
    assert read_leaked_rows(tmp_path).texts == 23
    silent: list[str] = []
    write_leaked_rows(tmp_path, task, silent.append)
    assert silent == []
