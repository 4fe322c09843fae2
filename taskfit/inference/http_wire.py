"""What goes to a service and what comes back: requests as bodies, replies as responses. No network here.

The protocol is OpenAI's, as many services speak it: chat completions, and the older completions with ``echo``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from taskfit.errors import EngineError, NoScoresError
from taskfit.inference.requests import Generate, Generated, Score, Scored
from taskfit.models.plain_text import plain_text, separator

if TYPE_CHECKING:
    from taskfit.models.service import Service
    from taskfit.tasks.prompt import Prompt

__all__ = [
    "ReplyError",
    "Usage",
    "echo_bodies",
    "first_choice",
    "generate_body",
    "path_of",
    "read_echo",
    "read_generated",
    "read_top",
    "read_usage",
    "top_body",
]

_MOST_STOPS = 4  # the protocol's limit; further stop texts are cut here
_MOST_BILLED = 10**9  # tokens of one call
_TOP_CHAT = 20
_TOP_TEXT = 5


@dataclass(frozen=True)
class Usage:
    """Tokens that a service billed."""

    prompt: int = 0
    answer: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.answer + other.answer)


class ReplyError(EngineError):
    """A reply that is no answer to what was asked."""


def path_of(service: Service) -> str:
    """Return where requests go, after the base address."""
    return "/chat/completions" if service.style == "chat" else "/completions"


def generate_body(service: Service, request: Generate) -> dict[str, Any]:
    """Return the body that asks for a text."""
    body = _asked(service, request.prompt) | {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    if request.top_p < 1:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop[:_MOST_STOPS])
    schema = _schema(request)
    if schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return body


def top_body(service: Service, request: Score) -> dict[str, Any]:
    """Return the body that asks for the likeliest first tokens of the answer.

    The temperature is 1: some services report log-probabilities as they are after dividing by it.
    """
    body = _asked(service, request.prompt) | {"max_tokens": 1, "temperature": 1.0, "seed": 0}
    if service.style == "chat":
        return body | {"logprobs": True, "top_logprobs": _TOP_CHAT}
    return body | {"logprobs": _TOP_TEXT}


def echo_bodies(service: Service, request: Score) -> list[dict[str, Any]]:
    """Return one body a continuation that asks for the log-probabilities of prompt and continuation.

    One token is generated, and thrown away: some services refuse to generate none.
    """
    text = plain_text(request.prompt)
    return [
        {
            "model": service.model,
            "prompt": text + separator(text, continuation) + continuation,
            "max_tokens": 1,
            "temperature": 1.0,
            "seed": 0,
            "echo": True,
            "logprobs": 1,
        }
        for continuation in request.continuations
    ]


def first_choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one answer of a reply.

    Raises:
        EngineError: there is none, or more than were asked for.
    """
    choices = reply.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ReplyError("the reply holds no list of choices")
    if len(choices) != 1:
        raise ReplyError(f"one answer was asked for (got {len(choices)})")
    choice: Mapping[str, Any] = choices[0]
    return choice


def read_usage(reply: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that a reply says were billed; None where it does not say both, or says what cannot be."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    counts: list[Any] = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= _MOST_BILLED for n in counts):
        return None
    return Usage(counts[0], counts[1])


def read_generated(request: Generate, reply: Mapping[str, Any], usage: Usage) -> Generated:
    """Return the response that a reply holds; its log-probability is NaN, for none was asked for.

    Raises:
        EngineError: the reply has not the protocol's form.
    """
    choice = first_choice(reply)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is None and isinstance(message, dict):
        text = ""  # refused, or cut before the first visible token
    if not isinstance(text, str):
        raise ReplyError(f"the answer is no text (got {type(text).__name__})")
    cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=None)
    finish: Literal["end", "stop", "length"] = "end"
    if cut is not None or isinstance(choice.get("stop_reason"), str):
        finish = "stop"
    elif choice.get("finish_reason") == "length":
        finish = "length"
    text = _plain_choice(request, text if cut is None else text[:cut])
    return Generated(text, finish, math.nan, tokens=usage.answer, prompt_tokens=usage.prompt)


def read_top(request: Score, reply: Mapping[str, Any], usage: Usage) -> Scored:
    """Return scores from the likeliest first tokens of the answer.

    A continuation that is one of these tokens has its log-probability. Any other has at most that of the last listed
    token, or of a listed token that it begins with; this bound is given, so that the likeliest continuation is right,
    and the others are rather too likely.

    Raises:
        NoScoresError: the reply holds no log-probabilities, or the bound is not below the likeliest continuation.
        EngineError: the reply has not the protocol's form.
    """
    listed = _listed(first_choice(reply))
    if not listed:
        raise NoScoresError("the service gives no log-probabilities of first tokens")
    least = min(listed.values())
    found = [_as_one_token(text, listed) for text in request.continuations]
    bounds = [_bound(text, listed, least) for text in request.continuations]
    best = max((score for score in found if score is not None), default=-math.inf)
    unsure = [
        text
        for text, score, bound in zip(request.continuations, found, bounds, strict=True)
        if score is None and bound >= best
    ]
    if best == -math.inf or unsure:
        raise NoScoresError(
            f"{(unsure or request.continuations)[0]!r} cannot be scored: it is not among the {len(listed)} likeliest "
            "first tokens that the service lists, or is longer than one token",
            "Word the labels as single common words, or generate the answers.",
        )
    scores = tuple(bound if score is None else score for score, bound in zip(found, bounds, strict=True))
    return Scored(scores, (1,) * len(scores), prompt_tokens=usage.prompt)


def read_echo(request: Score, replies: Sequence[Mapping[str, Any]]) -> Scored:
    """Return scores from the echoed log-probabilities of prompt and continuation, one reply a continuation.

    Where a token reaches over the end of the prompt, it counts whole, for all continuations alike, as the joint
    tokens are scored (``is_merged``).

    Raises:
        NoScoresError: the replies hold no log-probabilities of the prompt.
        EngineError: they have not the protocol's form, or echo another text.
    """
    prompt = plain_text(request.prompt)
    whole = [prompt + separator(prompt, text) + text for text in request.continuations]
    rows = [_echoed(reply, text) for reply, text in zip(replies, whole, strict=True)]
    starts = [max((at for at, _, _ in row if at <= len(prompt)), default=0) for row in rows]
    boundary = min(starts)
    scores, tokens = [], []
    for row, text in zip(rows, whole, strict=True):
        own = [logprob for at, _, logprob in row if boundary <= at < len(text)]
        if any(logprob is None for logprob in own):
            raise NoScoresError("the service gives no log-probability of the first token; the prompt is too short")
        scores.append(sum(logprob for logprob in own if logprob is not None))
        tokens.append(len(own))
    before = sum(at < boundary for at, _, _ in rows[0])
    return Scored(tuple(scores), tuple(tokens), prompt_tokens=before, is_merged=boundary < len(prompt))


def _asked(service: Service, prompt: Prompt) -> dict[str, Any]:
    if service.style == "completions":
        return {"model": service.model, "prompt": plain_text(prompt)}
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for shot in prompt.shots:
        messages.append({"role": "user", "content": shot.question})
        messages.append({"role": "assistant", "content": shot.answer})
    messages.append({"role": "user", "content": prompt.text})
    return {"model": service.model, "messages": messages}


def _schema(request: Generate) -> Any:
    """The JSON schema that the answer must satisfy; a choice of texts is wrapped, as services want an object."""
    choices = request.choices
    if choices:
        one = {"type": "string", "enum": list(choices)}
        return {"type": "object", "properties": {"answer": one}, "required": ["answer"], "additionalProperties": False}
    text = request.json_schema
    return json.loads(text) if text else None


def _plain_choice(request: Generate, text: str) -> str:
    """Take a chosen text out of the object it was asked for in; anything else stays as the model wrote it."""
    if request.choices:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(values, dict) and isinstance(values.get("answer"), str):
            return str(values["answer"])
    return text


def _listed(choice: Mapping[str, Any]) -> dict[str, float]:
    """Return the likeliest first tokens, from either form of the protocol; empty where there are none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return {}
    content = logprobs.get("content")
    if isinstance(content, list) and content and isinstance(content[0], dict):
        entries = content[0].get("top_logprobs")
        rows = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        pairs: list[tuple[Any, Any]] = [(entry.get("token"), entry.get("logprob")) for entry in rows]
    else:
        tops = logprobs.get("top_logprobs")
        first = tops[0] if isinstance(tops, list) and tops else None
        pairs = list(first.items()) if isinstance(first, dict) else []
    listed: dict[str, float] = {}
    for token, logprob in pairs:
        if isinstance(token, str) and _is_logprob(logprob):
            listed[token] = max(float(logprob), listed.get(token, -math.inf))
    return listed


def _is_logprob(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e300 <= value <= 1e-3 or value == -math.inf


def _as_one_token(text: str, listed: Mapping[str, float]) -> float | None:
    """The score of a text that is one listed token, as it stands or after a space."""
    scores = [listed[token] for token in {text, " " + text.lstrip()} if token in listed]
    return max(scores, default=None)


def _bound(text: str, listed: Mapping[str, float], least: float) -> float:
    """At most this likely is a text that is no listed token: its first token is listed, or below the last one."""
    bare = text.strip()
    begun = [score for token, score in listed.items() if bare.startswith(token.strip())]  # "" and " " begin any text
    return max([least, *begun])


def _echoed(reply: Mapping[str, Any], text: str) -> list[tuple[int, str, float | None]]:
    """Return start, token and log-probability of what is echoed; starts count from the text's own beginning."""
    logprobs = first_choice(reply).get("logprobs")
    if not isinstance(logprobs, dict):
        raise NoScoresError("the service gives no log-probabilities of the prompt")
    tokens, scores = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(scores, list) or len(tokens) != len(scores):
        raise ReplyError("tokens and token_logprobs are no lists of one length")
    if not all(isinstance(token, str) for token in tokens):
        raise ReplyError("a token is no text")
    if not all(score is None or _is_logprob(score) for score in scores):
        raise ReplyError("a log-probability is no number of at most 0")
    before = "".join(tokens).find(text)
    if before < 0:
        if len("".join(tokens)) < len(text):
            raise NoScoresError("the service does not echo the prompt")
        raise ReplyError("the service echoes another text than was sent")
    starts, at = [], -before
    for token in tokens:
        starts.append(at)
        at += len(token)
    return [(start, token, score) for start, token, score in zip(starts, tokens, scores, strict=True) if start >= 0]
