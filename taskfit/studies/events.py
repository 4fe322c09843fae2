"""What a running study reports to its caller, who decides how to show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.studies.result import TrialResult
    from taskfit.studies.spec import Plan, TrialSpec

__all__ = [
    "CandidateStopped",
    "Event",
    "OnEvent",
    "StudyPlanned",
    "StudySaid",
    "TrialEnded",
    "TrialFound",
    "TrialLeftOut",
    "TrialSaid",
    "TrialStarted",
    "ignore",
    "ignore_line",
]


@dataclass(frozen=True)
class StudyPlanned:
    """Everything is checked; trials are about to run."""

    plan: Plan


@dataclass(frozen=True)
class StudySaid:
    """A line of progress or a finding of the study as a whole: what fits into the budget, how far it is."""

    line: str


@dataclass(frozen=True)
class TrialFound:
    """A trial was finished by an earlier run; it is not run again."""

    result: TrialResult
    done: int
    total: int


@dataclass(frozen=True)
class TrialStarted:
    """A trial's process is about to start.

    Attributes:
        number: its place among all trials of the study, from 1.
        left_s: expected seconds until the whole study ends; None: unknown.
    """

    spec: TrialSpec
    number: int
    total: int
    left_s: float | None


@dataclass(frozen=True)
class TrialSaid:
    """A trial reports progress, or a finding that the user must see."""

    spec: TrialSpec
    line: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, well or not.

    Attributes:
        done: number of trials ended so far, those found included.
        left_s: expected seconds until the whole study ends; None: unknown.
    """

    result: TrialResult
    done: int
    total: int
    left_s: float | None


@dataclass(frozen=True)
class TrialLeftOut:
    """The budget has no room for a trial: it was not started, or was stopped.

    Attributes:
        why: in words.
    """

    spec: TrialSpec
    why: str


@dataclass(frozen=True)
class CandidateStopped:
    """A strategy gets no further seeds.

    Attributes:
        spec: its first trial.
        why: in words: after how many seeds, and how far behind.
    """

    spec: TrialSpec
    why: str


Event = CandidateStopped | StudyPlanned | StudySaid | TrialFound | TrialLeftOut | TrialStarted | TrialSaid | TrialEnded
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event."""


def ignore_line(line: str) -> None:
    """Drop a line of progress."""
