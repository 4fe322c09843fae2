"""Seeds are spent where the decision is open."""

from __future__ import annotations

from collections import Counter

import pytest

from taskfit.errors import ConfigError
from taskfit.studies.compare_study import open_study
from taskfit.studies.events import CandidateStopped, TrialEnded, TrialFound
from taskfit.studies.plan import plan
from taskfit.studies.recommend import recommend
from taskfit.studies.result import read_result, trial_folder
from taskfit.studies.run import run
from taskfit.studies.spec import Limits, StudyConfig
from taskfit.studies.study_file import open_folder
from tests.studies.fakes import FAKES, load_task, write_task


@pytest.fixture
def start(tmp_path):
    """Plan a study of 200 test rows and run it into a folder; returns plan, folder and events."""
    task = load_task(write_task(tmp_path / "task.json", test=200))

    def start(*strategies, folder="study", **settings):
        planned = plan(task, StudyConfig(strategies=strategies, **settings), rooms=FAKES)
        open_folder(planned, task, tmp_path / folder)
        events: list = []
        run(planned, tmp_path / folder, on_event=events.append, rooms=FAKES)
        return planned, tmp_path / folder, events

    return start


def seeds_of(plan, folder):
    """Count the finished trials of each strategy."""
    specs = (*plan.trials, *plan.extra_trials)
    return Counter(spec.strategy for spec in specs if read_result(folder, spec) is not None)


def test_the_hopeless_get_one_seed_and_the_others_all(start):
    """70 points are more than rows and luck explain; 10 are not. The report says who was stopped, and why."""
    planned, folder, events = start("right(0.95)", "right(0.85)", "right(0.2)", seeds=3, max_seeds=3)
    assert seeds_of(planned, folder) == {"right(0.95)": 3, "right(0.85)": 3, "right(0.2)": 1}
    (stopped,) = [event for event in events if isinstance(event, CandidateStopped)]
    assert stopped.spec.strategy == "right(0.2)" and "stopped after 1 of 3 seeds" in stopped.why
    study = open_study(folder)
    assert study.comparison.missing == 0
    (row,) = [row for row in study.table if row.stopped]
    assert row.label == "right(0.2)" and row.stopped == stopped.why and row.seeds == 1
    assert f"right(0.2) was {stopped.why}." in study.recommendation.caveats
    ends = [event for event in events if isinstance(event, TrialEnded)]
    assert (ends[-1].done, ends[-1].total, ends[-1].left_s) == (7, 7, 0)


def test_all_seeds_can_be_asked_for(start):
    """Then nobody is stopped; and a study that stopped somebody goes on."""
    planned, folder, _ = start("right(0.95)", "right(0.2)", seeds=2, max_seeds=2)
    assert seeds_of(planned, folder) == {"right(0.95)": 2, "right(0.2)": 1}
    planned, folder, events = start("right(0.95)", "right(0.2)", seeds=2, max_seeds=2, runs_all_seeds=True)
    assert seeds_of(planned, folder) == {"right(0.95)": 2, "right(0.2)": 2}
    assert len([event for event in events if isinstance(event, TrialFound)]) == 3
    assert not any(row.stopped for row in open_study(folder).table)


def test_who_is_far_over_a_limit_gets_no_more_seeds(start):
    """It cannot be chosen, however good it is; and when all are over, none gets more."""
    limits = Limits(latency_ms=1e-9)
    planned, folder, events = start("right(0.95)", "right(0.9)", seeds=2, limits=limits)
    assert set(seeds_of(planned, folder).values()) == {1}
    assert all("more than 1.25e-09 ms" in event.why for event in events if isinstance(event, CandidateStopped))
    assert recommend(open_study(folder).comparison).chosen is None


def test_a_strategy_is_judged_by_its_most_training_rows(start):
    """All sizes of one strategy get the same seeds, so that a learning curve has no holes."""
    planned, folder, _ = start("right(0.95)", "right(0.2)", seeds=2, max_seeds=2, train_sizes=(10, None))
    assert seeds_of(planned, folder) == {"right(0.95)": 4, "right(0.2)": 2}


def test_too_few_rows_stop_nobody(start, tmp_path):
    """Nothing is ranked, so nobody is hopeless, and no decision is open."""
    write_task(tmp_path / "task.json", test=5)
    task = load_task(tmp_path / "task.json")
    planned = plan(task, StudyConfig(strategies=("right(0.99)", "right(0.01)"), seeds=2), rooms=FAKES)
    open_folder(planned, task, tmp_path / "few")
    run(planned, tmp_path / "few", rooms=FAKES)
    assert seeds_of(planned, tmp_path / "few") == {"right(0.99)": 2, "right(0.01)": 2}


def test_further_seeds_go_to_the_two_between_whom_the_decision_is_open(start, monkeypatch):
    """One seed more for both, as long as they are not told apart, at most up to ``max_seeds``; nobody else gets any."""
    monkeypatch.setattr("taskfit.studies.schedule.open_pair", lambda plan, candidates, metric: candidates[:2])
    planned, folder, _ = start("right(0.9)", "right(0.8)", "right(0.7)", seeds=2, max_seeds=4)
    assert seeds_of(planned, folder) == {"right(0.9)": 4, "right(0.8)": 4, "right(0.7)": 2}


def test_a_study_cut_short_decides_the_same(start):
    """Trials lost at any step are run again, and the same ones are stopped."""
    names = ("right(0.95)", "right(0.93)", "right(0.2)")
    planned, whole, _ = start(*names, seeds=2)
    expected = seeds_of(planned, whole)
    table = [(row.label, row.value, row.low, row.high, row.seeds) for row in open_study(whole).table]
    for spec in (*planned.trials, *planned.extra_trials):
        path = trial_folder(whole, spec.id) / "predictions.parquet"
        if path.exists():
            path.write_bytes(path.read_bytes()[:-10])
            _, _, events = start(*names, seeds=2)
            assert [event.result.spec.id for event in events if isinstance(event, TrialEnded)] == [spec.id]
    assert seeds_of(planned, whole) == expected
    assert [(row.label, row.value, row.low, row.high, row.seeds) for row in open_study(whole).table] == table


def test_fewer_seeds_at_most_than_at_least_is_refused(start):
    """The two options contradict each other."""
    with pytest.raises(ConfigError, match="max_seeds must be at least seeds, which is 3"):
        start("right(0.9)", seeds=3, max_seeds=2)


def test_most_seeds_are_two_more_unless_one_seed_was_asked_for():
    """Who asks for one seed wants one."""
    assert [StudyConfig(seeds=n).most_seeds for n in (1, 2, 3)] == [1, 4, 5]
    assert StudyConfig(seeds=2, max_seeds=9).most_seeds == 9
