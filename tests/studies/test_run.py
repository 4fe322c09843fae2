"""Trials in their own processes: what one of them does costs no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from taskfit.errors import StudyError
from taskfit.studies.events import TrialEnded, TrialFound, TrialSaid, TrialStarted
from taskfit.studies.folder import locked
from taskfit.studies.result import read_result, read_trial_predictions, trial_folder, work_folder
from taskfit.studies.run import must_run, run
from taskfit.studies.spec import Plan, Price, StudyConfig, TrialSpec, trial_id
from tests.studies.fakes import FAKES, load_task, parse, take_train, write_task


def make_plan(task_path: Path, strategies, seeds=1, **settings) -> Plan:
    task = load_task(task_path)
    trials = tuple(
        TrialSpec(trial_id(task.fingerprint, name, None, None, seed, None), name, None, None, seed, None)
        for seed in range(seeds)
        for name in strategies
    )
    config = StudyConfig(strategies=tuple(strategies), seeds=seeds, **settings)
    return Plan(
        task_path,
        task.fingerprint,
        task.definition.to_json(),
        {},
        config,
        (),
        trials,
        (),
        Price("m", 0.1, "2026-01-01"),
    )


@pytest.fixture
def task_path(tmp_path):
    return write_task(tmp_path / "task.json")


def run_all(plan, folder, events=None):
    return run(plan, folder, on_event=(lambda e: None) if events is None else events.append, rooms=FAKES)


def test_failures_of_every_kind_cost_one_trial_each(task_path, tmp_path):
    """A bug, a user's error, a segfault, a kill and an early exit are told apart; the good trials finish."""
    names = ["right(0.9)", "bug", "ours", "crash", "kill", "exit", "right(0.6)"]
    results = run_all(make_plan(task_path, names), tmp_path / "s")
    assert [(r.status, r.reason) for r in results] == [
        ("done", ""),
        ("failed", "ZeroDivisionError"),
        ("failed", "TrainingError"),
        ("failed", "SIGSEGV"),
        ("killed", "SIGKILL"),
        ("failed", "exit"),
        ("done", ""),
    ]
    assert (results[2].message, results[2].hint) == ("the loss is not finite at step 3", "lower learning_rate")
    log = (trial_folder(tmp_path / "s", results[1].spec.id) / "log.txt").read_text()
    assert "Traceback" in log and "_raise_bug" in log
    assert "Segmentation fault" in (trial_folder(tmp_path / "s", results[3].spec.id) / "log.txt").read_text()


def test_trial_folder_holds_result_predictions_log_and_predictor(task_path, tmp_path):
    """What a finished trial leaves behind, and nothing in the scratch folder."""
    plan = make_plan(task_path, ["right(0.9)"])
    (result,) = run_all(plan, tmp_path / "s")
    folder = trial_folder(tmp_path / "s", result.spec.id)
    assert {path.name for path in folder.iterdir()} == {"log.txt", "predictions.parquet", "predictor", "result.json"}
    assert "fitting with 30 rows" in (folder / "log.txt").read_text()
    rows = read_trial_predictions(tmp_path / "s", result.spec.id)
    assert [row.row_id for row in rows] == [f"test-{i}" for i in range(24)]
    right = sum(row.answer == row.gold[0] for row in rows) / 24
    assert result.metrics == {"accuracy": pytest.approx(right)}
    assert rows[0].probabilities[rows[0].answer] == rows[0].probability == 0.8
    assert result.counts["tokens_in"] == 24 * 7
    assert not work_folder(tmp_path / "s", result.spec.id).exists()


def test_second_run_starts_no_finished_trial(task_path, tmp_path):
    """Finished and failed trials are found; a failed one runs again only when asked to."""
    plan = make_plan(task_path, ["right(0.9)", "bug"])
    first = run_all(plan, tmp_path / "s")
    events: list = []
    assert run_all(plan, tmp_path / "s", events) == first
    assert [type(event) for event in events] == [TrialFound, TrialFound]
    again = make_plan(task_path, ["right(0.9)", "bug"], is_retrying_failed=True)
    events.clear()
    run_all(again, tmp_path / "s", events)
    assert [event.spec.strategy for event in events if isinstance(event, TrialStarted)] == ["bug"]


def test_killed_trial_runs_again_and_goes_on(task_path, tmp_path):
    """What was killed from outside is tried again by the next run, with its scratch folder still there."""
    plan = make_plan(task_path, ["kill-once"])
    assert run_all(plan, tmp_path / "s")[0].status == "killed"
    assert run_all(plan, tmp_path / "s")[0].status == "done"


def test_timed_out_trial_says_so_and_a_longer_limit_goes_on(task_path, tmp_path):
    """The limit stops a trial; raising it lets the trial go on from its checkpoint."""
    folder = tmp_path / "s"
    plan = make_plan(task_path, ["sleep(4)", "right(0.9)"], timeout_s=0.8)
    results = run_all(plan, folder)
    assert [r.status for r in results] == ["timed-out", "done"]
    assert "the limit is 0.8 s" in results[0].message
    assert [r.status for r in run_all(plan, folder)] == ["timed-out", "done"]  # the same limit: not again
    events: list = []
    longer = make_plan(task_path, ["sleep(4)", "right(0.9)"], timeout_s=20)
    assert [r.status for r in run_all(longer, folder, events)] == ["done", "done"]
    said = [event.line for event in events if isinstance(event, TrialSaid)]
    assert "starting at step 0" not in said and any(line.startswith("starting at step") for line in said)


def test_events_count_up_and_say_what_is_left(task_path, tmp_path):
    """Starts and ends alternate with one worker; time left is known once all that remains has run before."""
    events: list = []
    run_all(make_plan(task_path, ["right(0.9)"], seeds=3), tmp_path / "s", events)
    ends = [event for event in events if isinstance(event, TrialEnded)]
    assert [event.done for event in ends] == [1, 2, 3]
    assert ends[0].left_s > 0 and ends[2].left_s == 0
    assert next(event.left_s for event in events if isinstance(event, TrialStarted)) is None


def test_two_jobs_give_the_same_predictions(task_path, tmp_path):
    """How many trials run at a time changes nothing in what they predict."""
    names = ["right(0.9)", "right(0.5)", "crash", "right(0.7)"]
    one = run_all(make_plan(task_path, names, seeds=2), tmp_path / "one")
    two = run_all(make_plan(task_path, names, seeds=2, jobs=2), tmp_path / "two")
    assert [(r.status, r.metrics) for r in one] == [(r.status, r.metrics) for r in two]


def test_damaged_trial_folder_runs_again(task_path, tmp_path):
    """A folder cut short is no result."""
    plan = make_plan(task_path, ["right(0.9)"])
    (result,) = run_all(plan, tmp_path / "s")
    path = trial_folder(tmp_path / "s", result.spec.id) / "predictions.parquet"
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-10]), path.unlink):
        damage()
        assert read_result(tmp_path / "s", result.spec) is None
        (again,) = run_all(plan, tmp_path / "s")
        assert again.metrics == result.metrics
    (path.parent / "result.json").write_text('{"format": 1, "status": ')
    assert read_result(tmp_path / "s", result.spec) is None


def test_data_changed_since_planning_is_refused(task_path, tmp_path):
    """A trial never runs on other rows than those the plan was made for."""
    plan = make_plan(task_path, ["right(0.9)"])
    write_task(task_path, train=29)
    (result,) = run_all(plan, tmp_path / "s")
    assert (result.status, result.reason) == ("failed", "StudyError")
    assert "changed since the study was planned" in result.message


def test_second_process_on_one_folder_is_refused(task_path, tmp_path):
    """The lock belongs to one run at a time, and says who holds it."""
    folder = tmp_path / "s"
    with locked(folder), pytest.raises(StudyError, match=f"process id {os.getpid()}"):
        run_all(make_plan(task_path, ["right(0.9)"]), folder)
    assert run_all(make_plan(task_path, ["right(0.9)"]), folder)[0].is_done


def test_the_lock_of_a_process_that_is_gone_is_waited_for(tmp_path):
    """Killed while it started another process, which holds the lock's file for a moment."""
    script = "\n".join(
        (
            "import os, subprocess, sys; from pathlib import Path; from taskfit.studies.folder import locked",
            "def same(n, path):",
            "    try: return os.path.samestat(os.fstat(n), path.stat())",
            "    except OSError: return False",
            "folder = Path(sys.argv[1])",
            "with locked(folder):",
            "    held = next(n for n in range(3, 100) if same(n, folder / 'study.lock'))",
            "    subprocess.Popen(['sleep', '0.5'], pass_fds=[held])",
            "    os.kill(os.getpid(), 9)",
        )
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    with locked(tmp_path):
        assert time.monotonic() - started > 0.4


def test_interrupt_stops_the_running_trial(task_path, tmp_path):
    """An exception in the caller leaves no process behind, and what is finished stays."""
    plan = make_plan(task_path, ["right(0.9)", "sleep(30)"])

    pids: list[int] = []

    def interrupt(event):
        if isinstance(event, TrialSaid) and event.line.startswith("process"):
            pids.append(int(event.line.split()[1]))
        if isinstance(event, TrialSaid) and "starting at step" in event.line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "s", on_event=interrupt, rooms=FAKES)
    assert read_result(tmp_path / "s", plan.trials[0]).is_done
    assert read_result(tmp_path / "s", plan.trials[1]) is None
    assert len(pids) == 1 and not psutil.pid_exists(pids[0])


SCRIPT = """
import sys
from pathlib import Path
from tests.studies.fakes import FAKES
from tests.studies.test_run import make_plan
from taskfit.studies.run import run
run(make_plan(Path(sys.argv[1]), ["sleep(0.3)", "right(0.7)", "right(0.8)"], seeds=2), Path(sys.argv[2]), rooms=FAKES)
"""


def test_study_killed_at_any_moment_ends_the_same(task_path, tmp_path):
    """SIGKILL to the whole study, four times, at different moments; the last run equals one never interrupted."""
    names = ["sleep(0.3)", "right(0.7)", "right(0.8)"]
    whole = run_all(make_plan(task_path, names, seeds=2), tmp_path / "whole")
    folder = tmp_path / "killed"
    root = Path(__file__).parents[2]
    for wait_s in (0.0, 0.2, 0.45, 0.7):
        study = subprocess.Popen([sys.executable, "-c", SCRIPT, str(task_path), str(folder)], cwd=root)
        deadline = time.monotonic() + 60
        while not (folder / "work").exists() and study.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait_s)
        study.send_signal(signal.SIGKILL)
        study.wait()
    resumed = run_all(make_plan(task_path, names, seeds=2), folder)
    assert [(r.status, r.metrics) for r in resumed] == [(r.status, r.metrics) for r in whole]
    for spec in make_plan(task_path, names, seeds=2).trials:
        assert read_trial_predictions(folder, spec.id) == read_trial_predictions(tmp_path / "whole", spec.id)
    assert not list((folder / "trials").glob(".*"))


def test_trials_die_with_their_study(task_path, tmp_path):
    """No orphan goes on computing when the study's process is gone."""
    root = Path(__file__).parents[2]
    script = SCRIPT.replace("sleep(0.3)", "sleep(300)")
    study = subprocess.Popen([sys.executable, "-c", script, str(task_path), str(tmp_path / "s")], cwd=root)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "s" / "work").glob("*/scratch")) and time.monotonic() < deadline:
        time.sleep(0.02)
    family = psutil.Process(study.pid).children(recursive=True)
    assert len(family) >= 2
    study.send_signal(signal.SIGKILL)
    study.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("done", "", False),
        ("failed", "ZeroDivisionError", False),
        ("failed", "ResourceError", True),
        ("killed", "SIGKILL", True),
        ("timed-out", "TimeOut", False),
    ],
)
def test_only_what_lay_outside_a_trial_is_tried_again(task_path, status, reason, expected):
    """The rule of the second run, status by status."""
    from taskfit.studies.result import TrialResult

    spec = make_plan(task_path, ["right(0.9)"]).trials[0]
    result = TrialResult(spec, status, reason, timeout_s=5.0)
    assert must_run(result, StudyConfig(timeout_s=5.0)) is expected
    assert must_run(result, StudyConfig(timeout_s=5.0, is_retrying_failed=True)) is (status != "done")
    assert must_run(result, StudyConfig(timeout_s=6.0)) is (expected or status == "timed-out")
    assert must_run(None, StudyConfig())


def test_trial_without_a_process_gives_the_same_result(task_path, tmp_path):
    """The function a trial's process runs is an ordinary one; called directly it writes the same predictions."""
    from taskfit.studies.trial import TrialJob, run_trial

    plan = make_plan(task_path, ["right(0.9)"])
    run_all(plan, tmp_path / "process")
    spec = plan.trials[0]
    lines: list[str] = []
    run_trial(TrialJob(tmp_path / "here", spec, task_path, plan.task_fingerprint, 1, rooms=FAKES), lines.append)
    assert read_trial_predictions(tmp_path / "here", spec.id) == read_trial_predictions(tmp_path / "process", spec.id)
    assert lines == ["fitting with 30 rows"]
    assert parse("right(0.9)").fit is not None and take_train(load_task(task_path), 3, 0).train
