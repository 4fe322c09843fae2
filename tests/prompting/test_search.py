"""Prompt search: what it finds, what it asks, and what it never looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskfit.errors import ConfigError
from taskfit.prompting.search import INSTRUCTIONS, PromptSearch, _most_candidates, _rounds
from taskfit.strategy.contract import Budget
from taskfit.strategy.run_program import run_programs
from taskfit.testing import FakeEngine, generated, scored
from tests.strategy.small_tasks import small_task

_FITS = {"good": ("great", "warm", "bright"), "bad": ("awful", "cold", "dull"), "odd": ("strange", "queer", "weird")}
_MAGIC = INSTRUCTIONS["classification"][1]


def _respond(request):
    """Right in the second wording under the magic instruction with examples; half right in the second wording."""
    prompt, said = request.prompt, []
    is_second, is_magic = prompt.text.startswith("What"), prompt.system == _MAGIC and bool(prompt.shots)
    for text in request.continuations:
        right = any(f" {word} " in prompt.text for word in _FITS[text])
        said.append(-1.0 - (3.0 if is_second and is_magic else 0.0) * (not right) - (text != "good") * 0.1)
    return scored(request, said)


def _search(task, respond=_respond, wall_s=None, **parameters):
    program, said = PromptSearch(**parameters), []
    engine = FakeEngine(respond)
    prepared = program.prepare(task, seed=0)
    found = program.choose(prepared, task, engine, seed=0, budget=Budget(wall_s=wall_s, say=lambda s: said.append(s)))
    return found, engine, said


@pytest.mark.parametrize("budget", [200, 400])
def test_the_best_prompt_is_found_within_the_budget(budget):
    """Of 24 candidates the one that works; no more rows are asked than allowed."""
    task = small_task("classification", train=9, validation=60, test=9)
    found, engine, said = _search(task, budget=budget)
    assert found.found.wording == 1
    assert found.found.system == _MAGIC
    assert found.found.examples.shots
    assert len(engine.requests) <= budget
    assert found.tried[0].score == 1.0
    assert "of " in said[1] and "wording 1" in said[1] and "standard deviation" in said[0]
    outcomes = run_programs(task.definition, found, task.test, engine)
    assert all(o.answer.answer in task.definition.gold(r) for o, r in zip(outcomes, task.test, strict=True))
    restored = PromptSearch().restore(found.to_json())
    assert restored == found
    assert restored.prompt(task.definition, task.test[0]).system == _MAGIC


def test_test_rows_are_never_read():
    """Their fields raise when anybody looks; nothing of them is in any prompt."""

    class Closed(dict):
        def __getitem__(self, name):
            raise AssertionError(f"test row read: {name}")

        keys = items = values = __iter__ = __getitem__

    task = small_task("classification", validation=20)
    closed = tuple(replace(row, fields=Closed(row.fields)) for row in task.test)
    found, engine, _ = _search(replace(task, splits={**task.splits, "test": closed}))
    validation = {task.definition.prompt_text(row, wording) for row in task.validation for wording in (0, 1)}
    assert {request.prompt.text for request in engine.requests} <= validation
    assert found.candidates == ()


def test_later_rounds_go_to_better_prompts():
    """Half of the candidates go each time; those that stay are asked more rows, the same ones for all."""
    task = small_task("classification", validation=60)
    found, _, _ = _search(task, budget=300)
    rows = sorted({one.rows for one in found.tried})
    assert len(rows) > 2
    assert sum(one.rows == rows[0] for one in found.tried) >= len(found.tried) // 2
    assert [one.rows for one in found.tried] == sorted((one.rows for one in found.tried), reverse=True)


def test_equal_prompts_leave_the_plainest():
    """Where nothing helps: no instruction, no examples, the first wording."""
    task = small_task("classification", validation=30)
    found, _, _ = _search(task, respond=lambda r: scored(r, [-1.0] * len(r.continuations)))
    assert (found.wording, found.found.system, found.found.examples.shots) == (0, None, ())


def test_time_that_is_up_ends_the_search_with_what_it_has():
    """After the first round: the best of it."""
    found, engine, _ = _search(small_task("classification", validation=60), wall_s=0.0, budget=300)
    assert len({one.rows for one in found.tried}) == 1
    assert found.wording == 1
    assert len(engine.requests) < 300


def test_generated_texts_are_compared_by_their_words():
    """A prompt that comes nearer to the reference wins, though no answer is exactly right."""
    task = small_task("generation", validation=30)

    def respond(request):
        near = "the film is" if request.prompt.text.startswith("What") else "no idea"
        return generated(request, near)

    found, _, _ = _search(task, respond=respond, k=0)
    assert found.wording == 1
    assert 0.5 < found.tried[0].score < 1
    assert all(one.draw == 0 for one in found.tried)


def test_the_tasks_own_instruction_is_tried_where_the_wording_lacks_it():
    """As a system text, besides none and the general ones."""
    task = small_task("classification")
    task = replace(task, definition=replace(task.definition, instruction="Judge the film."))
    systems = {one.shots.system for one in PromptSearch(k=0, budget=5000).prepare(task, seed=0).candidates}
    assert systems == {None, "Judge the film.", *INSTRUCTIONS["classification"]}


def test_more_candidates_than_the_budget_bears_are_drawn_by_the_seed():
    """The plainest always stays; every one gets four rows in the first round at least."""
    task = small_task("classification", validation=60)
    few = PromptSearch(budget=40).prepare(task, seed=0)
    assert len(few.candidates) < len(PromptSearch().prepare(task, seed=0).candidates)
    assert few.candidates[0].shots == few.found
    for budget in (8, 40, 500):
        most = _most_candidates(budget)
        assert most * _rounds(most) * 4 <= budget or most == 2
    with pytest.raises(ConfigError, match="prompt-search needs k=20"):
        PromptSearch(k=20).prepare(task, seed=0)
