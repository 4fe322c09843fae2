"""Bodies and replies of the protocol, where no service is needed to see what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from taskfit.errors import NoScoresError
from taskfit.inference.http_wire import ReplyError, Usage, generate_body, read_generated, read_top
from taskfit.inference.requests import Generate, Score
from taskfit.models.service import Service
from taskfit.tasks.prompt import Prompt

SERVICE = Service("http://localhost/v1", "m")


@dataclass(frozen=True)
class Constrained(Generate):
    """A request whose answer is constrained."""

    choices: tuple[str, ...] = ()
    json_schema: str = ""


def reply(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def test_one_of_several_texts_is_asked_for_as_an_object_and_taken_out_of_it() -> None:
    request = Constrained(Prompt("a"), 5, choices=("yes", "no"))
    schema = generate_body(SERVICE, request)["response_format"]["json_schema"]
    assert schema["schema"]["properties"]["answer"]["enum"] == ["yes", "no"]
    for text, expected in [
        ('{"answer": "no"}', "no"),
        ("no", "no"),
        ('{"reply": "no"}', '{"reply": "no"}'),
        ("3", "3"),
    ]:
        assert read_generated(request, reply(text), Usage(1, 1)).text == expected


def test_a_schema_goes_over_as_it_is() -> None:
    request = Constrained(Prompt("a"), 5, json_schema='{"type": "array"}')
    assert generate_body(SERVICE, request)["response_format"]["json_schema"]["schema"] == {"type": "array"}
    assert read_generated(request, reply("[1]"), Usage(1, 1)).text == "[1]"
    assert "response_format" not in generate_body(SERVICE, Constrained(Prompt("a"), 5))


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": [{"top_logprobs": None}]},
        {"content": [{"top_logprobs": [{"token": 1, "logprob": -1}, {"token": "a", "logprob": 5}, 3]}]},
        {"top_logprobs": [None]},
        {"top_logprobs": 3},
        {"top_logprobs": [{"a": float("nan")}]},
    ],
)
def test_lists_of_tokens_that_are_none_are_no_scores(logprobs: object) -> None:
    with pytest.raises(NoScoresError):
        read_top(Score(Prompt("a"), ("a",)), {"choices": [{"logprobs": logprobs}]}, Usage(1, 1))


def test_a_reply_without_a_list_of_choices_is_none() -> None:
    with pytest.raises(ReplyError):
        read_generated(Generate(Prompt("a"), 1), {"choices": [3]}, Usage(1, 1))
