"""Trials side by side: as many as memory and cores allow, with the same figures and honest costs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.cli.compare import _jobs
from taskfit.costs.meter import Measured
from taskfit.costs.prices import load_prices, machine
from taskfit.costs.trial_cost import TrialCost, trial_cost
from taskfit.errors import ConfigError
from taskfit.models.work import Work
from taskfit.studies.candidate import mean_cost
from taskfit.studies.events import TrialEnded, TrialStarted
from taskfit.studies.jobs import FEWEST_THREADS, MEMORY_SHARE, has_room, threads_and_jobs, usable_cores
from taskfit.studies.plan import plan
from taskfit.studies.report_run import facts_of
from taskfit.studies.result import read_trial_predictions
from taskfit.studies.spec import StudyConfig, TrialSpec
from taskfit.studies.study_file import open_folder, read_study
from tests.studies.fakes import FAKES, load_task, write_task
from tests.studies.test_run import make_plan, run_all


@pytest.fixture
def task_path(tmp_path):
    return write_task(tmp_path / "task.json")


def side_by_side(task_path, names, jobs, seeds=1, told=1e6):
    """A plan of trials that are told to take so many bytes, several at a time."""
    found = make_plan(task_path, names, seeds=seeds, jobs=jobs)
    trials = tuple(replace(spec, forecast_memory_bytes=round(told)) for spec in found.trials)
    return replace(found, trials=trials, threads=1, jobs=jobs)


def spec(need, name="s"):
    return TrialSpec(name, name, None, None, 0, None, forecast_memory_bytes=need)


NEEDS = st.lists(st.one_of(st.none(), st.integers(1, 10**11)), max_size=10)


@given(NEEDS, st.integers(1, 256), st.integers(10**9, 10**12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_as_many_as_cores_and_memory_allow(needs, cores, memory, has_gpu):
    """Never fewer than one; whatever runs together fits; no core is given twice; on a GPU, and unknown: alone."""
    specs = [spec(need) for need in needs]
    threads, jobs = threads_and_jobs(specs, cores=cores, memory_bytes=memory, has_gpu=has_gpu)
    assert jobs >= 1 and threads >= 1 and threads * jobs <= cores
    assert jobs == 1 or threads >= FEWEST_THREADS
    if has_gpu or None in needs or cores < 2 * FEWEST_THREADS:
        assert jobs == 1 and threads == cores
    known = sorted((need for need in needs if need is not None), reverse=True)
    assert jobs == 1 or sum(known[:jobs]) <= MEMORY_SHARE * memory
    assert threads_and_jobs(specs[::-1], cores=cores, memory_bytes=memory, has_gpu=has_gpu) == (threads, jobs)


def test_a_trial_starts_beside_others_only_where_there_is_room():
    """The first always; then as the sum allows; one that nobody can foresee never beside another."""
    assert has_room(spec(10**12), [], 1e9)
    assert has_room(spec(300), [spec(300)], 1000) and not has_room(spec(500), [spec(300)], 1000)
    assert not has_room(spec(None), [spec(1)], 1000) and not has_room(spec(1), [spec(None)], 1000)


@pytest.mark.parametrize("jobs", [2, 3])
def test_the_order_in_which_trials_end_changes_nothing(task_path, tmp_path, jobs):
    """Slow ones first, side by side: the same trials, figures and order as one after the other."""
    names = ["sleep(0.5)", "right(0.9)", "crash", "sleep(0.1)", "right(0.7)"]
    one = run_all(side_by_side(task_path, names, 1, seeds=2), tmp_path / "one")
    events: list = []
    more = run_all(side_by_side(task_path, names, jobs, seeds=2), tmp_path / "more", events)
    assert [(r.spec, r.status, r.metrics) for r in one] == [(r.spec, r.status, r.metrics) for r in more]
    order = [type(event) for event in events if isinstance(event, TrialStarted | TrialEnded)]
    assert order[:jobs] == [TrialStarted] * jobs
    first = one[1].spec.id
    assert read_trial_predictions(tmp_path / "one", first) == read_trial_predictions(tmp_path / "more", first)


def test_without_memory_for_two_they_run_one_after_the_other(task_path, tmp_path):
    """However many jobs are asked for."""
    events: list = []
    run_all(side_by_side(task_path, ["right(0.9)", "right(0.8)"], 2, told=1e15), tmp_path / "s", events)
    order = [type(event) for event in events if isinstance(event, TrialStarted | TrialEnded)]
    assert order == [TrialStarted, TrialEnded] * 2


def test_costs_of_trials_side_by_side_are_charged_by_processor_time_and_marked(task_path, tmp_path):
    """Seconds on the clock stay as they were; money is the trial's share of the cores."""
    (alone,) = run_all(side_by_side(task_path, ["sleep(0.3)"], 1), tmp_path / "one")
    (beside,) = run_all(side_by_side(task_path, ["sleep(0.3)"], 2), tmp_path / "two")
    first, second = TrialCost.from_json(alone.cost), TrialCost.from_json(beside.cost)
    assert (first.shared_cores, second.shared_cores) == (0, usable_cores())
    assert first.charged_fit_s == first.fit.wall_s >= 0.3
    assert second.charged_fit_s == second.fit.cpu_s / usable_cores() < 0.3 <= second.fit.wall_s
    cost = mean_cost([beside], usd_per_hour=3600.0)
    assert cost.fit_s == second.fit.wall_s
    assert cost.usd_fit == pytest.approx(second.charged_fit_s)
    assert second.usd_fit == pytest.approx(second.charged_fit_s / 3600 * second.price_usd_per_hour)


def test_a_trial_that_keeps_its_share_of_the_cores_busy_costs_the_same_side_by_side():
    """Two trials that halve a machine of four cores pay together what it costs; one alone pays all of it."""
    busy = Measured("fit", wall_s=100.0, cpu_s=200.0, peak_memory_bytes=1, start_memory_bytes=1)
    row = replace(busy, phase="predict")
    price = machine(load_prices())

    def cost(shared: int) -> TrialCost:
        return trial_cost(
            busy,
            row,
            Work(),
            Work(),
            rows_predicted=10,
            artefact_bytes=0,
            architecture=None,
            needs_model=False,
            machine=price,
            shared_cores=shared,
        )

    assert cost(0).usd_fit == pytest.approx(2 * cost(4).usd_fit) == pytest.approx(price.price_usd_per_hour / 36)
    assert cost(4).charged_s_per_row == 5.0
    older = {name: value for name, value in cost(0).to_json().items() if name != "shared_cores"}
    assert TrialCost.from_json(older) == cost(0)


def test_jobs_change_no_threads_and_a_study_keeps_those_it_began_with(tmp_path):
    """Threads hang on plan and machine; a later run on another machine computes as the first did."""
    task = load_task(write_task(tmp_path / "task.json"))

    def planned(jobs):
        return plan(task, StudyConfig(strategies=("right(0.9)",), seeds=1, jobs=jobs), rooms=FAKES)

    assert {planned(jobs).threads for jobs in (None, 1, 2, 7)} == {planned(None).threads}
    assert planned(7).jobs == 7
    begun = open_folder(replace(planned(None), threads=3), task, tmp_path / "s")
    again = open_folder(replace(planned(2), threads=5), task, tmp_path / "s")
    assert (begun.threads, again.threads, again.jobs) == (3, 3, 2)
    assert read_study(tmp_path / "s").plan == again


def test_studies_of_earlier_versions_are_read(tmp_path):
    """They say ``workers`` and no threads: all cores then."""
    task = load_task(write_task(tmp_path / "task.json"))
    open_folder(plan(task, StudyConfig(strategies=("right(0.9)",), seeds=1), rooms=FAKES), task, tmp_path / "s")
    path = tmp_path / "s" / "study.json"
    values = json.loads(path.read_text())
    del values["plan"]["threads"], values["plan"]["jobs"]
    del values["plan"]["config"]["jobs"], values["plan"]["config"]["budget"]
    values["plan"]["config"]["workers"] = 2
    path.write_text(json.dumps(values))
    found = read_study(tmp_path / "s").plan
    assert (found.config.jobs, found.threads, found.jobs, found.config.budget) == (2, 0, 1, None)


def test_the_report_says_how_many_ran_at_a_time(finished_study):
    """And what that means for seconds and money."""
    alone = finished_study.comparison
    assert any(name == "Trials at a time" and text.startswith("1, ") for name, text in facts_of(alone))
    beside = replace(alone, study=replace(alone.study, plan=replace(alone.study.plan, jobs=2, threads=1)))
    assert ("Trials at a time", "2 at most, 1 thread each") in [(n, t.partition(";")[0]) for n, t in facts_of(beside)]


@pytest.mark.parametrize(("word", "expected"), [("auto", None), ("3", 3), (" 12 ", 12)])
def test_jobs_are_a_number_or_auto(word, expected):
    assert _jobs(word) == expected


@pytest.mark.parametrize("word", ["0", "-1", "two", "1.5", "", "²", "9" * 30])
def test_other_jobs_are_refused(word):
    with pytest.raises(ConfigError, match="--jobs takes a whole number above 0"):
        _jobs(word)


SCRIPT = """
import sys
from pathlib import Path
from tests.studies.fakes import FAKES
from tests.studies.test_jobs import side_by_side
from taskfit.studies.run import run
plan = side_by_side(Path(sys.argv[1]), ["sleep(0.4)", "right(0.7)", "sleep(0.6)"], 2, seeds=2)
run(plan, Path(sys.argv[2]), rooms=FAKES)
"""


def test_a_study_side_by_side_killed_twice_ends_as_one_after_the_other(task_path, tmp_path):
    """SIGKILL to the whole study while two trials run."""
    names, folder, root = ["sleep(0.4)", "right(0.7)", "sleep(0.6)"], tmp_path / "killed", Path(__file__).parents[2]
    whole = run_all(side_by_side(task_path, names, 1, seeds=2), tmp_path / "whole")
    for wait_s in (0.1, 0.5):
        study = subprocess.Popen([sys.executable, "-c", SCRIPT, str(task_path), str(folder)], cwd=root)
        deadline = time.monotonic() + 60
        while len(list(folder.glob("work/*/scratch"))) < 1 and study.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait_s)
        study.send_signal(signal.SIGKILL)
        study.wait()
    resumed = run_all(side_by_side(task_path, names, 2, seeds=2), folder)
    assert [(r.status, r.metrics) for r in resumed] == [(r.status, r.metrics) for r in whole]
    for one in resumed:
        assert read_trial_predictions(folder, one.spec.id) == read_trial_predictions(tmp_path / "whole", one.spec.id)
