"""Forecast against fact: kept, read, and made into factors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from taskfit.costs.calibration import Calibration, calibrated, load_calibration, save_calibration, told_with
from taskfit.costs.forecast_log import Told, log_file, note_trial, read_trials
from taskfit.errors import ConfigError

HERE = "a processor, 2 cores"
VALUES = {
    "machine": HERE,
    "strategy": "full",
    "model": "m",
    "kind": "all",
    "told_fit_s": 10.0,
    "told_predict_s": 2.0,
    "told_bytes": 1e9,
    "fit_s": 20.0,
    "predict_s": 4.0,
    "peak_bytes": 1.5e9,
    "told_with": 0.0,
}


def trial(**changes: object) -> Told:
    return Told(**(VALUES | {"at": 100.0} | changes))  # type: ignore[arg-type]


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    """In order, with the time at which it ended; the file is the user's cache's unless one is named."""
    path = tmp_path / "kept" / "trials.jsonl"
    assert read_trials(path) == ([], 0)
    assert note_trial(VALUES, path)
    assert note_trial(VALUES | {"strategy": "lora"}, path)
    found, unreadable = read_trials(path)
    assert ([one.strategy for one in found], unreadable) == (["full", "lora"], 0)
    assert found[0].at <= found[1].at
    assert found[0].time_error == pytest.approx(-0.5)
    assert found[0].memory_error == pytest.approx(-1 / 3)
    assert log_file().parent.name == "taskfit"


def test_a_trial_does_not_fail_for_want_of_a_log(tmp_path: Path) -> None:
    """Neither where there is no folder, nor for a record with a field missing."""
    (tmp_path / "file").write_text("")
    assert not note_trial(VALUES, tmp_path / "file" / "trials.jsonl")
    assert not note_trial({"strategy": "full"}, tmp_path / "trials.jsonl")


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    """Half a line, another format, a figure that is none or impossible."""
    path = tmp_path / "trials.jsonl"
    note_trial(VALUES, path)
    good = json.loads(path.read_text())
    bad = ["{half", "7", json.dumps(good | {"format": 1}), json.dumps(good | {"fit_s": "x"})]
    bad += [json.dumps(good | {"fit_s": -1.0}), json.dumps(good | {"peak_bytes": 0}), json.dumps(good | {"more": 1})]
    path.write_text("\n".join([*bad, json.dumps(good), ""]), encoding="utf-8")
    found, unreadable = read_trials(path)
    assert (len(found), unreadable) == (1, len(bad))


@given(some.floats(0.2, 5.0), some.integers(3, 9))
def test_factors_find_a_constant_error_and_then_stand(factor: float, number: int) -> None:
    """Trials that all take a factor longer than told make it the factor; told with it, nothing changes any more."""
    measured = [trial(fit_s=10.0 * factor, predict_s=2.0 * factor, peak_bytes=1e9 * factor)] * number
    found = calibrated(Calibration(HERE), measured, HERE)
    for kind in (found.fit, found.predict, found.memory):
        assert kind["all"] == pytest.approx(factor)
    later = [
        trial(told_fit_s=10.0 * factor, told_predict_s=2.0 * factor, told_bytes=1e9 * factor, told_with=found.at)
        for _ in range(number)
    ]
    exact = [
        Told(**(vars(one) | {"fit_s": one.told_fit_s, "predict_s": one.told_predict_s, "peak_bytes": one.told_bytes}))
        for one in later
    ]
    again = calibrated(found, [*measured, *exact], HERE)
    assert again.fit == pytest.approx(found.fit)


def test_trials_told_before_the_factors_do_not_change_them_again() -> None:
    """A study planned before and ended after would be corrected twice for the same error."""
    found = calibrated(Calibration(HERE), [trial()] * 3, HERE)
    late = [trial(at=found.at + 60)] * 9
    assert calibrated(found, late, HERE) == found and told_with(found, late) == []
    assert calibrated(found, [*late, *[trial(told_with=found.at)] * 3], HERE).fit["all"] == 4.0


def test_trials_count_until_they_are_enough() -> None:
    """Asking after each trial must not make every trial one of too few."""
    first = calibrated(Calibration(HERE), [trial()], HERE)
    assert calibrated(first, [trial()] * 3, HERE).fit["all"] == 2.0


def test_few_other_short_and_wild_trials_change_nothing_much() -> None:
    """Two are too few; another machine's and short phases do not count; no factor leaves a tenth to ten."""
    assert calibrated(Calibration(HERE), [trial()] * 2, HERE).fit == {}
    assert calibrated(Calibration(HERE), [trial(machine="another")] * 5, HERE).fit == {}
    short = calibrated(Calibration(HERE), [trial(fit_s=0.01)] * 5, HERE)
    assert (short.fit, short.predict["all"]) == ({}, 2.0)
    assert calibrated(Calibration(HERE), [trial(fit_s=1e6)] * 5, HERE).fit["all"] == 10.0
    assert calibrated(Calibration("another", {"all": 3.0}), [trial()] * 5, HERE).fit["all"] == 2.0


def test_factors_are_kept_and_checked(tmp_path: Path) -> None:
    """As they were; another machine has none; a damaged file is named with what to do."""
    path = tmp_path / "kept" / "calibration.json"
    assert load_calibration(HERE, path) == Calibration(HERE)
    found = Calibration(HERE, {"all": 2.0}, {}, {"adapter": 0.5}, 7.0)
    save_calibration(found, path)
    assert load_calibration(HERE, path) == found
    assert load_calibration("another", path) == Calibration("another")
    for text in ("{", "[]", '{"format": 2}', json.dumps({"format": 1, "machine": HERE, "fit": {"all": 99}})):
        path.write_text(text)
        with pytest.raises(ConfigError, match="cannot read") as error:
            load_calibration(HERE, path)
        assert "doctor --costs" in str(error.value.hint)
