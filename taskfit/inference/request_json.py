"""Requests and responses as plain JSON values, and the key under which a request is found again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from taskfit.errors import EngineError
from taskfit.inference.requests import Generate, Generated, Request, Response, Score, Scored
from taskfit.tasks.prompt import Prompt, Shot

__all__ = [
    "from_lossless",
    "request_from_json",
    "request_key",
    "request_to_json",
    "response_from_json",
    "response_to_json",
]

_REQUESTS: dict[str, type[Any]] = {"score": Score, "generate": Generate}
_RESPONSES: dict[str, type[Any]] = {"scored": Scored, "generated": Generated}
_known_hints: dict[type[Any], dict[str, Any]] = {}


def request_to_json(request: Request) -> dict[str, Any]:
    """Return a request as JSON values: its ``kind``, its prompt's parts, and every parameter that is no default.

    Defaults are left out, so that a request keeps its key when a later version adds a parameter.
    """
    values: dict[str, Any] = {"kind": "score" if isinstance(request, Score) else "generate"}
    for field in fields(request):
        value = getattr(request, field.name)
        if isinstance(value, Prompt):
            values["prompt"] = _without_defaults(asdict(value), Prompt)
        elif field.default is MISSING or value != field.default:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


def request_key(request: Request) -> bytes:
    """Return the SHA-256 of a request: of its prompt's structure and of all parameters, the seed included."""
    text = json.dumps(request_to_json(request), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()


def request_from_json(values: object) -> Request:
    """Build the request that ``request_to_json`` wrote.

    Raises:
        EngineError: the values are none.
    """
    given = _object(values, "a request")
    kind = _kind(given, _REQUESTS, "a request")
    rest = {name: value for name, value in given.items() if name not in ("kind", "prompt")}
    prompt = _prompt(given.get("prompt"))
    request: Request = _build(kind, rest, "a request", prompt=prompt)
    return request


def response_to_json(response: Response) -> dict[str, Any]:
    """Return a response as JSON values.

    JSON has numbers only: a log-probability that is not known (NaN) becomes null, an infinite one ``"-inf"``.
    """
    values: dict[str, Any] = {"kind": "scored" if isinstance(response, Scored) else "generated"}
    for name, value in asdict(response).items():
        values[name] = [_finite(one) for one in value] if isinstance(value, tuple) else _finite(value)
    return values


def response_from_json(values: object) -> Response:
    """Build the response that ``response_to_json`` wrote.

    Raises:
        EngineError: the values are none.
    """
    given = _object(values, "a response")
    kind = _kind(given, _RESPONSES, "a response")
    rest = {name: value for name, value in given.items() if name != "kind"}
    response: Response = _build(kind, rest, "a response")
    if isinstance(response, Scored) and len(response.logprobs) != len(response.tokens):
        raise EngineError("a response must have as many log-probabilities as token counts")
    return response


def from_lossless(text: str) -> Any:
    """Read JSON in which NaN and infinities are refused.

    Raises:
        EngineError: the text is no JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"no JSON: {error}") from None


def _finite(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _object(values: object, what: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise EngineError(f"{what} must be a JSON object (got {type(values).__name__})")
    return values


def _kind(values: Mapping[str, Any], known: Mapping[str, type[Any]], what: str) -> type[Any]:
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in known:
        raise EngineError(f"{what} must be of kind {' or '.join(known)} (got {kind!r})")
    return known[kind]


def _prompt(values: object) -> Prompt:
    given = _object(values, "a prompt")
    shots = given.get("shots", [])
    if not isinstance(shots, list):
        raise EngineError(f"a prompt's shots must be a list (got {type(shots).__name__})")
    rest = {name: value for name, value in given.items() if name != "shots"}
    built = tuple(_build(Shot, _object(shot, "a worked example"), "a worked example") for shot in shots)
    prompt: Prompt = _build(Prompt, rest, "a prompt", shots=built)
    return prompt


def _without_defaults(values: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(kind)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _build(kind: type[Any], values: Mapping[str, Any], what: str, **ready: Any) -> Any:
    """Build a dataclass from JSON values whose types are checked; ``ready`` holds fields built already."""
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind) if field.name not in ready}
    needed = {name for name, field in known.items() if field.default is MISSING}
    wrong = sorted(({*values} - {*known}) | (needed - {*values}))
    if wrong:
        raise EngineError(f"{what} has missing or unknown values: {', '.join(wrong)}")
    hints = _hints(kind)
    built = {name: _checked(value, hints[name], f"{what}: {name}") for name, value in values.items()}
    return kind(**built, **ready)


def _hints(kind: type[Any]) -> dict[str, Any]:
    if kind not in _known_hints:
        _known_hints[kind] = get_type_hints(kind, localns={"Prompt": Prompt})
    return _known_hints[kind]


def _checked(value: Any, hint: Any, what: str) -> Any:
    """Return a JSON value as the annotation wants it; only the annotations of requests and responses are known."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(one, arguments[0], what) for one in value)
    if origin is Literal and value in arguments:
        return value
    if hint is float and (value is None or value in ("inf", "-inf")):
        return math.nan if value is None else float(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(hint, type) and type(value) is hint:
        return value
    if origin not in (tuple, Literal) and value is None and type(None) in arguments:
        return None
    if origin not in (tuple, Literal) and any(type(value) is one for one in arguments):
        return value
    raise EngineError(f"{what} must be {getattr(hint, '__name__', hint)} (got {value!r:.80})")
