"""Recorded answers: an engine that needs no model, and the recorder that makes recordings.

A recording is a file of JSON Lines: first ``{"format": 1, "recording": "taskfit"}``, then one
``{"request": …, "response": …}`` a line. It holds prompts and answers in the clear, and no key of any service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import EngineError
from taskfit.inference.request_json import (
    from_lossless,
    request_from_json,
    request_key,
    request_to_json,
    response_from_json,
    response_to_json,
)
from taskfit.inference.requests import Generate, Request, Response, Score, Scored
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine

__all__ = ["Recorder", "ReplayEngine", "billed", "read_recording"]

_HEADER = {"format": 1, "recording": "taskfit"}
_SHOWN = 80


class ReplayEngine:
    """Answers requests from a recording; what is not in it is an error.

    A request is found by all it consists of: prompt, continuations or parameters, seed. Order and number do not
    matter, and a request may be asked again.

    Args:
        recording: a file that :class:`Recorder` wrote, or pairs of request and response.

    Raises:
        EngineError: the file is damaged, or one request stands with two different responses.

    >>> request = Generate(Prompt("Two and two?"), max_tokens=4)          # doctest: +SKIP
    >>> ReplayEngine([(request, generated(request, "four"))]).run([request])  # doctest: +SKIP
    """

    def __init__(self, recording: str | Path | Iterable[tuple[Request, Response]]) -> None:
        self._source = str(recording) if isinstance(recording, str | Path) else "the recording"
        pairs = read_recording(Path(recording)) if isinstance(recording, str | Path) else recording
        self._answers: dict[bytes, Response] = {}
        self._work = Work()
        for request, response in pairs:
            _check_pair(request, response)
            known = self._answers.setdefault(request_key(request), response)
            if _differ(known, response):
                raise EngineError(f"{self._source} holds two different answers to one request: {_shown(request)}")

    def __len__(self) -> int:
        """Return the number of different requests in the recording."""
        return len(self._answers)

    @property
    def work(self) -> Work:
        """Prompt and answer tokens of the recorded answers given so far; nothing was computed."""
        return self._work

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order.

        Raises:
            EngineError: some are not in the recording; the first is named.
        """
        found = [self._answers.get(request_key(request)) for request in requests]
        missing = [request for request, answer in zip(requests, found, strict=True) if answer is None]
        if missing:
            raise EngineError(
                f"{len(missing)} of {len(requests)} requests are not among the {len(self)} of {self._source}; "
                f"the first is {_shown(missing[0])}",
                "Record it again with the same task, strategy and seed; another word is another request.",
            )
        responses = [answer for answer in found if answer is not None]
        for response in responses:
            self._work += billed(response)
        return responses


class Recorder:
    """Lets another engine answer, and writes every new request with its response to a recording.

    A recording that is there is gone on with; a last line cut off by a crash is removed. Lines are flushed after
    each call, so that a killed process loses at most the call it was in. One process writes a recording at a time.

    Args:
        engine: what answers.
        path: the file to write; its folder is made.

    Raises:
        EngineError: the file is something else, or damaged, or cannot be written.
    """

    def __init__(self, engine: Engine, path: str | Path) -> None:
        self._engine = engine
        self._path = Path(path)
        self._known = {request_key(request) for request, _ in _opened(self._path)}

    @property
    def work(self) -> Work:
        """Everything the recorded engine has computed so far."""
        return self._engine.work

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests with the engine, in order, and record the new ones.

        Raises:
            EngineError: the engine's, or the recording cannot be written.
        """
        responses = self._engine.run(requests)
        lines = []
        for request, response in zip(requests, responses, strict=True):
            key = request_key(request)
            if key not in self._known:
                self._known.add(key)
                lines.append(_line({"request": request_to_json(request), "response": response_to_json(response)}))
        _append(self._path, lines)
        return responses


def read_recording(path: Path) -> Iterator[tuple[Request, Response]]:
    """Yield the pairs of a recording, in the order in which they were recorded.

    Raises:
        EngineError: there is no such file, it is no recording, or a line is damaged; the line is named.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            _check_header(path, next(lines, ""))
            for number, line in enumerate(lines, start=2):
                yield _pair(path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"cannot read the recording {path}: {error}") from error


def billed(response: Response) -> Work:
    """Return the tokens of a response as a user would be billed for them, and what its prompt lost."""
    return Work(
        prompt_tokens=response.prompt_tokens,
        answer_tokens=sum(response.tokens) if isinstance(response, Scored) else response.tokens,
        cut_tokens=response.cut_tokens,
        cut_rows=int(response.cut_tokens > 0),
        dropped_shots=response.dropped_shots,
    )


def _pair(path: Path, number: int, line: str) -> tuple[Request, Response]:
    try:
        values = from_lossless(line)
        if not isinstance(values, dict) or {*values} != {"request", "response"}:
            raise EngineError("expected an object with a request and a response")
        pair = request_from_json(values["request"]), response_from_json(values["response"])
        _check_pair(*pair)
    except EngineError as error:
        raise EngineError(f"{path}, line {number}: {error.message}", "Record it again.") from error
    return pair


def _check_pair(request: Request, response: Response) -> None:
    if isinstance(request, Score) != isinstance(response, Scored):
        raise EngineError(f"a {type(response).__name__} is no answer to a {type(request).__name__}")
    if isinstance(request, Score) and isinstance(response, Scored):
        expected, got = len(request.continuations), len(response.logprobs)
        if expected != got:
            raise EngineError(f"{expected} continuations need as many scores (got {got})")


def _check_header(path: Path, line: str) -> None:
    try:
        values = from_lossless(line)
    except EngineError:
        values = None
    if not isinstance(values, dict) or values.get("recording") != "taskfit":
        raise EngineError(f"{path} is no recording: its first line should be {json.dumps(_HEADER)}")
    if values.get("format") != 1:
        raise EngineError(
            f"{path} has format {values.get('format')!r}; this version reads format 1", "Upgrade taskfit."
        )


def _opened(path: Path) -> Iterator[tuple[Request, Response]]:
    """Begin a recording, or go on with one: yield what is in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if content and not whole:
            raise EngineError(f"{path} is no recording: it has no whole line")
        if len(whole) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(whole))
    except OSError as error:
        raise EngineError(f"cannot write the recording {path}: {error}") from error
    if not whole:
        _append(path, [_line(_HEADER)])
    yield from read_recording(path)


def _append(path: Path, lines: Sequence[str]) -> None:
    if not lines:
        return
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    except OSError as error:
        raise EngineError(f"cannot write the recording {path}: {error}") from error


def _line(values: object) -> str:
    # ASCII: half of a surrogate pair in a row's text would otherwise break the file.
    return json.dumps(values, ensure_ascii=True, allow_nan=False) + "\n"


def _differ(one: Response, other: Response) -> bool:
    """Compare as recorded, for NaN is not equal to itself."""
    return response_to_json(one) != response_to_json(other)


def _shown(request: Request) -> str:
    """Name a request in one line."""
    text = request.prompt.text if len(request.prompt.text) <= _SHOWN else "…" + request.prompt.text[-_SHOWN:]
    if isinstance(request, Generate):
        return f"Generate({text!r}, {request.max_tokens} tokens, seed {request.seed})"
    return f"Score({text!r}, {len(request.continuations)} continuations)"
