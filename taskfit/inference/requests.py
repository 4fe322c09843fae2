"""Requests about text, their responses, and what answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from taskfit.models.work import Work
    from taskfit.tasks.prompt import Prompt

__all__ = ["Engine", "Generate", "Generated", "Request", "Response", "Score", "Scored"]


@dataclass(frozen=True)
class Score:
    """Ask for the log-probability of each continuation after the prompt.

    Attributes:
        continuations: texts, at least one, none empty; two of them may not have the same tokens.
    """

    prompt: Prompt
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Generate:
    """Ask for a text.

    Attributes:
        max_tokens: most tokens to generate, at least 1.
        stop: texts that end the answer where they first occur; they are not part of it.
        temperature: 0 takes the likeliest token each time.
        top_p: nucleus; 1 keeps all tokens.
        seed: of this request alone, so that its sample does not depend on its neighbours.
        choices: when given, the answer is exactly one of these texts, and ends with it. The model chooses token by
            token among those that can still become one of them; it is not the text with the highest probability as a
            whole, which is what :class:`Score` finds.
        json_schema: when given, the answer is JSON that satisfies this schema (a JSON object as text), written on
            one line.

    With ``choices`` or ``json_schema`` the answer is complete when ``finish`` is ``end``. When it is ``length``,
    ``max_tokens`` was too small and the text is only a beginning. Neither goes with the other or with ``stop``.
    """

    prompt: Prompt
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    choices: tuple[str, ...] = ()
    json_schema: str = ""


@dataclass(frozen=True)
class Scored:
    """Answer to :class:`Score`.

    Attributes:
        logprobs: natural logarithms, one a continuation: the sum over its tokens, its end not included.
        tokens: number of tokens of each continuation.
        prompt_tokens: tokens of the prompt as read.
        cut_tokens: prompt tokens left out because the context is too short.
        dropped_shots: worked examples left out for the same reason.
        is_merged: the tokenizer merged the prompt's end with a continuation's start; the joint tokens were scored.
        has_prefix_pair: one continuation begins with all tokens of another, which can only be likelier: nothing
            says that it ends there.
    """

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]
    prompt_tokens: int
    cut_tokens: int = 0
    dropped_shots: int = 0
    is_merged: bool = False
    has_prefix_pair: bool = False

    @property
    def margin(self) -> float:
        """The best log-probability minus the second best: infinite where there is one continuation only.

        A decision whose margin is below the rounding of the number format (about 1e-4 in float32, 0.1 in bfloat16)
        may fall the other way on another machine.
        """
        ranked = sorted(self.logprobs, reverse=True)
        return ranked[0] - ranked[1] if len(ranked) > 1 else float("inf")


@dataclass(frozen=True)
class Generated:
    """Answer to :class:`Generate`.

    Attributes:
        text: without the end marker and without the stop text.
        finish: ``end`` (the model ended, or nothing may follow), ``stop`` (a stop text came) or ``length``.
        logprob: sum over the generated tokens, natural logarithm, under the model at temperature 1, with no token
            left out, whatever the request allows.
        tokens: number of generated tokens, the end marker included.
    """

    text: str
    finish: Literal["end", "stop", "length"]
    logprob: float
    tokens: int
    prompt_tokens: int
    cut_tokens: int = 0
    dropped_shots: int = 0


Request = Score | Generate
Response = Scored | Generated


class Engine(Protocol):
    """Answers requests; batching is its own business."""

    @property
    def work(self) -> Work:
        """Everything this engine has computed so far."""
        ...

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order. The answers do not depend on their order or number.

        Raises:
            EngineError: a request cannot be answered (empty continuation, nothing left of the context, NaN).
        """
        ...
