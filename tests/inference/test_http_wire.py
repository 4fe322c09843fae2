"""Bodies and replies of the protocol, where no service is needed to see what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from taskfit.errors import NoScoresError
from taskfit.inference.http_wire import ReplyError, Usage, generate_body, read_generated, read_top, read_usage
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


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"total_tokens": 300},
        {"prompt_tokens": 300},
        {"input_tokens": 300, "output_tokens": 5},
        {"prompt_tokens": 10**400, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
    ],
)
def test_usage_that_does_not_say_both_counts_is_none(usage: dict[str, object]) -> None:
    """Counted as nothing, a call would be free, and no cap be reached."""
    assert read_usage({"usage": usage}) is None
    assert read_usage({"usage": usage | {"prompt_tokens": 3, "completion_tokens": 0}}) == Usage(3, 0)


def test_a_choice_nested_without_end_stays_as_it_was_written() -> None:
    request = Constrained(Prompt("a"), 5, choices=("yes", "no"))
    assert read_generated(request, reply("[" * 100_000), Usage()).text == "[" * 100_000


def test_a_logprob_too_large_for_a_float_is_none() -> None:
    entries = [{"token": "yes", "logprob": -(10**400)}, {"token": "no", "logprob": -1}]
    answer = {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}
    assert read_top(Score(Prompt("a"), ("no",)), answer, Usage()).logprobs == (-1.0,)
