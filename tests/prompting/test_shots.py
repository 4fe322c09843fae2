"""Zero-shot and few-shot: which examples, which prompt, which answer."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, EngineError
from taskfit.inference.requests import Generate, Score, Scored
from taskfit.prompting.demonstrations import choose_demonstrations, draw_balanced
from taskfit.prompting.options import likeliest_option, option_probabilities
from taskfit.prompting.shots import FewShot, PreparedShots, ZeroShot
from taskfit.strategy.run_program import run_programs
from taskfit.tasks.prompt import Shot
from taskfit.tasks.task import Option, Row
from taskfit.testing import FakeEngine, generated
from tests.strategy.small_tasks import small_task

KINDS = ["classification", "choice", "generation"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(0, 5), st.sampled_from(KINDS), st.sampled_from(["balanced", "random"]), st.randoms()
)
def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows(k, seed, kind, select, random):
    """Different training rows, the same ones however the rows were sorted."""
    task = small_task(kind, train=12)
    rows = list(task.train)
    chosen = choose_demonstrations(task.definition, rows, k, select, seed)
    random.shuffle(rows)
    assert choose_demonstrations(task.definition, rows, k, select, seed) == chosen
    assert len({row.id for row in chosen}) == k
    assert all(row in task.train for row in chosen)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 20))
def test_balanced_examples_differ_by_one_at_most_between_labels(k, seed):
    """12 rows of three labels: each label k/3 times, rounded up or down."""
    task = small_task("classification", train=12)
    counts = Counter(
        row.fields["label"] for row in choose_demonstrations(task.definition, task.train, k, "balanced", seed)
    )
    assert sum(counts.values()) == k
    assert max(counts.values()) - min(counts[label] for label in task.definition.labels) <= 1


def test_balance_over_places_of_the_right_option():
    """For choice, no place is right more often than another if that can be helped."""
    task = small_task("choice", train=12)
    rows = choose_demonstrations(task.definition, task.train, 6, "balanced", 0)
    places = Counter(row.fields["options"].index(row.fields["label"]) for row in rows)
    assert set(places.values()) == {2}


def test_a_rare_label_takes_its_turn_until_it_has_no_rows():
    """With a label of one row, the others fill up."""
    rows = [Row(f"{number}", {"label": "rare" if number == 0 else "common"}) for number in range(6)]
    for seed in range(9):
        counts = Counter(row.fields["label"] for row in draw_balanced(rows, 4, seed, lambda row: row.fields["label"]))
        assert counts == {"rare": 1, "common": 3}


def test_seeds_draw_different_examples_in_different_orders():
    """Twenty seeds: every row is drawn by some seed, and first by more than one row."""
    task = small_task("classification", train=9)
    drawn = [choose_demonstrations(task.definition, task.train, 3, "balanced", seed) for seed in range(20)]
    assert {row.id for rows in drawn for row in rows} == {row.id for row in task.train}
    assert len({rows[0].fields["label"] for rows in drawn}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_examples_use_the_wording_of_the_question(kind):
    """Question and examples are put alike; the examples' answers are the training targets."""
    task = small_task(kind)
    prepared = FewShot(k=3, wording=1).prepare(task, seed=0)
    prompt = prepared.prompt(task.definition, task.test[0])
    assert prompt.text == task.definition.prompt_text(task.test[0], 1)
    pairs = {(task.definition.prompt_text(row, 1), task.definition.target_text(row, 1)) for row in task.train}
    assert {(shot.question, shot.answer) for shot in prompt.shots} <= pairs
    assert len(prompt.shots) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_row_never_sees_its_own_answer(kind):
    """An example that asks the same question is left out, alone."""
    task = small_task(kind)
    prepared = FewShot(k=9).prepare(task, seed=0)
    for row in task.train:
        prompt = prepared.prompt(task.definition, row)
        assert len(prompt.shots) == 8
        assert prompt.text not in {shot.question for shot in prompt.shots}


def test_zero_shot_has_no_examples_and_few_shot_of_all_kinds_goes_through_json():
    """What to_json gives, restore takes."""
    task = small_task("choice")
    zero = ZeroShot(wording=1).prepare(task, seed=0)
    assert zero.prompt(task.definition, task.test[0]).shots == ()
    few = FewShot(k=2, normalise="sum").prepare(task, seed=0)
    assert FewShot().restore(few.to_json()) == few
    assert ZeroShot().restore(zero.to_json()) == zero


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: FewShot(k=10), "needs k=10 training rows"),
        (lambda: FewShot(k=1, wording=2), "between 0 and 1"),
        (lambda: ZeroShot(wording=2), "between 0 and 1"),
        (lambda: ZeroShot(wording=-1), "wording must be at least 0"),
        (lambda: FewShot(k=0, select="best"), "2 faults"),
    ],
)
def test_what_cannot_be_prepared_is_a_config_error(program, message):
    """More examples than rows, or a wording the task lacks."""
    with pytest.raises(ConfigError, match=message):
        program().prepare(small_task("classification"), seed=0)


def _ask(prepared, kind, respond, rows=1):
    task = small_task(kind)
    engine = FakeEngine(respond)
    return run_programs(task.definition, prepared, task.test[:rows], engine), engine.requests, task


def test_labels_are_scored_by_the_sum_and_options_by_the_mean():
    """The same numbers: the sum prefers the short label, the mean the long one."""

    def respond(request):
        return Scored((-1.0, -1.5, -9.0), (1, 3, 1), prompt_tokens=1)

    prepared = PreparedShots(0, "auto", ())
    [label], [request], task = _ask(prepared, "classification", respond)
    assert isinstance(request, Score)
    assert request.continuations == task.definition.labels
    assert label.answer.answer == task.definition.labels[0]
    [option], [request], task = _ask(prepared, "choice", respond)
    assert option.answer.answer == task.definition.options(task.test[0])[1].value
    [forced], _, _ = _ask(replace(prepared, normalise="sum"), "choice", respond)
    assert forced.answer.answer == task.definition.options(task.test[0])[0].value


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-800, -1e-3), st.integers(1, 9)), min_size=1, max_size=6),
    st.sampled_from(["sum", "mean"]),
)
def test_probabilities_are_the_softmax_of_the_scores(pairs, normalise):
    """Equal to the formula in floats, whatever the size of the numbers; they sum to 1."""
    logprobs, tokens = zip(*pairs, strict=True)
    found = option_probabilities(logprobs, tokens, normalise)
    scores = [x / n if normalise == "mean" else x for x, n in pairs]
    expected = [1 / math.fsum(math.exp(min(other - score, 700)) for other in scores) for score in scores]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert math.fsum(found) == pytest.approx(1)


@pytest.mark.parametrize("logprobs", [(math.nan, -1.0), (-math.inf, -math.inf)])
def test_scores_that_are_no_numbers_are_refused(logprobs):
    """NaN never becomes the first label."""
    with pytest.raises(EngineError, match="must be finite"):
        option_probabilities(logprobs, (1, 1), "sum")


def test_the_first_of_equal_options_is_taken():
    """Ties do not depend on anything but the order of the options."""
    answer = likeliest_option([Option("b", "B"), Option("a", "A")], Scored((-1.0, -1.0), (1, 1), 1), "choice", "sum")
    assert answer.answer == "b"
    assert answer.probabilities == {"b": 0.5, "a": 0.5}


def test_generation_is_greedy_and_stripped():
    """One request, at temperature 0, as long as the task allows."""
    [outcome], [request], _ = _ask(PreparedShots(0, "auto", ()), "generation", lambda r: generated(r, "  two words\n"))
    assert outcome.answer.answer == "two words"
    assert outcome.answer.probabilities is None
    assert isinstance(request, Generate)
    assert (request.temperature, request.max_tokens, request.stop) == (0.0, 4, ())


def test_an_empty_text_is_no_answer():
    """It is marked, so that it is scored as wrong and never dropped."""
    [outcome], _, _ = _ask(PreparedShots(0, "auto", ()), "generation", lambda r: generated(r, " \n"))
    assert outcome.answer.answer == ""
    assert not outcome.answer.is_parsed


@pytest.mark.parametrize(("answer", "stop"), [("one line", ("\n\n",)), ("two\n\nparts", ())])
def test_a_blank_line_ends_the_answer_where_no_example_holds_one(answer, stop):
    """Examples show what an answer looks like; one with a blank line forbids the stop."""
    prepared = PreparedShots(0, "auto", (Shot("q1", "short"), Shot("q2", answer)))
    _, [request], _ = _ask(prepared, "generation", lambda r: generated(r, "x"))
    assert request.stop == stop
