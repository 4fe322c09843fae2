"""The loop that runs programs: waves, counts, failures."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError, EngineError
from taskfit.inference.requests import Generate, Score, Scored
from taskfit.strategy.contract import Answer
from taskfit.strategy.run_program import run_programs
from taskfit.tasks.prompt import Prompt
from taskfit.tasks.task import Row
from taskfit.testing import FakeEngine, generated, scored


@dataclass(frozen=True)
class Chain:
    """Asks as often as the row says, each time with the last answer; fails where the row says so."""

    def answer(self, definition, row):
        text = row.id
        for step in range(row.fields["steps"]):
            if row.fields.get("fails") is not None and step == row.fields["at"]:
                raise row.fields["fails"]
            response = yield Generate(Prompt(f"{text} go"), max_tokens=3)
            text = response.text
        return Answer(text)


def _engine():
    return FakeEngine(lambda request: generated(request, request.prompt.text.removesuffix(" go") + "!"))


def _rows(lengths):
    return [Row(f"r{number}", {"steps": length}) for number, length in enumerate(lengths)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12))
def test_all_rows_step_together_and_keep_their_order(lengths):
    """Wave i holds exactly the rows that ask more than i times; every row ends with its own chain's answer."""
    engine = _engine()
    outcomes = run_programs(None, Chain(), _rows(lengths), engine)
    assert [o.answer.answer for o in outcomes] == [f"r{i}" + "!" * n for i, n in enumerate(lengths)]
    assert engine.waves == [sum(n > i for n in lengths) for i in range(max(lengths, default=0))]


def test_tokens_of_all_requests_of_a_row_add_up():
    """Prompt, answer and cut tokens are sums over a row's requests, of both sorts."""

    class Both:
        def answer(self, definition, row):
            yield Generate(Prompt("one two three"), max_tokens=3)
            yield Score(Prompt("four five"), ("a b", "c"))
            return Answer("x")

    def respond(request):
        if isinstance(request, Score):
            return Scored((-1.0, -2.0), (2, 1), prompt_tokens=2, cut_tokens=5)
        return generated(request, "yes no")

    [outcome] = run_programs(None, Both(), [Row("r", {})], FakeEngine(respond))
    assert (outcome.tokens_in, outcome.tokens_out, outcome.cut_tokens) == (5, 3 + 3, 5)


@pytest.mark.parametrize("at", [0, 1])
def test_a_fault_in_a_program_names_its_row(at):
    """Our own errors keep their kind and hint, and begin with the row."""
    rows = [*_rows([1]), Row("culprit", {"steps": 2, "fails": DataError("no text", "give one"), "at": at})]
    with pytest.raises(DataError, match=r"^row culprit: no text$") as caught:
        run_programs(None, Chain(), rows, _engine())
    assert caught.value.hint == "give one"


def test_a_bug_in_a_program_keeps_its_kind_and_names_its_row():
    """Anything else is raised as it is, with a note."""
    rows = [Row("culprit", {"steps": 1, "fails": ZeroDivisionError("bug"), "at": 0})]
    with pytest.raises(ZeroDivisionError) as caught:
        run_programs(None, Chain(), rows, _engine())
    assert caught.value.__notes__ == ["in the program of row culprit"]


def test_a_program_without_an_answer_is_refused():
    """A generator that forgets its return is the author's mistake, named."""

    class Forgetful:
        def answer(self, definition, row):
            yield Generate(Prompt("?"), max_tokens=1)

    with pytest.raises(TypeError, match="row r ended without an answer"):
        run_programs(None, Forgetful(), [Row("r", {})], _engine())


def test_an_engine_that_loses_a_response_is_refused():
    """Answers are never shifted to other rows."""

    class Lossy(FakeEngine):
        def run(self, requests):
            return super().run(requests)[:-1]

    with pytest.raises(EngineError, match=r"expected 2 responses from the engine \(got 1\)"):
        run_programs(None, Chain(), _rows([1, 1]), Lossy(lambda request: generated(request, "x")))


def test_the_fake_scorer_is_counted_like_the_fake_writer():
    """Scored tokens are the sum over continuations."""
    response = scored(Score(Prompt("a b"), ("x y", "z")), (-1.0, -2.0))
    assert (response.tokens, response.prompt_tokens) == ((2, 1), 2)


def test_a_tuple_of_requests_is_one_wave_and_comes_back_as_a_tuple():
    """Rows that ask one thing and rows that ask several share a call of the engine; each gets its own answers."""

    class Several:
        def answer(self, definition, row):
            asked = tuple(Generate(Prompt(f"{row.id} {number}"), 3) for number in range(row.fields["steps"]))
            first = yield asked
            second = yield Generate(Prompt(f"{row.id} last"), 3)
            return Answer(" ".join(response.text for response in (*first, second)), raw=second.text)

    engine = FakeEngine(lambda request: generated(request, request.prompt.text.upper()))
    outcomes = run_programs(None, Several(), _rows([2, 1, 3]), engine)
    assert [o.answer.answer for o in outcomes] == ["R0 0 R0 1 R0 LAST", "R1 0 R1 LAST", "R2 0 R2 1 R2 2 R2 LAST"]
    assert [o.tokens_in for o in outcomes] == [6, 4, 8]
    assert engine.waves == [6, 3]
    assert outcomes[0].answer.raw == "R0 LAST"
