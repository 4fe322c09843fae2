"""What a ledger keeps besides rows and labels: which task they are of, and what the teacher computed."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING

from taskfit.distillation.ledger_file import transaction
from taskfit.errors import StudyError, TaskfitError
from taskfit.models.work import Work
from taskfit.tasks.definition import TaskDefinition

if TYPE_CHECKING:
    import sqlite3

__all__ = ["labels_digest", "note_definition", "note_work", "noted_definition", "noted_work"]


def note_definition(connection: sqlite3.Connection, definition: TaskDefinition) -> None:
    """Keep the task's definition, so that the labels can be given to another task file that asks the same."""
    with transaction(connection):
        _make_table(connection)
        text = json.dumps(definition.to_json(), sort_keys=True)
        connection.execute("INSERT OR IGNORE INTO notes VALUES ('definition', ?)", (text,))


def noted_definition(connection: sqlite3.Connection) -> TaskDefinition | None:
    """Return the definition of the task whose rows were labelled; None in ledgers that do not say.

    Raises:
        StudyError: what stands there is no definition.
    """
    text = _note(connection, "definition")
    if text is None:
        return None
    try:
        return TaskDefinition.from_json(json.loads(text))
    except (ValueError, TaskfitError) as error:
        raise StudyError(f"the ledger holds no valid definition of its task: {error}") from error


def note_work(connection: sqlite3.Connection, worker: str, work: Work) -> None:
    """Keep what one worker's teacher computed so far, in the place of what it said before."""
    with transaction(connection):
        _make_table(connection)
        connection.execute("REPLACE INTO notes VALUES (?, ?)", (f"work of {worker}", json.dumps(asdict(work))))


def noted_work(connection: sqlite3.Connection) -> Work:
    """Return what the teachers of all workers computed, those of runs that were killed included."""
    _make_table(connection)
    found = connection.execute("SELECT value FROM notes WHERE name LIKE 'work of %'")
    return sum((Work(**json.loads(text)) for (text,) in found), Work())


def labels_digest(connection: sqlite3.Connection) -> str:
    """Return a digest of all labels, people's included: equal digests teach the same."""
    digest = sha256()
    query = "SELECT id, part, fields, answer, probabilities, raw FROM rows JOIN annotations ON row = position"
    for record in connection.execute(f"{query} ORDER BY position"):
        digest.update(json.dumps(record).encode())
    for record in connection.execute("SELECT name, value FROM identity ORDER BY name"):
        digest.update(json.dumps(record).encode())
    has_reviews = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'reviews'").fetchone()
    for record in connection.execute("SELECT id, answer FROM reviews ORDER BY id") if has_reviews else ():
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def _note(connection: sqlite3.Connection, name: str) -> str | None:
    _make_table(connection)
    found = connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def _make_table(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
