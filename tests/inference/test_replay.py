"""Recorded answers come back as they were, and nothing else does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import EngineError
from taskfit.inference.replay import Recorder, ReplayEngine, read_recording
from taskfit.inference.request_json import (
    request_from_json,
    request_key,
    request_to_json,
    response_from_json,
    response_to_json,
)
from taskfit.inference.requests import Generate, Generated, Request, Response, Score, Scored
from taskfit.models.work import Work
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import FakeEngine, generated, scored

TEXT = st.text(st.characters(codec=None), max_size=12)  # half surrogates too: rows hold what they hold
PROMPTS = st.builds(Prompt, TEXT, st.lists(st.builds(Shot, TEXT, TEXT), max_size=2).map(tuple), st.none() | TEXT)
SCORES = st.builds(Score, PROMPTS, st.lists(TEXT, min_size=1, max_size=3).map(tuple))
GENERATES = st.builds(
    Generate,
    PROMPTS,
    st.integers(1, 50),
    st.lists(TEXT, max_size=2).map(tuple),
    st.floats(0, 2),
    st.floats(0.1, 1),
    st.integers(0, 2**40),
)
COUNT = st.integers(0, 10**6)
GENERATED = st.builds(
    Generated, TEXT, st.sampled_from(["end", "stop", "length"]), st.floats(), COUNT, COUNT, COUNT, COUNT
)
CALM = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
PROMPT = Prompt("Two and two?", (Shot("One and one?", "two"),), "Be brief.")


def _answer(request: Request) -> Response:
    if isinstance(request, Score):
        return scored(request, [-float(len(text)) for text in request.continuations])
    return generated(request, f"{request.seed} to {request.prompt.text}")


@CALM
@given(SCORES | GENERATES)
def test_a_request_survives_json(request: Request) -> None:
    values = json.loads(json.dumps(request_to_json(request), allow_nan=False))
    assert request_from_json(values) == request
    assert request_key(request_from_json(values)) == request_key(request)


@CALM
@given(SCORES | GENERATES, SCORES | GENERATES)
def test_two_requests_share_a_key_only_when_they_are_equal(one: Request, other: Request) -> None:
    assert (request_key(one) == request_key(other)) == (one == other)


@CALM
@given(st.builds(Scored, st.just((-0.5, -math.inf)), st.just((1, 2)), COUNT, COUNT, COUNT, st.booleans()) | GENERATED)
def test_a_response_survives_json(response: Response) -> None:
    values = json.loads(json.dumps(response_to_json(response), allow_nan=False))
    assert repr(response_from_json(values)) == repr(response)  # NaN is not equal to itself


def test_where_a_text_stands_in_the_prompt_is_part_of_the_key() -> None:
    """Joined texts are alike; the prompts are not."""
    prompts = [
        Prompt("a b"),
        Prompt("b", (Shot("a", ""),)),
        Prompt("b", (Shot("", "a"),)),
        Prompt("b", system="a"),
        Prompt("a b", system=""),
    ]
    assert len({request_key(Score(prompt, ("x",))) for prompt in prompts}) == len(prompts)


def test_every_parameter_is_part_of_the_key() -> None:
    base = Generate(PROMPT, 8)
    others = [
        Generate(PROMPT, 9),
        Generate(PROMPT, 8, ("\n",)),
        Generate(PROMPT, 8, temperature=0.5),
        Generate(PROMPT, 8, top_p=0.5),
        Generate(PROMPT, 8, seed=1),
        Score(PROMPT, ("8",)),
        Score(PROMPT, ("8", "9")),
        Score(PROMPT, ("9", "8")),
    ]
    assert len({request_key(request) for request in [base, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (3, "JSON object"),
        ({"kind": "guess"}, "kind"),
        ({"kind": ["score"]}, "kind"),
        ({"kind": "score", "prompt": {"text": "a"}}, "continuations"),
        ({"kind": "score", "prompt": {"text": "a"}, "continuations": "ab"}, "continuations"),
        ({"kind": "score", "prompt": {"text": "a"}, "continuations": [1]}, "continuations"),
        ({"kind": "generate", "prompt": {"text": "a"}, "max_tokens": True}, "max_tokens"),
        ({"kind": "generate", "prompt": {"text": "a"}, "max_tokens": 1, "temprature": 1}, "temprature"),
        ({"kind": "generate", "prompt": {"text": 1}, "max_tokens": 1}, "text"),
        ({"kind": "generate", "prompt": {"text": "a", "system": 1}, "max_tokens": 1}, "system"),
        ({"kind": "generate", "prompt": {"text": "a", "shots": 1}, "max_tokens": 1}, "shots"),
        ({"kind": "generate", "prompt": {"text": "a", "shots": [{"question": "q"}]}, "max_tokens": 1}, "answer"),
    ],
)
def test_values_that_are_no_request_are_refused_by_name(values: object, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        request_from_json(values)


@pytest.mark.parametrize(
    "values",
    [
        None,
        {"kind": "scored", "logprobs": [-1.0], "tokens": [1, 2], "prompt_tokens": 1},
        {"kind": "scored", "logprobs": ["low"], "tokens": [1], "prompt_tokens": 1},
        {"kind": "generated", "text": "a", "finish": "bored", "logprob": 0, "tokens": 1, "prompt_tokens": 1},
    ],
)
def test_values_that_are_no_response_are_refused(values: object) -> None:
    with pytest.raises(EngineError, match="response"):
        response_from_json(values)


@settings(CALM, max_examples=25)
@given(st.lists(SCORES | GENERATES, max_size=6), st.randoms())
def test_what_was_recorded_is_replayed_in_any_order(tmp_path: Path, requests: list[Request], random: object) -> None:
    path = tmp_path / "recording.jsonl"
    path.unlink(missing_ok=True)
    recorder = Recorder(FakeEngine(_answer), path)
    assert recorder.run(requests) == [_answer(request) for request in requests]
    shuffled = [*requests, *requests]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    engine = ReplayEngine(path)
    assert engine.run(shuffled) == [_answer(request) for request in shuffled]
    assert len(engine) == len({request_key(request) for request in requests})


def test_a_recording_is_gone_on_with_and_repeats_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "recording.jsonl"
    first, second = Generate(PROMPT, 4, seed=1), Generate(PROMPT, 4, seed=2)
    Recorder(FakeEngine(_answer), path).run([first, first])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"request": {"kind": "gen')  # killed while writing
    Recorder(FakeEngine(_answer), path).run([second, first])
    assert [request for request, _ in read_recording(path)] == [first, second]


def test_work_is_what_was_billed_and_nothing_computed() -> None:
    request = Score(PROMPT, ("four", "five six"))
    engine = ReplayEngine([(request, _answer(request))])
    engine.run([request, request])
    assert engine.work == Work(prompt_tokens=6, answer_tokens=6)


def test_the_recorders_work_is_the_engines(tmp_path: Path) -> None:
    recorder = Recorder(FakeEngine(_answer), tmp_path / "r.jsonl")
    recorder.run([Score(PROMPT, ("four",))])
    assert recorder.work == Work(prompt_tokens=3, answer_tokens=1)


def test_a_request_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    known, unknown = Generate(PROMPT, 4), Generate(Prompt("x" * 200 + " the end?"), 4, seed=7)
    engine = ReplayEngine([(known, _answer(known))])
    with pytest.raises(EngineError, match=r"1 of 2 requests .* the end\?', 4 tokens, seed 7") as caught:
        engine.run([known, unknown])
    assert len(caught.value.message) < 300
    with pytest.raises(EngineError, match=r"Score\('Two and two\?', 2 continuations"):
        engine.run([Score(PROMPT, ("a", "b"))])


def test_two_answers_to_one_request_are_refused() -> None:
    request = Generate(PROMPT, 4)
    with pytest.raises(EngineError, match="two different answers"):
        ReplayEngine([(request, generated(request, "four")), (request, generated(request, "five"))])
    unknown = generated(request, "four", logprob=math.nan)
    assert len(ReplayEngine([(request, unknown), (request, unknown)])) == 1


def test_an_answer_of_the_wrong_kind_is_refused() -> None:
    score, generate = Score(PROMPT, ("a", "b")), Generate(PROMPT, 4)
    with pytest.raises(EngineError, match="no answer"):
        ReplayEngine([(score, _answer(generate))])
    with pytest.raises(EngineError, match="2 continuations"):
        ReplayEngine([(score, Scored((-1.0,), (1,), 3))])


HEADER = '{"format": 1, "recording": "taskfit"}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no recording"),
        ("hello\n", "no recording"),
        ("[1]\n", "no recording"),
        ('{"format": 2, "recording": "taskfit"}\n', "format 2"),
        (HEADER + "{}\n", "line 2"),
        (HEADER + '{"request": NaN, "response": 1}\n', "line 2: no JSON"),
        (HEADER + '{"request": {"kind": "gen', "line 2"),
        (HEADER + "[" * 100_000 + "\n", "line 2"),
        (HEADER + "\udc80", "cannot read"),
    ],
)
def test_a_damaged_recording_says_where(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_bytes(content.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(EngineError, match=words):
        ReplayEngine(path)


def test_a_recording_that_cannot_be_opened_or_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read"):
        ReplayEngine(tmp_path / "absent.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EngineError, match="cannot write"):
        Recorder(FakeEngine(_answer), tmp_path / "folder")
    foreign = tmp_path / "notes.txt"
    foreign.write_text("no newline", encoding="utf-8")
    with pytest.raises(EngineError, match="no recording"):
        Recorder(FakeEngine(_answer), foreign)
    assert foreign.read_text(encoding="utf-8") == "no newline"
    recorder = Recorder(FakeEngine(_answer), tmp_path / "gone" / "r.jsonl")
    (tmp_path / "gone" / "r.jsonl").unlink()
    (tmp_path / "gone").rmdir()
    with pytest.raises(EngineError, match="cannot write"):
        recorder.run([Generate(PROMPT, 4)])
