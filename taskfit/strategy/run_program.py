"""The one loop that runs programs: all rows step together, so that every wave of requests is one batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from taskfit.errors import EngineError, TaskfitError
from taskfit.inference.requests import Scored

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine, Request, Response
    from taskfit.strategy.contract import Answer, PreparedProgram, Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["Outcome", "run_programs"]


@dataclass(frozen=True)
class Outcome:
    """One row's answer, with what its requests took together.

    Attributes:
        tokens_in: prompt tokens read.
        tokens_out: tokens generated or scored.
        cut_tokens: prompt tokens left out because the context is too short.
    """

    answer: Answer
    tokens_in: int
    tokens_out: int
    cut_tokens: int


def run_programs(
    definition: TaskDefinition, prepared: PreparedProgram, rows: Iterable[Row], engine: Engine
) -> list[Outcome]:
    """Run the program of every row to its end; one outcome a row, in order.

    The first requests of all rows are one call of the engine, the second requests of the rows that ask again are the
    next, and so on until the longest program has answered. A program that yields a tuple of requests has all of them
    in one call.

    Raises:
        TaskfitError: of the kind that a row's program raised; the message begins with the row's id.
    """
    runs = [_Run(row, prepared.answer(definition, row)) for row in rows]
    waiting = [run for run in runs if run.step(None)]
    while waiting:
        requests = [request for run in waiting for request in run.requests]
        responses = engine.run(requests)
        if len(responses) != len(requests):
            raise EngineError(f"expected {len(requests)} responses from the engine (got {len(responses)})")
        given = iter(responses)
        waiting = [run for run in waiting if run.step(tuple(islice(given, len(run.requests))))]
    return [run.outcome() for run in runs]


class _Run:
    """One row's generator, where it stands, and what it has taken."""

    def __init__(self, row: Row, steps: Steps) -> None:
        self.row = row
        self.steps = steps
        self.requests: tuple[Request, ...] = ()
        self.is_wave = False
        self.answer: Answer | None = None
        self.tokens_in = self.tokens_out = self.cut_tokens = 0

    def step(self, responses: tuple[Response, ...] | None) -> bool:
        """Go on to the next requests (true) or to the answer (false). The first step has no responses."""
        for response in responses or ():
            self.tokens_in += response.prompt_tokens
            self.tokens_out += sum(response.tokens) if isinstance(response, Scored) else response.tokens
            self.cut_tokens += response.cut_tokens
        try:
            asked = next(self.steps) if responses is None else self.steps.send(self._given(responses))
        except StopIteration as end:
            self.requests, self.answer = (), end.value
            return False
        except TaskfitError as error:
            raise type(error)(f"row {self.row.id}: {error.message}", error.hint) from error
        except Exception as error:
            error.add_note(f"in the program of row {self.row.id}")
            raise
        self.is_wave = isinstance(asked, tuple)
        self.requests = asked if isinstance(asked, tuple) else (asked,)
        return True

    def _given(self, responses: tuple[Response, ...]) -> Response | tuple[Response, ...]:
        return responses if self.is_wave else responses[0]

    def outcome(self) -> Outcome:
        if self.answer is None:
            raise TypeError(f"the program of row {self.row.id} ended without an answer")
        return Outcome(self.answer, self.tokens_in, self.tokens_out, self.cut_tokens)
