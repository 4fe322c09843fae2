"""A cap on a whole study: planned to fit, kept over kills, never passed, and gone on from with a larger one."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, SpendingError, StudyError
from taskfit.inference.http_wire import Usage
from taskfit.studies.budget import StudyBudget, read_budget
from taskfit.studies.compare_study import open_study, run_study
from taskfit.studies.events import StudySaid, TrialFound, TrialLeftOut, TrialSaid, TrialStarted
from taskfit.studies.left_out import LEFT_OUT_FILE, cheapest_first, planned_to_fit, read_left_out
from taskfit.studies.result import read_result, work_folder
from taskfit.studies.spec import StudyConfig, TrialSpec
from taskfit.studies.spent import SPENT_FILE, Purse, Spent, StudySpending, read_spent
from tests.studies.fakes import FAKES, write_task
from tests.studies.test_run import make_plan, run_all


@pytest.fixture
def task_path(tmp_path):
    return write_task(tmp_path / "task.json")


def capped(task_path, names, budget, told=(), seeds=1):
    """A plan under a budget, in which some strategies are told to take so many seconds."""
    plan = make_plan(task_path, names, seeds=seeds, budget=budget)
    forecasts = dict(told)
    trials = tuple(replace(spec, forecast_s=forecasts.get(spec.strategy, 0.1)) for spec in plan.trials)
    return replace(plan, trials=trials)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", StudyBudget(seconds=90)),
        (" 30 m ", StudyBudget(seconds=1800)),
        ("1.5h", StudyBudget(seconds=5400)),
        ("5usd", StudyBudget(usd=5)),
        ("0.25 USD", StudyBudget(usd=0.25)),
    ],
)
def test_budgets_are_read_with_their_unit(text, expected):
    """Seconds, minutes, hours, and the currency of the price table."""
    assert read_budget(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0m", "above 0"),
        ("0.0usd", "above 0"),
        ("-5m", "s, m, h or usd"),
        ("30", "s, m, h or usd"),
        ("30d", "s, m, h or usd"),
        ("m", "s, m, h or usd"),
        ("5eur", "US dollars alone"),
        ("nanusd", "s, m, h or usd"),
        ("1e3s", "s, m, h or usd"),
        ("٣٠m", "s, m, h or usd"),
        ("", "s, m, h or usd"),
    ],
)
def test_other_budgets_are_refused(text, said):
    """Nothing, less than nothing, no unit, an unknown one, and money that nobody can convert."""
    with pytest.raises(ConfigError, match=said):
        read_budget(text)


@pytest.mark.parametrize(
    "budget", [StudyBudget(), StudyBudget(1, 1), StudyBudget(0), StudyBudget(usd=math.inf), StudyBudget(math.nan)]
)
def test_a_budget_of_nothing_of_both_or_without_end_is_a_fault_of_the_plan(tmp_path, budget):
    """From Python, too; nothing is written."""
    config = StudyConfig(strategies=("right(0.9)",), budget=budget)
    with pytest.raises(ConfigError, match="budget must be an amount"):
        run_study(write_task(tmp_path / "task.json"), config, tmp_path / "s", rooms=FAKES)
    assert not (tmp_path / "s").exists()


def test_a_search_longer_than_the_whole_budget_contradicts_it(tmp_path):
    """``--tuning-budget 60m --budget 30m`` is refused before anything runs."""
    from taskfit.strategy.grammar import parse

    rooms = replace(FAKES, parse=parse)
    config = StudyConfig(strategies=("tune(strategy=linear, seconds=3600)",), budget=read_budget("30m"))
    with pytest.raises(ConfigError, match="contradict each other"):
        run_study(write_task(tmp_path / "task.json"), config, tmp_path / "s", rooms=rooms)


SPECS = st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.floats(0, 1e4))), max_size=12)


@given(SPECS, st.floats(0, 2e4), st.floats(1, 3))
@settings(max_examples=200, deadline=None)
def test_what_is_planned_fits_and_first_seeds_come_first(drawn, left, more):
    """The sum is within what is left; no second seed comes before a first; a larger budget keeps every first seed."""
    specs = [TrialSpec(str(i), f"s{i}", None, None, seed, None) for i, (seed, _) in enumerate(drawn)]
    costs = {str(i): cost for i, (_, cost) in enumerate(drawn)}
    ordered = cheapest_first(specs, costs)
    fitting, rest = planned_to_fit(ordered, costs, left)
    assert sorted([*fitting, *rest], key=ordered.index) == ordered
    assert sum(costs[spec.id] or 0.0 for spec in fitting) <= left * (1 + 1e-12)
    assert [spec.seed for spec in ordered] == sorted(spec.seed for spec in ordered)
    by_seed = [[costs[s.id] for s in ordered if s.seed == seed and costs[s.id] is not None] for seed in range(4)]
    assert all(known == sorted(known) for known in by_seed)
    wider, _ = planned_to_fit(ordered, costs, left * more)
    assert {s.id for s in fitting if s.seed == 0} <= {s.id for s in wider}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(1, 300))
@settings(max_examples=20, deadline=None)
def test_the_count_of_seconds_adds_up_over_runs(tmp_path_factory, steps, cap):
    """Each step is its own run of the study; what is left is the cap less their sum, to rounding."""
    folder, now = tmp_path_factory.mktemp("purse"), [0.0]
    for step in steps:
        purse = Purse(folder, StudyBudget(seconds=cap), 1.0, clock=lambda: now[0])
        now[0] += 500.0
        purse.count(is_working=False)
        now[0] += step
        purse.count(is_working=True)
        assert purse.left_s() == pytest.approx(cap - read_spent(folder).wall_s)
        purse.close()
        now[0] += 1000.0  # between runs nothing is counted, and none while nothing works
    assert read_spent(folder).wall_s == pytest.approx(sum(steps))


def test_money_counts_the_machine_and_its_services_together(tmp_path):
    """3600 USD an hour is a dollar a second; a call that was entered leaves less of them."""
    now = [0.0]
    purse = Purse(tmp_path, StudyBudget(usd=10.0), 3600.0, clock=lambda: now[0])
    now[0] = 4.0
    purse.count(is_working=True)
    assert purse.left_s() == pytest.approx(6.0)
    spending = StudySpending(tmp_path, 1e6, 0.0, None, None, budget_usd=10.0, usd_per_hour=3600.0)
    spending.reserve(Usage(prompt=5))
    assert purse.left_s() == pytest.approx(1.0)
    with pytest.raises(SpendingError, match="the study's budget of"):
        spending.reserve(Usage(prompt=2))
    spending.settle(Usage(prompt=5), Usage(prompt=2))
    assert purse.left_s() == pytest.approx(4.0)
    assert purse.why_not(3.9, 0.0) == ""
    assert "needs about $4.90" in purse.why_not(3.9, 1.0)
    assert (spending.usd, read_spent(tmp_path)) == (2.0, Spent(4.0, 2.0))
    purse.close()


def test_a_free_machine_is_ended_by_its_services_alone(tmp_path):
    """Seconds cost nothing, so none is too many until the services have taken everything."""
    purse = Purse(tmp_path, StudyBudget(usd=1.0), 0.0)
    assert purse.left_s() == math.inf
    spending = StudySpending(tmp_path, 1e6, 0.0, None, None, budget_usd=1.0, usd_per_hour=0.0)
    spending.reserve(Usage(prompt=1))
    assert (purse.left_s(), purse.why_not(None)) == (0.0, "nothing of the budget was left")
    purse.close()


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(0, 40)), max_size=30))
@settings(max_examples=20, deadline=None)
def test_calls_of_two_trials_never_pass_the_budget(tmp_path_factory, calls):
    """Whatever is asked in whatever order, and however little is billed of what was promised."""
    folder = tmp_path_factory.mktemp("two")
    trials = [StudySpending(folder, 1e6, 0.0, 60.0, None, budget_usd=100.0, usd_per_hour=0.0) for _ in range(2)]
    for who, most, billed in calls:
        try:
            trials[who].reserve(Usage(prompt=most))
        except SpendingError:
            continue
        assert read_spent(folder).usd_services <= 100
        trials[who].settle(Usage(prompt=most), Usage(prompt=min(most, billed)))
    assert read_spent(folder).usd_services == pytest.approx(sum(one.usd for one in trials))
    assert all(one.usd <= 60 for one in trials)


def test_a_damaged_count_is_named(tmp_path):
    """The file is not taken for an empty one."""
    (tmp_path / SPENT_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StudyError, match="counts what the study has spent, is damaged"):
        read_spent(tmp_path)


def test_what_is_told_to_take_too_long_is_left_out_and_a_larger_budget_goes_on(task_path, tmp_path):
    """First seeds first; the long one is not started; with more it runs alone, and nothing runs twice."""
    names, folder = ["right(0.9)", "right(0.6)", "right(0.8)"], tmp_path / "s"
    told = {"right(0.6)": 1e4}
    events: list = []
    small = capped(task_path, names, StudyBudget(seconds=900), told, seeds=2)
    results = run_all(small, folder, events)
    started = [event.spec for event in events if isinstance(event, TrialStarted)]
    assert [spec.seed for spec in started] == [0, 0, 1, 1]
    assert {spec.strategy for spec in started} == {"right(0.9)", "right(0.8)"}
    (left,) = [event for event in events if isinstance(event, TrialLeftOut)]
    assert (left.spec.strategy, left.spec.seed) == ("right(0.6)", 0)
    assert left.why.startswith("needs about 2 h 46 min")
    assert set(read_left_out(folder)) == {left.spec.id} and len(results) == 4
    events.clear()
    large = capped(task_path, names, StudyBudget(seconds=1e6), told, seeds=2)
    assert len(run_all(large, folder, events)) == 6
    assert [e.spec.strategy for e in events if isinstance(e, TrialStarted)] == ["right(0.6)"] * 2
    assert len([event for event in events if isinstance(event, TrialFound)]) == 4
    assert read_left_out(folder) == {}


def test_what_runs_when_the_budget_is_spent_is_stopped_and_goes_on_from_its_checkpoint(task_path, tmp_path):
    """Its forecast was wrong; the count stays, so the same budget starts nothing; a larger one goes on."""
    names, folder = ["right(0.9)", "sleep(4)"], tmp_path / "s"
    small = capped(task_path, names, StudyBudget(seconds=2.5))
    events: list = []
    assert [r.spec.strategy for r in run_all(small, folder, events)] == ["right(0.9)"]
    (left,) = [event for event in events if isinstance(event, TrialLeftOut)]
    assert "when the budget was spent" in left.why
    assert (work_folder(folder, left.spec.id) / "scratch").is_dir()
    assert read_spent(folder).wall_s >= 2.5
    events.clear()
    run_all(small, folder, events)
    assert [e.why for e in events if isinstance(e, TrialLeftOut)] == ["nothing of the budget was left"]
    events.clear()
    assert len(run_all(capped(task_path, names, StudyBudget(seconds=600)), folder, events)) == 2
    said = [event.line for event in events if isinstance(event, TrialSaid)]
    assert "starting at step 0" not in said and any(line.startswith("starting at step") for line in said)


def test_command_result_and_report_say_what_was_left_out(tmp_path):
    """From the plan to the page: lines before anything runs, a caveat, ``result.json``, and the report."""
    path = write_task(tmp_path / "task.json", test=60)
    config = StudyConfig(strategies=("right(0.9)", "right(0.8)", "sleep(60)"), seeds=1, budget=StudyBudget(seconds=5))
    events: list = []
    study = run_study(path, config, tmp_path / "s", on_event=events.append, rooms=FAKES)
    (planned,) = [event.line for event in events if isinstance(event, StudySaid)]
    assert planned.startswith("budget of 5 s: 3 of 3 trials to run are expected to fit")
    (line,) = study.comparison.left_out
    assert line.startswith("sleep(60): not run at all (stopped after")
    assert any(line in caveat and "budget of 5 s left out" in caveat for caveat in study.recommendation.caveats)
    written = json.loads((tmp_path / "s" / "result.json").read_text())
    assert written["left_out"] == [line] and written["budget"] == {"seconds": 5, "usd": None}
    assert written["spent"]["wall_s"] >= 5
    for name in ("report.html", "report.md"):
        text = (tmp_path / "s" / name).read_text()
        assert "sleep(60): not run at all" in text and "5 s for all trials" in text
    assert written["missing_trials"] == 0
    assert open_study(tmp_path / "s").comparison.left_out == study.comparison.left_out


def test_a_budget_below_the_cheapest_trial_is_refused_before_anything_is_written(tmp_path):
    """What is needed is said."""
    config = StudyConfig(strategies=("right(0.9)",), seeds=1, budget=StudyBudget(usd=1e-9))
    with pytest.raises(ConfigError, match=r"less than any trial is expected to take: the cheapest, right\(0.9\)"):
        run_study(write_task(tmp_path / "task.json"), config, tmp_path / "s", rooms=FAKES)
    assert not (tmp_path / "s").exists()


def test_a_damaged_record_of_what_was_left_out_is_named(tmp_path):
    """And nothing is taken for having been run."""
    (tmp_path / LEFT_OUT_FILE).write_text('{"format": 1, "left_out": 3}')
    with pytest.raises(StudyError, match="damaged"):
        read_left_out(tmp_path)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.studies.fakes import FAKES
from tests.studies.test_budget import capped
from taskfit.studies.budget import StudyBudget
from taskfit.studies.run import run
names, told = ["right(0.7)", "sleep(60)", "right(0.8)"], {"sleep(60)": 1.0}
plan = capped(Path(sys.argv[1]), names, StudyBudget(seconds=600), told)
run(plan, Path(sys.argv[2]), rooms=FAKES)
"""


def test_kills_give_no_second_budget(task_path, tmp_path):
    """SIGKILL to the whole study, twice: the seconds before count, so four more than they end the last run."""
    folder, root, counted = tmp_path / "s", Path(__file__).parents[2], [0.0]
    for _ in range(2):
        study = subprocess.Popen([sys.executable, "-c", SCRIPT, str(task_path), str(folder)], cwd=root)
        deadline = time.monotonic() + 60
        while study.poll() is None and time.monotonic() < deadline and _wall_s(folder) < counted[-1] + 0.6:
            time.sleep(0.05)
        study.send_signal(signal.SIGKILL)
        study.wait()
        counted.append(_wall_s(folder))
    assert counted == sorted(counted)
    assert counted[-1] >= 0.9
    cap, events = counted[-1] + 4, list[object]()
    plan = capped(task_path, ["right(0.7)", "sleep(60)", "right(0.8)"], StudyBudget(seconds=cap), {"sleep(60)": 1.0})
    results = run_all(plan, folder, events)
    assert [r.spec.strategy for r in results] == ["right(0.7)", "right(0.8)"]
    assert [e.spec.strategy for e in events if isinstance(e, TrialLeftOut)] == ["sleep(60)"]
    assert read_spent(folder).wall_s >= cap
    assert all(read_result(folder, result.spec) == result for result in results)


def _wall_s(folder: Path) -> float:
    return read_spent(folder).wall_s if (folder / SPENT_FILE).exists() else 0.0
