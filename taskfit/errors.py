"""Every error a user can meet.

    TaskfitError
    ├── TaskError            the task file, its templates or labels are wrong
    ├── DataError            rows or their sources are wrong
    ├── ConfigError          a strategy, parameter, option or limit is wrong
    ├── ModelError           a model folder or name cannot be used as it is
    ├── TrainingError        training cannot start, or has diverged
    ├── EngineError          an engine cannot answer a request
    │   ├── NoScoresError    it offers no log-probabilities, and was asked to score
    │   └── ServiceError     a service cannot be reached, refuses, or answers what cannot be read
    │       └── SpendingError    the cap in money or tokens is reached
    ├── PredictorError       a predictor folder cannot be loaded or does not fit
    ├── StudyError           a study folder belongs to another plan, or is damaged
    ├── ResourceError        disk, memory or time ran out
    └── MissingExtraError    an optional dependency is not installed

A message says what was expected, what came, and what to do; ``hint`` holds the "what to do" when it reads
better on a line of its own. The command line shows both and ends with exit code 2. Anything else that is raised
is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "Faults",
    "MissingExtraError",
    "ModelError",
    "NoScoresError",
    "PredictorError",
    "ResourceError",
    "ServiceError",
    "SpendingError",
    "StudyError",
    "TaskError",
    "TaskfitError",
    "TrainingError",
    "nearest",
]


class TaskfitError(Exception):
    """Base of every error that is the user's to mend.

    Args:
        message: one line: what was expected and what came.
        hint: optional second line: what to do.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TaskError(TaskfitError):
    """The task file, its templates or its labels are wrong."""


class DataError(TaskfitError):
    """Rows, or the files they come from, are wrong."""


class ConfigError(TaskfitError):
    """A strategy name, a parameter, an option or a limit is wrong."""


class ModelError(TaskfitError):
    """A model folder or name cannot be used as it is."""


class TrainingError(TaskfitError):
    """Training cannot start (nothing is supervised), or it has diverged."""


class EngineError(TaskfitError):
    """An engine cannot answer a request."""


class NoScoresError(EngineError):
    """An engine that offers no log-probabilities was asked to score; only generating works."""


class ServiceError(EngineError):
    """A service cannot be reached, refuses a request, or gives an answer that cannot be read.

    Attributes:
        status: of the HTTP reply; 0 where there was none.
        answers: position in the call of each request that was answered before, to its response: they are paid for.
    """

    def __init__(self, message: str, hint: str | None = None, *, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status
        self.answers: dict[int, Any] = {}


class SpendingError(ServiceError):
    """The cap in money or tokens is reached: nothing more was asked, and what was paid for is kept in ``answers``."""


class PredictorError(TaskfitError):
    """A predictor folder cannot be loaded, or does not fit what is asked of it."""


class StudyError(TaskfitError):
    """A study folder belongs to another plan, or is damaged."""


class ResourceError(TaskfitError):
    """Disk, memory or time ran out."""


class MissingExtraError(TaskfitError):
    """An optional dependency is not installed; the message holds the install command."""


class Faults:
    """Collects every fault of one input so that they are reported together.

    >>> faults = Faults("task.yaml")
    >>> faults.add("kind must be one of classification, choice, generation (got 'clasification')")
    >>> faults.raise_as(TaskError)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    TaskError: task.yaml: kind must be one of classification, choice, generation (got 'clasification')
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Note one fault."""
        self.messages.append(message)

    def raise_as(self, kind: type[TaskfitError], hint: str | None = None) -> None:
        """Raise all noted faults as one error of ``kind``; return quietly when there are none."""
        if not self.messages:
            return
        if len(self.messages) == 1:
            raise kind(f"{self.subject}: {self.messages[0]}", hint)
        listed = "".join(f"\n  - {message}" for message in self.messages)
        raise kind(f"{self.subject}: {len(self.messages)} faults{listed}", hint)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known word closest to ``word``, or an empty string.

    Made to be appended to a message about an unknown name.
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
