"""Answers kept on disk, so that none is computed or paid for twice.

An answer is found again only under everything that decided it: the engine's kind and version, the model's content
(weights in memory, adapter, number format, tokenizer; for a service its address and model), and the whole request with
its seed. What is not equal to the bit has another key, so two models never share an entry.

Counting: an answer from the cache counts its tokens as it did the first time (``prompt_tokens``, ``answer_tokens`` and,
for services, ``service_*``: what predicting these rows costs), and one ``cached_answers``. Nothing counts as computed,
nothing as paid. Seconds are those of the cache: whoever measures them looks at ``cached_answers``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from taskfit.errors import ConfigError, EngineError
from taskfit.files import write_ahead
from taskfit.inference.replay import billed
from taskfit.inference.request_json import from_lossless, request_key, response_from_json, response_to_json
from taskfit.inference.requests import Request, Response
from taskfit.models.work import Work

__all__ = ["CachedEngine", "IdentifiedEngine", "default_cache"]

_APPLICATION = 0x7461736B
_FORMAT = 1
_BUSY_S = 30.0
_ASKED_AT_ONCE = 500
_KEPT = (
    "prompt_tokens",
    "answer_tokens",
    "service_prompt_tokens",
    "service_answer_tokens",
    "cut_tokens",
    "cut_rows",
    "dropped_shots",
)


class IdentifiedEngine(Protocol):
    """An engine that can say which model it asks, so that its answers can be kept."""

    @property
    def work(self) -> Work:
        """Everything this engine has computed so far."""
        ...

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order."""
        ...

    def identity(self) -> Mapping[str, str]:
        """Return everything besides the request that decides an answer, as it stands now."""
        ...


class CachedEngine:
    """Answers from a file what was asked before, lets an engine answer the rest, and keeps its answers.

    Several processes may share the file (SQLite with a write-ahead log; not on network drives). A process killed at
    any moment leaves it whole. Answers of an engine that hands them over one by one (:class:`HttpEngine`) are kept as
    they come. The file holds answers and hashes, no prompts and no keys; only its owner can read it.

    Args:
        engine: has a method ``identity``.
        path: the file; made with its folder where missing.

    Raises:
        ConfigError: the engine cannot say which model it asks.
    """

    def __init__(self, engine: IdentifiedEngine, path: str | Path) -> None:
        if not callable(getattr(engine, "identity", None)):
            raise ConfigError(
                f"answers of a {type(engine).__name__} cannot be kept: it does not say which model it asks"
            )
        self._engine, self._path = engine, Path(path)
        self._hits = Work()

    @property
    def work(self) -> Work:
        """Everything the engine has computed, and the tokens of answers from the cache; see the top of this module."""
        return self._engine.work + self._hits

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order; equal ones are computed once.

        Raises:
            EngineError: the engine's, or the file is damaged or something else.
        """
        if not requests:
            return []
        identity = json.dumps(dict(self._engine.identity()), sort_keys=True).encode("utf-8")
        keys = [_key(identity, request) for request in requests]
        with _opened(self._path) as store:
            known = store.read(set(keys))
            fresh = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
            known |= self._compute(identity, list(fresh.values()), store)
        for key in keys:
            if fresh.pop(key, None) is None:  # neither computed now, nor for an equal request before it
                self._hits += known[key][1] + Work(cached_answers=1)
        return [known[key][0] for key in keys]

    def _compute(self, identity: bytes, requests: Sequence[Request], store: _Store) -> dict[bytes, _Entry]:
        """Let the engine answer, and keep each answer: as it comes, where the engine hands them over one by one."""
        found: dict[bytes, _Entry] = {}

        def keep(request: Request, response: Response, work: Work) -> None:
            key = _key(identity, request)
            found[key] = (response, Work(**{name: getattr(work, name) for name in _KEPT}))
            store.write(key, found[key])

        if not requests:
            return found
        hands_over = hasattr(self._engine, "keep")
        if hands_over:
            self._engine.keep = keep  # type: ignore[attr-defined]
        for request, response in zip(requests, self._engine.run(requests), strict=True):
            if not hands_over:
                keep(request, response, billed(response))
        return found


def default_cache() -> Path:
    """Return the user's own file: ``taskfit/answers.sqlite`` under ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskfit" / "answers.sqlite"


_Entry = tuple[Response, Work]


def _key(identity: bytes, request: Request) -> bytes:
    return hashlib.sha256(identity + b"\0" + request_key(request)).digest()


class _Store:
    """The open file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._is_failing = False

    def read(self, keys: set[bytes]) -> dict[bytes, _Entry]:
        """Return what is known; entries whose checksum is wrong are not."""
        found: dict[bytes, _Entry] = {}
        ordered = sorted(keys)
        for start in range(0, len(ordered), _ASKED_AT_ONCE):
            part = ordered[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(f"SELECT key, answer, checksum FROM answers WHERE key IN ({marks})", part)
            for key, text, checksum in rows:
                entry = _entry(text) if checksum == _checksum(key, text) else None
                if entry is not None:
                    found[key] = entry
        return found

    def write(self, key: bytes, entry: _Entry) -> None:
        """Keep an answer; where that fails, say so once: the answer itself is not lost for it."""
        response, work = entry
        values = {"response": response_to_json(response), "work": {n: v for n, v in asdict(work).items() if v}}
        text = json.dumps(values, ensure_ascii=True, allow_nan=False)
        try:
            self._connection.execute("REPLACE INTO answers VALUES (?, ?, ?)", (key, text, _checksum(key, text)))
        except sqlite3.Error as error:
            if not self._is_failing:
                self._is_failing = True
                warnings.warn(f"answers are not kept in {self._path}: {error}", RuntimeWarning, stacklevel=2)


def _checksum(key: bytes, text: object) -> bytes:
    return hashlib.sha256(key + str(text).encode("utf-8", "surrogatepass")).digest()


def _entry(text: str) -> _Entry | None:
    """Read an entry; None where a later version wrote what this one does not know."""
    try:
        values = from_lossless(text)
        return response_from_json(values["response"]), Work(**values["work"])
    except (EngineError, KeyError, TypeError):
        return None


@contextmanager
def _opened(path: Path) -> Iterator[_Store]:
    """Open the file, made where missing; errors of SQLite become ours, naming it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        # Another thread: the HTTP engine runs in one of its own where a loop runs already.
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise EngineError(f"the cache {path} cannot be opened: {error}", _HINT) from error
    with closing(connection):
        try:
            _prepare(connection, path)
            yield _Store(connection, path)
        except sqlite3.DatabaseError as error:
            raise EngineError(f"the cache {path} is damaged, or no cache: {error}", _HINT) from error


_HINT = (
    "Move the file away: a new one is made, and what it held is computed again. For a service, cache=off needs none."
)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours, before anything in it is changed; lay out a new one."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # first: another may make it now
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != _APPLICATION:
        raise EngineError(f"{path} is another program's database", _HINT)
    if tables and version != _FORMAT:
        raise EngineError(f"the cache {path} has format {version}; this version reads format {_FORMAT}", _HINT)
    write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    if not tables:  # all or nothing; another process may do the same at this moment
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT, checksum BLOB) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")
