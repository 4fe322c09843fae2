"""One shard of rows: what it asks is predicted once each, chunk by chunk, and remembered in a journal meanwhile.

A shard's answers are a function of its rows and the predictor: chunks are cut from its questions in a fixed order, so
that a killed run that goes on, a run on other machines and a run in one go write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import MissingExtraError, PredictorError, ResourceError, ServiceError, SpendingError, TaskfitError
from taskfit.serving.questions import Question, Unread, needed_fields, questions

if TYPE_CHECKING:
    from taskfit.strategy.contract import Prediction, Predictor
    from taskfit.tasks.task import Row

__all__ = ["CHUNK_QUESTIONS", "Answered", "predict_shard"]

CHUNK_QUESTIONS = 512
"""Questions predicted together; a kill loses at most two times as many."""

_FEWEST_TO_STOP = 16
_ROW_STATUSES = (400, 413, 422)
"""What a service says of a request that is wrong in itself; anything else is no fault of the row."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What is written of a row beside its id.

    Attributes:
        answer: empty where the row failed.
        probability: of the answer, rounded to six digits; None where the strategy has none.
        cut_tokens: tokens left out because the model's context, or the strategy's limit, is too short.
        error: why there is no answer; None where there is one.
    """

    answer: str
    probability: float | None
    cut_tokens: int
    error: str | None


def predict_shard(
    predictor: Predictor,
    rows: Sequence[Row | Unread],
    journal: Path | None = None,
    on_rows: Callable[[int], None] = lambda count: None,
) -> list[Answered]:
    """Return what is written of each row, in order.

    Args:
        predictor: what predicts.
        rows: of the shard.
        journal: file that remembers finished chunks; one that a killed run left is read, and goes on. None: none.
        on_rows: told how many more rows are done.

    Raises:
        PredictorError: at least 16 questions were asked first, and every one of them failed.
        ServiceError: a service refuses work for a reason that is no row's fault, or the money is spent.
        ResourceError: memory or disk ran out.
    """
    asked = questions(rows, needed_fields(predictor.definition))
    chunks = [asked[first : first + CHUNK_QUESTIONS] for first in range(0, len(asked), CHUNK_QUESTIONS)]
    found = [Answered("", None, 0, row.reason if isinstance(row, Unread) else None) for row in rows]
    on_rows(sum(isinstance(row, Unread) for row in rows))
    with _Journal(journal, _digest(asked)) as record:
        for number, answers in _answers(predictor, chunks, record):
            for question, answer in zip(chunks[number], answers, strict=True):
                for place in question.places:
                    found[place] = answer
            on_rows(sum(len(question.places) for question in chunks[number]))
    return found


def _answers(
    predictor: Predictor, chunks: Sequence[Sequence[Question]], record: _Journal
) -> Iterator[tuple[int, list[Answered]]]:
    """Yield each chunk's number and answers; what the journal holds first, two at once where the predictor allows."""
    yield from record.found.items()
    left = [number for number in range(len(chunks)) if number not in record.found]

    def answer(number: int) -> tuple[int, list[Answered]]:
        answers = _predict(predictor, [question.row for question in chunks[number]])
        if number == 0 and len(answers) >= _FEWEST_TO_STOP and all(answered.error for answered in answers):
            raise PredictorError(f"all of the first {len(answers)} rows fail, the first: {answers[0].error}")
        return number, answers

    for done in _overlapped(predictor, answer, left):
        record.add(*done)
        yield done


def _overlapped(
    predictor: Predictor, answer: Callable[[int], tuple[int, list[Answered]]], numbers: Sequence[int]
) -> Iterator[tuple[int, list[Answered]]]:
    """Answer the chunks; where the predictor may be used by two threads, the next is encoded while one computes."""
    first, rest = numbers[:1], numbers[1:]
    yield from map(answer, first)  # alone: it may decide how the predictor computes
    if not getattr(predictor, "is_thread_safe", False):
        yield from map(answer, rest)
        return
    with ThreadPoolExecutor(2, "chunk") as pool:
        yield from pool.map(answer, rest)


def _predict(predictor: Predictor, rows: Sequence[Row]) -> list[Answered]:
    """Predict rows together; where that fails, halve until the rows that fail stand alone."""
    try:
        predictions = list(predictor.predict(rows))
    except (SpendingError, ResourceError, MissingExtraError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, ServiceError) and error.status not in _ROW_STATUSES:
            raise
        if len(rows) == 1:
            return [Answered("", None, 0, _reason(error))]
        half = len(rows) // 2
        return _predict(predictor, rows[:half]) + _predict(predictor, rows[half:])
    if [prediction.row_id for prediction in predictions] != [row.id for row in rows]:
        raise PredictorError(f"{predictor.strategy} gave {len(predictions)} answers to {len(rows)} rows, or others'")
    return [_answered(prediction) for prediction in predictions]


def _answered(prediction: Prediction) -> Answered:
    if not prediction.is_parsed:
        said = " ".join(prediction.raw.split())[:200]
        return Answered("", None, prediction.cut_tokens, f"no valid answer: {said}")
    shares = prediction.probabilities
    probability = None if shares is None else round(shares.get(prediction.answer, 0.0), 6)
    return Answered(prediction.answer, probability, prediction.cut_tokens, None)


def _reason(error: Exception) -> str:
    said = error.message if isinstance(error, TaskfitError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:500]


def _digest(asked: Sequence[Question]) -> str:
    """Which questions a journal belongs to."""
    digest = hashlib.sha256()
    for question in asked:
        digest.update(f"{question.row.id}\n{question.size}\n{question.places}\n".encode())
    return digest.hexdigest()


class _Journal:
    """Finished chunks, a line each; a line that a kill cut short counts as not there."""

    def __init__(self, path: Path | None, digest: str) -> None:
        self.path = path
        self.digest = digest
        self.found: dict[int, list[Answered]] = {}
        self._file: Any = None

    def __enter__(self) -> _Journal:
        if self.path is None:
            return self
        head = f"{self.digest}\n".encode()
        written = self.path.read_bytes() if self.path.is_file() else b""
        written = written[: written.rfind(b"\n") + 1]  # behind the last line break stands nothing, or half a line
        if not written.startswith(head):
            self.path.write_bytes(head)
            written = head
        for line in written.splitlines()[1:]:
            number, answers = json.loads(line)
            self.found[number] = [Answered(*values) for values in answers]
        self._file = self.path.open("r+b")
        self._file.truncate(len(written))
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, number: int, answers: Sequence[Answered]) -> None:
        """Note a finished chunk."""
        if self._file is None:
            return
        values = [[one.answer, one.probability, one.cut_tokens, one.error] for one in answers]
        self._file.write(json.dumps([number, values], ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
