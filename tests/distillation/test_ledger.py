"""The ledger: at most one label a row, every attempt kept, leases that end with their process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from taskfit.distillation.ledger import MOST_TRIES, Ledger, open_ledger
from taskfit.distillation.purse import LedgerSpending
from taskfit.errors import SpendingError, StudyError
from taskfit.inference.http_limits import Spending
from taskfit.inference.http_wire import Usage
from taskfit.strategy.contract import Prediction
from taskfit.tasks.task import Row

IDENTITY = {"task": "one", "teacher": "zero-shot"}
ROWS = [Row(f"r{n}", {"text": f"text {n}"}) for n in range(6)]


def _filled(ledger: Ledger) -> None:
    ledger.fill({"train": ROWS[:4], "audit": ROWS[4:]})


def test_a_row_is_leased_to_one_worker_and_labelled_once(tmp_path: Path) -> None:
    """Two workers share the rows; a label for a row that is not leased is our own mistake."""
    with open_ledger(tmp_path, IDENTITY) as one, open_ledger(tmp_path, IDENTITY) as two:
        _filled(one)
        _filled(two)  # already done: nothing
        first, second = one.lease(4), two.lease(4)
        assert [row.id for row in (*first, *second)] == [row.id for row in ROWS]
        assert one.lease(4) == []
        one.accept(Prediction(row.id, "yes", {"yes": 0.9, "no": 0.1}) for row in first)
        with pytest.raises(AssertionError, match="not leased"):
            one.accept([Prediction(first[0].id, "no")])
        assert one.counts() == {"done": 4, "leased": 2}
        assert [found.row for found in one.labels("train")] == first
        assert next(one.labels("train")).probabilities == {"yes": 0.9, "no": 0.1}


def test_labels_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    """A fault in the middle leaves no half."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        _filled(ledger)
        rows = ledger.lease(2)
        with pytest.raises(AssertionError):
            ledger.accept([Prediction(rows[0].id, "yes"), Prediction("nobody", "yes")])
        assert list(ledger.labels("train")) == []
        assert ledger.counts()["leased"] == 2


def test_halves_of_surrogate_pairs_are_kept_as_escapes(tmp_path: Path) -> None:
    """A service can answer with them, and SQLite cannot hold them; the answer was paid for."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        _filled(ledger)
        first, second = ledger.lease(2)
        ledger.accept([Prediction(first.id, "yes\ud83d", raw="\udc00 yes")])
        ledger.fail(second.id, "no valid answer", "\ud83d", is_final=True)
        (label,) = ledger.labels("train")
        assert (label.answer, label.raw) == ("yes\\ud83d", "\\udc00 yes")
        assert ledger.failures() == [(second.id, "no valid answer", "\\ud83d")]


def test_rows_of_a_dead_worker_are_open_again(tmp_path: Path) -> None:
    """The lock of its file ended with it; the attempt says killed, and does not count against the row."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        _filled(ledger)
        (tmp_path / "workers" / "dead").touch()
        ledger.connection.execute("UPDATE rows SET state = 'leased', worker = 'dead', tries = 1 WHERE position < 3")
        ledger.connection.execute("INSERT INTO attempts (row, worker, started) VALUES (1, 'dead', 0)")
        assert len(ledger.lease(10)) == 6
        assert ledger.attempts() == {"killed": 1, "under way": 6}


def test_what_a_run_did_not_reach_is_given_back(tmp_path: Path) -> None:
    """An error in the middle leaves no lease."""
    with pytest.raises(KeyError), open_ledger(tmp_path, IDENTITY) as ledger:
        _filled(ledger)
        ledger.lease(3)
        raise KeyError
    with open_ledger(tmp_path, IDENTITY) as ledger:
        assert ledger.counts() == {"open": 6}
        assert ledger.attempts() == {"stopped": 3}
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_failure_that_may_pass_is_tried_again_after_the_others_and_not_for_ever(tmp_path: Path) -> None:
    """Three attempts, each kept with its reason."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        ledger.fill({"train": ROWS[:2]})
        ledger.lease(1)
        ledger.fail("r0", "ServiceError", "away", is_final=False)
        assert [row.id for row in ledger.lease(1)] == ["r1"]
        ledger.fail("r1", "no valid answer", "perhaps", is_final=True)
        for _ in range(MOST_TRIES - 1):
            assert [row.id for row in ledger.lease(1)] == ["r0"]
            ledger.fail("r0", "ServiceError", "away", is_final=False)
        assert ledger.lease(1) == []
        assert ledger.failures() == [("r0", "ServiceError", "away"), ("r1", "no valid answer", "perhaps")]
        assert ledger.attempts() == {"ServiceError": 3, "no valid answer": 1}


def test_a_ledger_of_another_task_or_teacher_is_refused_with_each_difference(tmp_path: Path) -> None:
    """Nothing in it changes."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        _filled(ledger)
    with (
        pytest.raises(StudyError, match="task was one, is two; teacher was zero-shot, is few-shot; model was not set"),
        open_ledger(tmp_path, {"task": "two", "teacher": "few-shot", "model": "m"}),
    ):
        pass
    with open_ledger(tmp_path, IDENTITY) as ledger:
        assert ledger.counts() == {"open": 6}


def test_other_files_in_its_place_are_refused_untouched(tmp_path: Path) -> None:
    """Another program's database, a later format, no database at all."""
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(StudyError, match="another program's"), open_ledger(tmp_path, IDENTITY):
        pass
    assert path.read_bytes() == before
    path.write_bytes(b"this is no database, but long enough to be looked at" * 30)
    with pytest.raises(StudyError, match="damaged, or no ledger"), open_ledger(tmp_path, IDENTITY):
        pass
    path.unlink()
    with open_ledger(tmp_path, IDENTITY) as ledger:
        ledger.connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StudyError, match="format 9"), open_ledger(tmp_path, IDENTITY):
        pass


def test_one_purse_holds_for_all_processes_and_runs(tmp_path: Path) -> None:
    """What one reserved, the other cannot; what a killed one reserved stays spent."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        one, two = (LedgerSpending(ledger.connection, 1e6, 1e6, 10.0, None) for _ in range(2))
        one.reserve(Usage(3, 3))
        with pytest.raises(SpendingError, match="cap of 10 USD"):
            two.reserve(Usage(3, 3))
        one.settle(Usage(3, 3), Usage(1, 1))
        two.reserve(Usage(3, 3))  # never settled
        assert ledger.spent_usd == 8
    with open_ledger(tmp_path, IDENTITY) as ledger:
        with pytest.raises(SpendingError):
            LedgerSpending(ledger.connection, 1e6, 1e6, 10.0, None).reserve(Usage(2, 1))
        assert ledger.spent_usd == 8


def test_a_call_counts_in_the_ledger_and_in_the_outer_count_or_in_neither(tmp_path: Path) -> None:
    """Whichever cap is reached, nothing is left entered in the other."""
    with open_ledger(tmp_path, IDENTITY) as ledger:
        for own, outer_cap in ((10.0, 4.0), (4.0, 10.0)):
            outer = Spending(1e6, 1e6, outer_cap)
            before = ledger.spent_usd
            spending = LedgerSpending(ledger.connection, 1e6, 1e6, before + own, None, outer)
            spending.reserve(Usage(2, 1))
            with pytest.raises(SpendingError, match="cap of"):
                spending.reserve(Usage(2, 1))
            assert (ledger.spent_usd - before, outer.usd) == (3, 3)
            spending.settle(Usage(2, 1), Usage(1, 0))
            assert (ledger.spent_usd - before, outer.usd) == (1, 1)
