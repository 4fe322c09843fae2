"""The ledger: which rows a teacher shall label, every attempt with its outcome, at most one label a row.

A row is ``open``, ``leased`` by one worker, ``done`` or ``failed``. A worker is a process that holds the lock of a
file of its own: the system lets it go when the process ends, however it ends, so that no lease outlives its worker and
none runs out under one that works slowly. All workers run on one machine, as SQLite's write-ahead log needs anyway.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from taskfit.distillation.ledger_file import opened, transaction
from taskfit.files import escaped
from taskfit.strategy.contract import Prediction
from taskfit.tasks.task import Row

if TYPE_CHECKING:
    from typing import IO

__all__ = ["Label", "Ledger", "Part", "open_ledger"]

Part = Literal["train", "audit", "human"]
"""``train``: for students. ``audit``: random rows kept apart. ``human``: rows whose right answer a person gave."""

MOST_TRIES = 3
"""Attempts of a row that failed for reasons that may pass (a service that was away)."""


@dataclass(frozen=True)
class Label:
    """A row with the teacher's label for it.

    Attributes:
        answer: label value, option or text.
        probabilities: answer to probability; None where the teacher gave none.
        raw: what the teacher wrote, where it wrote.
    """

    row: Row
    part: Part
    answer: str
    probabilities: Mapping[str, float] | None
    raw: str
    tokens_in: int
    tokens_out: int
    cut_tokens: int


class Ledger:
    """An open ledger, with this process as one of its workers. Made by :func:`open_ledger`.

    Attributes:
        name: this worker's.
    """

    def __init__(self, connection: sqlite3.Connection, workers: Path, name: str) -> None:
        self.connection, self._workers, self.name = connection, workers, name

    @property
    def is_filled(self) -> bool:
        """Whether the rows to label were chosen."""
        return self.connection.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is not None

    def fill(self, rows: Mapping[Part, Sequence[Row]]) -> None:
        """Enter the rows to label, once; nothing where another process did so before."""
        with transaction(self.connection):
            if self.is_filled:
                return
            for part, listed in rows.items():
                self.connection.executemany(
                    "INSERT INTO rows (id, part, fields) VALUES (?, ?, ?)",
                    ((row.id, part, json.dumps(dict(row.fields))) for row in listed),
                )

    def lease(self, most: int) -> list[Row]:
        """Take up to ``most`` open rows; those of dead workers are open again. Rows that failed before come last."""
        with transaction(self.connection):
            for (worker,) in self.connection.execute("SELECT DISTINCT worker FROM rows WHERE state = 'leased'"):
                if worker != self.name and not self._lives(worker):
                    self._free(worker)
            found = self.connection.execute(
                "SELECT position, id, fields FROM rows WHERE state = 'open' ORDER BY tries, position LIMIT ?", (most,)
            ).fetchall()
            now = time.time()
            for position, _, _ in found:
                self.connection.execute(
                    "UPDATE rows SET state = 'leased', worker = ?, tries = tries + 1 WHERE position = ?",
                    (self.name, position),
                )
                self.connection.execute(
                    "INSERT INTO attempts (row, worker, started) VALUES (?, ?, ?)", (position, self.name, now)
                )
        return [Row(row_id, json.loads(fields)) for _, row_id, fields in found]

    def accept(self, predictions: Iterable[Prediction]) -> None:
        """Keep labels of rows that this worker leases: all of them or none."""
        with transaction(self.connection):
            for found in predictions:
                position, attempt = self._end(found.row_id, "done", "accepted", "")
                shares = None if found.probabilities is None else json.dumps(dict(found.probabilities))
                self.connection.execute(
                    "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        position,
                        attempt,
                        escaped(found.answer),
                        shares,
                        escaped(found.raw),
                        found.tokens_in,
                        found.tokens_out,
                        found.cut_tokens,
                    ),
                )

    def fail(self, row_id: str, outcome: str, message: str, *, is_final: bool) -> None:
        """Note why an attempt failed. The row is tried again later unless that is final, or the third time."""
        with transaction(self.connection):
            (tries,) = self.connection.execute("SELECT tries FROM rows WHERE id = ?", (row_id,)).fetchone()
            self._end(row_id, "failed" if is_final or tries >= MOST_TRIES else "open", outcome, message)

    def give_back(self, outcome: str, message: str) -> None:
        """Open all rows that this worker still leases; the attempt does not count against them."""
        with transaction(self.connection):
            self._free(self.name, outcome, message)

    def counts(self) -> Counter[str]:
        """Return the number of rows in each state."""
        return Counter(dict(self.connection.execute("SELECT state, count(*) FROM rows GROUP BY state")))

    def labels(self, part: Part) -> Iterator[Label]:
        """Yield the labels of one part, in the order of its rows."""
        query = (
            "SELECT id, fields, answer, probabilities, raw, tokens_in, tokens_out, cut_tokens FROM rows "
            "JOIN annotations ON row = position WHERE part = ? ORDER BY position"
        )
        for row_id, fields, answer, shares, *rest in self.connection.execute(query, (part,)):
            found = None if shares is None else json.loads(shares)
            yield Label(Row(row_id, json.loads(fields)), part, answer, found, *rest)

    def rows(self, part: Part) -> list[Row]:
        """Return the rows of one part, labelled or not, in order."""
        query = "SELECT id, fields FROM rows WHERE part = ? ORDER BY position"
        return [Row(row_id, json.loads(fields)) for row_id, fields in self.connection.execute(query, (part,))]

    @property
    def spent_usd(self) -> float:
        """US dollars that all runs spent; calls whose answers were lost count as the most they could cost."""
        (usd,) = self.connection.execute("SELECT usd FROM purse").fetchone()
        return float(usd)

    def failures(self) -> list[tuple[str, str, str]]:
        """Return (row id, outcome, message) of every failed row's last attempt."""
        query = (
            "SELECT id, outcome, message FROM rows JOIN attempts ON number = "
            "(SELECT max(number) FROM attempts WHERE row = position) WHERE state = 'failed' ORDER BY position"
        )
        return [(row_id, outcome, message) for row_id, outcome, message in self.connection.execute(query)]

    def attempts(self) -> Counter[str]:
        """Return the number of attempts with each outcome; those under way count as ``under way``."""
        query = "SELECT coalesce(outcome, 'under way'), count(*) FROM attempts GROUP BY 1"
        return Counter(dict(self.connection.execute(query)))

    def _end(self, row_id: str, state: str, outcome: str, message: str) -> tuple[int, int]:
        """End this worker's attempt at a row; return the row's position and the attempt's number."""
        query = "SELECT position FROM rows WHERE id = ? AND state = 'leased' AND worker = ?"
        found = self.connection.execute(query, (row_id, self.name)).fetchone()
        if found is None:
            raise AssertionError(f"row {row_id!r} is not leased by this worker")
        (attempt,) = self.connection.execute("SELECT max(number) FROM attempts WHERE row = ?", found).fetchone()
        self.connection.execute(
            "UPDATE attempts SET ended = ?, outcome = ?, message = ? WHERE number = ?",
            (time.time(), outcome, escaped(message), attempt),
        )
        self.connection.execute("UPDATE rows SET state = ?, worker = NULL WHERE position = ?", (state, found[0]))
        return found[0], attempt

    def _free(self, worker: str, outcome: str = "killed", message: str = "the process ended in the middle") -> None:
        self.connection.execute(
            "UPDATE attempts SET ended = ?, outcome = ?, message = ? WHERE worker = ? AND outcome IS NULL",
            (time.time(), outcome, message, worker),
        )
        self.connection.execute(
            "UPDATE rows SET state = 'open', worker = NULL, tries = tries - 1 WHERE state = 'leased' AND worker = ?",
            (worker,),
        )

    def _lives(self, worker: str) -> bool:
        try:
            with (self._workers / worker).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


@contextmanager
def open_ledger(folder: Path, identity: Mapping[str, str] | None) -> Iterator[Ledger]:
    """Open the ledger of an output folder and join its workers, for as long as the block runs.

    Args:
        folder: made where missing.
        identity: what the labels depend on; see :func:`taskfit.distillation.ledger_file.opened`. None: whatever the
            ledger says.

    Raises:
        StudyError: it belongs to another task or teacher, is damaged, or no ledger.
    """
    with opened(folder / "ledger.sqlite", identity) as connection, _worker(folder / "workers") as name:
        ledger = Ledger(connection, folder / "workers", name)
        try:
            yield ledger
        finally:
            ledger.give_back("stopped", "the run ended before the row's turn")


@contextmanager
def _worker(folder: Path) -> Iterator[str]:
    """Make this process a worker: hold the lock of a file that is named after it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    with (folder / name).open("wb") as file:
        _lock(file)
        try:
            yield name
        finally:
            (folder / name).unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> None:
    fcntl.flock(file, fcntl.LOCK_EX)
