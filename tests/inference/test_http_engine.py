"""The HTTP engine against a real service on this machine that fails in every way on purpose."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
import traceback

import pytest

from taskfit.errors import ConfigError, EngineError, NoScoresError, ServiceError, SpendingError, TaskfitError
from taskfit.inference.http_call import Retry, _retry_after
from taskfit.inference.http_check import check_service
from taskfit.inference.http_engine import HttpEngine
from taskfit.inference.http_limits import RateLimit, Spending
from taskfit.inference.http_wire import Usage
from taskfit.inference.requests import Generate, Generated, Request, Response, Score, Scored
from taskfit.models import load
from taskfit.models.plain_text import plain_text
from taskfit.models.service import ServiceModel
from taskfit.models.work import Work
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing.service import FAULTS, FakeService, Fault, hashed_logprob

QUICK = Retry(calls=4, unreadable=2, first_s=0.001, longest_s=2.0, reply_bytes=1_000_000)


def engine_of(service: FakeService, model: str | None = None, *, retry: Retry = QUICK, **options: object) -> HttpEngine:
    loaded = load(service.name(model, **options))
    assert isinstance(loaded, ServiceModel)
    price = (options.get("usd_in"), options.get("usd_out"))
    loaded.usd_per_mtok = price if None not in price else None  # type: ignore[assignment]
    return HttpEngine(loaded, retry=retry)


def asks(number: int, **parameters: object) -> list[Request]:
    return [Generate(Prompt(f"Question {n}?"), 5, **parameters) for n in range(number)]  # type: ignore[arg-type]


def texts(responses: list[Response]) -> list[str]:
    return [response.text for response in responses if isinstance(response, Generated)]


def test_every_request_gets_its_own_answer_in_order() -> None:
    with FakeService(lambda text: f"to {text}") as service:
        engine = engine_of(service)
        assert texts(engine.run(asks(40))) == [f"to Question {n}?" for n in range(40)]
        assert engine.run([]) == []
    assert service.answered == 40
    assert engine.work == Work(*(80, 120), **_service_work(80, 120))


def _service_work(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {
        "service_prompt_tokens": tokens_in,
        "service_answer_tokens": tokens_out,
        "paid_prompt_tokens": tokens_in,
        "paid_answer_tokens": tokens_out,
    }


def test_what_is_sent_is_the_protocols() -> None:
    prompt = Prompt("Q2", (Shot("Q1", "A1"),), "Be brief.")
    with FakeService() as service:
        engine_of(service).run([Generate(prompt, 7, ("\n",), temperature=0.5, top_p=0.9, seed=3)])
        engine_of(service, style="completions").run([Generate(prompt, 7)])
    chat, plain = service.bodies
    assert chat == {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Q1"},
            {"role": "assistant", "content": "A1"},
            {"role": "user", "content": "Q2"},
        ],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["\n"],
    }
    assert plain["prompt"] == "Be brief.\n\nQ1 A1\n\nQ2"
    assert "authorization" not in service.headers[0]


def test_equal_requests_are_sent_once_and_other_seeds_are_other_requests() -> None:
    with FakeService() as service:
        requests = [*asks(2, temperature=1.0), *asks(2, temperature=1.0), *asks(1, temperature=1.0, seed=1)]
        assert len(engine_of(service).run(requests)) == 5
    assert service.answered == 3


def test_how_an_answer_ended_is_told() -> None:
    with FakeService(lambda text: "one two; three") as service:
        engine = engine_of(service)
        ended, cut, stopped = engine.run(
            [Generate(Prompt("a"), 9), Generate(Prompt("a"), 2), Generate(Prompt("a"), 9, stop=(";",))]
        )
        fifth = engine.run([Generate(Prompt("a"), 9, stop=("p", "q", "r", "s", ";"))])[0]
    assert (ended.text, ended.finish) == ("one two; three", "end")  # type: ignore[union-attr]
    assert (cut.text, cut.finish) == ("one two;", "length") or cut.finish == "length"  # type: ignore[union-attr]
    assert (stopped.text, stopped.finish) == ("one two", "stop")  # type: ignore[union-attr]
    assert (fifth.text, fifth.finish) == ("one two", "stop")  # type: ignore[union-attr]
    assert len(service.bodies[-1]["stop"]) == 4
    assert isinstance(ended, Generated) and math.isnan(ended.logprob)


@pytest.mark.parametrize("fault", ["busy", "busy, no hint", "broken", "overloaded", "reset", "slow"])
def test_passing_faults_are_got_over_and_nothing_is_paid_twice(fault: str) -> None:
    with FakeService(lambda text: f"to {text}", faults=[fault] * 3) as service:
        engine = engine_of(service)
        assert texts(engine.run(asks(6))) == [f"to Question {n}?" for n in range(6)]
    assert service.answered == 6
    assert engine.work.paid_prompt_tokens == 12
    assert len(service.bodies) == (6 if fault == "slow" else 9)


@pytest.mark.parametrize(
    "fault", ["half a body", "wrong JSON", "no object", "wrong shape", "no choice", "two choices", "deep"]
)
def test_replies_that_cannot_be_read_are_asked_for_again_twice_at_most(fault: str) -> None:
    with FakeService(lambda text: f"to {text}", faults=[fault, None, fault]) as service:
        assert texts(engine_of(service, concurrency=1).run(asks(2))) == ["to Question 0?", "to Question 1?"]
    assert len(service.bodies) == 4
    with FakeService(faults=[fault] * 9) as service, pytest.raises(ServiceError, match=r"127.0.0.1.*\(3 tries\)"):
        engine_of(service).run(asks(1))
    assert len(service.bodies) == 3


def test_retry_after_is_obeyed_by_all_calls_of_the_run() -> None:
    with FakeService(faults=[Fault(429, {"Retry-After": "0.3"})]) as service:
        started = time.monotonic()
        engine_of(service, concurrency=1).run(asks(2))
        assert time.monotonic() - started >= 0.3


def test_a_service_that_asks_for_too_long_a_wait_is_given_up() -> None:
    fault = Fault(429, {"Retry-After": "3600"})
    with FakeService(faults=[fault]) as service, pytest.raises(ServiceError, match="asks to wait 3600 s"):
        engine_of(service).run(asks(1))
    assert len(service.bodies) == 1


def test_retry_after_may_be_a_date() -> None:
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert _retry_after("Fri, 31 Dec 2999 23:59:59 GMT") > 1e9  # type: ignore[operator]
    assert _retry_after("Fri, 31 Dec 2999 23:59:59 -0000") > 1e9  # type: ignore[operator]
    assert [_retry_after(text) for text in ("1.5", "-3", "soon", "nan", "inf")] == [1.5, 0.0, None, None, None]


def test_a_service_that_never_answers_is_given_up_after_its_time() -> None:
    with FakeService(faults=["silent"] * 9) as service:
        with pytest.raises(ServiceError, match=r"did not answer within 0.1 s \(2 tries\)"):
            engine_of(service, timeout_s=0.1, retry=Retry(calls=2, first_s=0.001)).run(asks(1))
        assert len(service.bodies) == 2


def test_a_service_that_is_not_there_is_told() -> None:
    with FakeService() as service:
        engine = engine_of(service)
    with pytest.raises(ServiceError, match=r"cannot be reached \(4 tries\)"):
        engine.run(asks(1))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("huge", "more than 1000000 bytes"), ("moved", "status 307"), ("refused", r"status 400 \(on purpose\)")],
)
def test_hopeless_faults_stop_at_once(fault: str, words: str) -> None:
    with FakeService(faults=[fault]) as service, pytest.raises(ServiceError, match=words):
        engine_of(service, concurrency=1).run(asks(5))
    assert len(service.bodies) == 1


def test_a_quota_that_is_used_up_is_not_waited_for() -> None:
    fault = Fault(429, body=b'{"error": {"code": "insufficient_quota"}}')
    with FakeService(faults=[fault]) as service, pytest.raises(ServiceError, match="insufficient_quota"):
        engine_of(service).run(asks(1))
    assert len(service.bodies) == 1


def test_a_wrong_model_name_is_said_with_what_to_check() -> None:
    with FakeService() as service, pytest.raises(ServiceError, match=r"status 404 .no model absent") as caught:
        engine_of(service, "absent").run(asks(1))
    assert "'absent'" in str(caught.value.hint)


def test_a_service_that_calls_the_length_otherwise_is_asked_its_way_from_then_on() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    fault = Fault(400, body=f'{{"error": {{"message": "{words}"}}}}'.encode())
    with FakeService(faults=[fault]) as service:
        engine = engine_of(service, concurrency=1)
        assert texts(engine.run(asks(1))) == ["yes"]
        assert texts(engine.run(asks(3))) == ["yes"] * 3
    assert ["max_tokens" in body for body in service.bodies] == [True] + [False] * 4
    assert all(body["max_completion_tokens"] == 5 for body in service.bodies[1:])


def test_a_service_that_refuses_both_names_is_told_in_its_words() -> None:
    fault = Fault(400, body=b'{"error": {"message": "neither max_tokens nor max_completion_tokens"}}')
    with FakeService(faults=[fault, fault]) as service, pytest.raises(ServiceError, match="neither max_tokens nor"):
        engine_of(service, concurrency=1).run(asks(1))
    assert len(service.bodies) == 2


def test_engines_of_one_model_share_its_cap() -> None:
    with FakeService() as service:
        model = load(service.name(max_tokens=400))
        assert isinstance(model, ServiceModel)
        HttpEngine(model, retry=QUICK).run(asks(1))
        with pytest.raises(SpendingError, match="cap of 400 tokens"):
            HttpEngine(model, retry=QUICK).run(asks(200))
        assert HttpEngine(load(service.name(max_tokens=400)), retry=QUICK).run(asks(1))  # type: ignore[arg-type]


def test_what_was_answered_before_a_failure_is_kept() -> None:
    kept: list[tuple[Request, Response, Work]] = []
    with FakeService(faults=[None, None, "refused"]) as service:
        engine = engine_of(service, concurrency=1)
        engine.keep = lambda *answer: kept.append(answer)
        requests = [*asks(5), *asks(1)]
        with pytest.raises(ServiceError) as caught:
            engine.run(requests)
    assert sorted(caught.value.answers) == [0, 1, 5]
    assert [request for request, _, _ in kept] == requests[:2]
    assert sum((work for _, _, work in kept), Work()) == engine.work
    assert len(service.bodies) == 3


def test_one_answer_given_to_two_requests_is_asked_for_again() -> None:
    first: dict[str, object] = {}

    def stale(reply: dict[str, object]) -> dict[str, object]:
        return first

    def remembered(reply: dict[str, object]) -> dict[str, object]:
        first.update(reply)
        return reply

    with FakeService(lambda text: f"to {text}", faults=[Fault(change=remembered), Fault(change=stale)]) as service:
        assert texts(engine_of(service, concurrency=1).run(asks(2))) == ["to Question 0?", "to Question 1?"]
    assert len(service.bodies) == 3
    with (
        FakeService(
            lambda text: f"to {text}", faults=[Fault(change=remembered)] + [Fault(change=stale)] * 9
        ) as service,
        pytest.raises(ServiceError, match="two different requests"),
    ):
        engine_of(service, concurrency=1).run(asks(2))


def test_a_service_that_gives_all_replies_one_id_is_believed() -> None:
    with FakeService(lambda text: text[-2], ids=lambda number: "constant") as service:
        assert texts(engine_of(service, concurrency=1).run(asks(3))) == ["0", "1", "2"]
    assert len(service.bodies) == 3


class TestKey:
    SECRET = "sk-very-secret-0123456789"

    def test_it_is_read_from_the_environment_and_appears_nowhere(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The service repeats it, logging is at its loudest, and yet."""
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("FAKE_API_KEY", self.SECRET)
        with FakeService(key=self.SECRET, faults=["reset", "busy", Fault(500)]) as service:
            good = engine_of(service, key="FAKE_API_KEY")
            good.run(asks(3))
            monkeypatch.setenv("FAKE_API_KEY", self.SECRET + "-wrong")
            bad = engine_of(service, key="FAKE_API_KEY")
            with pytest.raises(ServiceError, match=r"status 401 .wrong key \*\*\*") as caught:
                bad.run(asks(1))
            assert service.headers[-1]["authorization"] == f"Bearer {self.SECRET}-wrong"
        error = caught.value
        trace = "".join(traceback.format_exception(error))
        shown = [trace, error.message, str(error.hint), repr(error.__dict__), repr(vars(good)), repr(good), caplog.text]
        shown += [
            repr(vars(bad)),
            *capfd.readouterr(),
            str(load(service.name(key="FAKE_API_KEY"))),
            str(good.identity()),
        ]
        assert not [text for text in shown if self.SECRET in text]
        assert "FAKE_API_KEY" in str(error.hint)

    def test_without_it_nothing_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("FAKE_API_KEY", raising=False)
        with FakeService() as service:
            engine = engine_of(service, key="FAKE_API_KEY")
            with pytest.raises(ServiceError, match="is not set") as caught:
                engine.run(asks(1))
            assert "FAKE_API_KEY" in str(caught.value.hint)
            monkeypatch.setenv("FAKE_API_KEY", "two words")
            with pytest.raises(ServiceError, match="cannot be a key") as caught:
                engine.run(asks(1))
            assert "two words" not in caught.value.message
        assert service.bodies == []

    def test_a_key_in_the_environment_goes_to_no_service_that_does_not_name_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", self.SECRET)
        with FakeService() as service:
            engine_of(service).run(asks(1))
        assert "authorization" not in service.headers[0]


class TestCaps:
    def test_a_cap_in_tokens_is_never_passed_and_what_was_paid_is_kept(self) -> None:
        with FakeService(lambda text: "one two three") as service:
            engine = engine_of(service, max_tokens=400)
            with pytest.raises(SpendingError, match="cap of 400 tokens") as caught:
                engine.run(asks(500))
        spent = engine.work.paid_prompt_tokens + engine.work.paid_answer_tokens
        assert 200 <= spent <= 400
        assert len(caught.value.answers) == service.answered == spent // 5

    def test_a_cap_in_money_counts_both_ways(self) -> None:
        with FakeService(lambda text: "one two three") as service:
            engine = engine_of(service, max_usd=0.0004, usd_in=1.0, usd_out=2.0)
            with pytest.raises(SpendingError, match=r"cap of 0\.0004 USD"):
                engine.run(asks(500))
            work = engine.work
        assert engine.spent_usd == pytest.approx((work.paid_prompt_tokens + 2 * work.paid_answer_tokens) / 1e6)
        assert 0.0002 < engine.spent_usd <= 0.0004

    def test_the_cap_holds_over_several_calls(self) -> None:
        with FakeService() as service:
            engine = engine_of(service, max_tokens=170)
            with pytest.raises(SpendingError):
                for _ in range(100):
                    engine.run(asks(1))
        assert engine.work.prompt_tokens + engine.work.answer_tokens <= 170

    def test_a_lost_answer_counts_as_the_most_it_could_cost(self) -> None:
        with FakeService(faults=["half a body"]) as service:
            engine = engine_of(service, usd_in=1.0, usd_out=1.0)
            engine.run(asks(1))
        assert engine.spent_usd > 10 * (engine.work.paid_prompt_tokens + engine.work.paid_answer_tokens) / 1e6

    def test_a_cap_in_money_needs_a_price(self) -> None:
        with pytest.raises(ConfigError, match="needs a price"):
            HttpEngine(ServiceModel("http://localhost/v1?max_usd=1#m"))

    def test_usage_that_the_service_does_not_tell_is_guessed(self) -> None:
        def silent(reply: dict[str, object]) -> dict[str, object]:
            return reply | {"usage": {"prompt_tokens": -5}}

        with FakeService(faults=[Fault(change=silent)]) as service:
            engine = engine_of(service)
            engine.run(asks(1))
        assert engine.work.paid_prompt_tokens > 10

    def test_the_ledger_adds_up(self) -> None:
        spending = Spending(usd_in=1.0, usd_out=2.0)
        spending.reserve(Usage(100, 10))
        spending.settle(Usage(100, 10), Usage(50, 5))
        assert (spending.usd, spending.tokens) == (pytest.approx(60e-6), 55)


class TestRateLimit:
    @staticmethod
    def passed(requests: int | None, tokens: int | None, sizes: list[int]) -> list[float]:
        """The times at which calls pass, by a clock that only waiting moves."""
        now = [0.0]

        async def sleep(seconds: float) -> None:
            now[0] += seconds

        async def run() -> list[float]:
            limit, lock = RateLimit(requests, tokens, clock=lambda: now[0], sleep=sleep), asyncio.Lock()
            times = []
            for size in sizes:
                await limit.wait(size, lock)
                times.append(now[0])
            return times

        return asyncio.run(run())

    def test_no_minute_holds_more_calls_than_allowed(self) -> None:
        assert self.passed(2, None, [1] * 5) == [0, 0, 60, 60, 120]

    def test_no_minute_holds_more_tokens_than_allowed(self) -> None:
        assert self.passed(None, 100, [60, 40, 30, 500, 1]) == [0, 0, 60, 120, 180]

    def test_without_limits_nothing_waits(self) -> None:
        assert self.passed(None, None, [10**6] * 5) == [0] * 5


class TestScores:
    QUESTION = Prompt("Is it good?")

    def test_echo_sums_the_logprobs_of_each_continuation(self) -> None:
        request = Score(self.QUESTION, ("yes", "no", "not at all"))
        with FakeService(logprob=hashed_logprob) as service:
            (answer,) = engine_of(service, style="completions").run([request])
        assert isinstance(answer, Scored)
        for text, logprob, tokens in zip(request.continuations, answer.logprobs, answer.tokens, strict=True):
            before, expected = plain_text(request.prompt), 0.0
            for word in text.split():
                expected += hashed_logprob(before, f" {word}")
                before += f" {word}"
            assert logprob == pytest.approx(expected)
            assert tokens == len(text.split())
        assert answer.prompt_tokens == 3 and not answer.is_merged

    def test_a_token_over_the_seam_counts_whole_for_all_continuations(self) -> None:
        request = Score(Prompt("Is it good? "), ("yes", "no"))  # the space belongs to the word after it
        with FakeService(logprob=hashed_logprob) as service:
            (answer,) = engine_of(service, style="completions").run([request])
        assert isinstance(answer, Scored) and answer.is_merged
        before = "Is it good?"
        assert answer.logprobs == (hashed_logprob(before, " yes"), hashed_logprob(before, " no"))
        assert answer.prompt_tokens == 3

    def test_top_logprobs_score_single_tokens(self) -> None:
        for style in ("chat", "completions"):
            with FakeService(logprob=lambda before, token: {"yes": -0.5, "no": -1.5}.get(token, -9.0)) as service:
                (answer,) = engine_of(service, style=style, scores="top").run([Score(self.QUESTION, ("no", "yes"))])
            assert isinstance(answer, Scored)
            assert answer.logprobs == (-1.5, -0.5)
            assert answer.tokens == (1, 1)

    def test_a_label_that_is_not_listed_has_a_bound_below_the_likeliest(self) -> None:
        with FakeService(logprob=lambda before, token: {"yes": -0.5}.get(token, -9.0)) as service:
            (answer,) = engine_of(service).run([Score(self.QUESTION, ("yes", "zebra"))])
        assert isinstance(answer, Scored) and answer.logprobs == (-0.5, -9.0)

    @pytest.mark.parametrize("labels", [("zebra", "lion"), ("yes", "no doubt"), ("positively", "yes")])
    def test_labels_that_top_logprobs_cannot_tell_apart_are_refused(self, labels: tuple[str, ...]) -> None:
        known = {"yes": -2.0, "no": -1.0, "positive": -1.5}
        with (
            FakeService(logprob=lambda before, token: known.get(token, -9.0)) as service,
            pytest.raises(NoScoresError, match="cannot be scored"),
        ):
            engine_of(service).run([Score(self.QUESTION, labels)])

    @pytest.mark.parametrize("style", ["chat", "completions"])
    def test_a_service_without_log_probabilities_says_so_after_one_row(self, style: str) -> None:
        with FakeService() as service, pytest.raises(NoScoresError, match="offers no log-probabilities"):
            engine_of(service, style=style).run([Score(Prompt(f"{n}?"), ("a", "b")) for n in range(50)])
        assert len(service.bodies) <= 4

    def test_a_service_that_refuses_to_echo_is_asked_for_first_tokens(self) -> None:
        with FakeService(logprob=lambda b, t: {"yes": -0.5}.get(t, -9.0), faults=["refused"]) as service:
            engine = engine_of(service, style="completions")
            answers = engine.run([Score(Prompt(f"{n}?"), ("yes", "no")) for n in range(5)])
        assert all(isinstance(answer, Scored) and answer.logprobs == (-0.5, -9.0) for answer in answers)
        assert len(service.bodies) == 6

    def test_scoring_can_be_switched_off(self) -> None:
        with FakeService(logprob=hashed_logprob) as service, pytest.raises(NoScoresError, match="scores=none"):
            engine_of(service, scores="none").run([Score(self.QUESTION, ("a",))])

    def test_another_fault_is_not_taken_for_missing_scores(self) -> None:
        with FakeService(faults=[Fault(401)] * 3) as service, pytest.raises(ServiceError, match="401"):
            engine_of(service).run([Score(self.QUESTION, ("a",))])

    @pytest.mark.parametrize(
        "logprobs",
        [
            {"tokens": ["Is"], "token_logprobs": [None, -1.0]},
            {"tokens": [1, 2], "token_logprobs": [None, -1.0]},
            {"tokens": ["Is it good? yes"], "token_logprobs": ["low"]},
            {"tokens": ["Something else altogether."], "token_logprobs": [None]},
        ],
    )
    def test_an_echo_of_the_wrong_form_is_refused(self, logprobs: dict[str, object]) -> None:
        def wrong(reply: dict[str, object]) -> dict[str, object]:
            return reply | {"choices": [{"text": "x", "logprobs": logprobs}]}

        with FakeService(faults=[Fault(change=wrong)] * 9) as service, pytest.raises(ServiceError, match="3 tries"):
            engine_of(service, style="completions", scores="echo").run([Score(self.QUESTION, ("yes",))])

    @pytest.mark.parametrize(
        "logprobs",
        [{"tokens": ["Is"], "token_logprobs": [None]}, {"tokens": ["Is it good? yes"], "token_logprobs": [None]}],
    )
    def test_an_echo_without_the_continuations_scores_is_no_score(self, logprobs: dict[str, object]) -> None:
        def short(reply: dict[str, object]) -> dict[str, object]:
            return reply | {"choices": [{"text": "x", "logprobs": logprobs}]}

        with FakeService(faults=[Fault(change=short)] * 9) as service, pytest.raises(NoScoresError):
            engine_of(service, style="completions", scores="echo").run([Score(self.QUESTION, ("yes",))])


def test_worked_examples_go_first_where_the_service_finds_the_prompt_too_long() -> None:
    shots = tuple(Shot(f"q{n} " * 3, f"a{n}") for n in range(8))
    with FakeService(context=70) as service:
        engine = engine_of(service)
        (answer,) = engine.run([Generate(Prompt("the end", shots), 5)])
        left = len(service.bodies[-1]["messages"]) // 2
        assert answer.dropped_shots == 8 - left == engine.work.dropped_shots > 0
        assert service.bodies[-1]["messages"][0]["content"] == f"q{8 - left} " * 3
        with pytest.raises(ServiceError, match="maximum context length"):
            engine.run([Generate(Prompt("word " * 80), 5)])


def test_a_loop_that_runs_already_is_no_obstacle() -> None:
    """As in a notebook."""

    async def cell(engine: HttpEngine) -> list[str]:
        return texts(engine.run(asks(2)))

    with FakeService() as service:
        assert asyncio.run(cell(engine_of(service))) == ["yes", "yes"]


@pytest.mark.parametrize(
    "request_",
    [
        Score(Prompt("a"), ()),
        Score(Prompt("a"), ("b", "")),
        Score(Prompt("a"), ("b", "b")),
        Generate(Prompt("a"), 0),
        Generate(Prompt("a"), 1, stop=("",)),
    ],
)
def test_requests_that_ask_for_nothing_are_refused_unsent(request_: Request) -> None:
    with FakeService() as service, pytest.raises(EngineError):
        engine_of(service).run([request_])
    assert service.bodies == []


def test_an_answer_without_text_is_empty_and_other_kinds_are_refused() -> None:
    def content(value: object) -> Fault:
        return Fault(change=lambda reply: reply | {"choices": [{"message": {"content": value}}]})

    with FakeService(faults=[content(None)]) as service:
        assert texts(engine_of(service).run(asks(1))) == [""]
    with FakeService(faults=[content(5)] * 3) as service, pytest.raises(ServiceError, match="no text"):
        engine_of(service).run(asks(1))


def test_every_named_fault_is_an_error_of_ours_or_no_error() -> None:
    """Whatever a service does, a user never sees a bug's traceback."""
    for name in FAULTS:
        with FakeService(faults=[name] * 9) as service:
            try:
                engine_of(service, timeout_s=0.5, retry=Retry(calls=2, first_s=0.001)).run(asks(1))
            except TaskfitError as error:
                assert re.search(r"127\.0\.0\.1", error.message), name


def test_a_reply_that_is_packed_wrongly_is_asked_for_again() -> None:
    packed = Fault(headers={"Content-Encoding": "gzip"}, body=b"not packed at all")
    with FakeService(lambda text: "yes", faults=[packed]) as service:
        assert texts(engine_of(service).run(asks(1))) == ["yes"]
    with FakeService(lambda text: "yes", faults=[packed] * 9) as service:
        with pytest.raises(ServiceError, match="cannot be unpacked"):
            engine_of(service).run(asks(1))
        assert len(service.bodies) == 1 + QUICK.unreadable


def test_a_host_that_cannot_be_one_is_one_line() -> None:
    model = ServiceModel("http://ex\u00e4%mple.localhost/v1#m")
    for ask in (lambda: HttpEngine(model, retry=QUICK).run(asks(1)), lambda: check_service(model.service)):
        with pytest.raises(ServiceError, match=r"no host that can be asked|cannot be reached"):
            ask()
