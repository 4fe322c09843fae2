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
from taskfit.prompting.calibration import Calibration
from taskfit.prompting.demonstrations import choose_demonstrations, draw_balanced
from taskfit.prompting.examples import Examples
from taskfit.prompting.options import default_unit, likeliest_option, option_scores, shares
from taskfit.prompting.shots import FewShot, PreparedShots, ZeroShot
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.run_program import run_programs
from taskfit.tasks.prompt import Shot
from taskfit.tasks.task import Option, Row
from taskfit.testing import FakeEngine, generated, scored
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
        (lambda: FewShot(answer="generate", calibrate="auto"), "about scores"),
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

    prepared = ZeroShot().prepare(small_task("classification"), seed=0)
    [label], [request], task = _ask(prepared, "classification", respond)
    assert isinstance(request, Score)
    assert request.continuations == task.definition.labels
    assert label.answer.answer == task.definition.labels[0]
    prepared = ZeroShot().prepare(small_task("choice"), seed=0)
    [option], [request], task = _ask(prepared, "choice", respond)
    assert option.answer.answer == task.definition.options(task.test[0])[1].value
    [forced], _, _ = _ask(replace(prepared, calibration=Calibration("sum")), "choice", respond)
    assert forced.answer.answer == task.definition.options(task.test[0])[0].value


OPTIONS = [Option(name, name * 3) for name in "abcdef"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-800, -1e-3), st.integers(1, 9)), min_size=1, max_size=6),
    st.sampled_from(["sum", "mean", "byte"]),
)
def test_probabilities_are_the_softmax_of_the_scores(pairs, unit):
    """Equal to the formula in floats, whatever the size of the numbers; they sum to 1."""
    logprobs, tokens = zip(*pairs, strict=True)
    found = shares(option_scores(OPTIONS[: len(pairs)], Scored(logprobs, tokens, 1), unit))
    scores = [x / {"sum": 1, "mean": n, "byte": 3}[unit] for x, n in pairs]
    expected = [1 / math.fsum(math.exp(min(other - score, 700)) for other in scores) for score in scores]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert math.fsum(found) == pytest.approx(1)


def test_bytes_are_those_of_utf_8():
    """An umlaut counts two."""
    scored = Scored((-6.0, -6.0), (1, 1), 1)
    assert option_scores([Option("a", "süß"), Option("b", "sus")], scored, "byte") == (-6 / 5, -2.0)


@pytest.mark.parametrize("logprobs", [(math.nan, -1.0), (-math.inf, -math.inf)])
def test_scores_that_are_no_numbers_are_refused(logprobs):
    """NaN never becomes the first label."""
    with pytest.raises(EngineError, match="must be finite"):
        option_scores(OPTIONS[:2], Scored(logprobs, (1, 1), 1), "sum")


def test_the_first_of_equal_options_is_taken():
    """Ties do not depend on anything but the order of the options."""
    answer = likeliest_option([Option("b", "B"), Option("a", "A")], (-1.0, -1.0))
    assert answer.answer == "b"
    assert answer.probabilities == {"b": 0.5, "a": 0.5}
    assert default_unit("choice", "auto") == "mean"
    assert default_unit("choice", "byte") == "byte"


def test_generation_is_greedy_and_stripped():
    """One request, at temperature 0, as long as the task allows."""
    [outcome], [request], _ = _ask(PreparedShots(), "generation", lambda r: generated(r, "  two words\n"))
    assert outcome.answer.answer == "two words"
    assert outcome.answer.probabilities is None
    assert isinstance(request, Generate)
    assert (request.temperature, request.max_tokens, request.stop) == (0.0, 4, ())


def test_an_empty_text_is_no_answer():
    """It is marked, so that it is scored as wrong and never dropped."""
    [outcome], _, _ = _ask(PreparedShots(), "generation", lambda r: generated(r, " \n"))
    assert outcome.answer.answer == ""
    assert not outcome.answer.is_parsed


@pytest.mark.parametrize(("answer", "stop"), [("one line", ("\n\n",)), ("two\n\nparts", ())])
def test_a_blank_line_ends_the_answer_where_no_example_holds_one(answer, stop):
    """Examples show what an answer looks like; one with a blank line forbids the stop."""
    prepared = PreparedShots(examples=Examples((Shot("q1", "short"), Shot("q2", answer)), k=2))
    _, [request], _ = _ask(prepared, "generation", lambda r: generated(r, "x"))
    assert request.stop == stop


@pytest.mark.parametrize("kind", ["classification", "choice"])
def test_a_generated_option_is_read_and_its_text_kept(kind):
    """For engines without log-probabilities: by text, by letter; what cannot be read is marked."""
    task = small_task(kind)
    row = task.test[0]
    options = task.definition.options(row)
    for text, value in ((f" {options[1].text}.\n", options[1].value), ("(C)", options[2].value), ("no idea", "")):
        [outcome], [request], _ = _ask(
            ZeroShot(answer="generate").prepare(task, seed=0), kind, lambda r, text=text: generated(r, text)
        )
        assert isinstance(request, Generate)
        assert outcome.answer.answer == value
        assert outcome.answer.raw == text.strip()
        assert outcome.answer.is_parsed == bool(value)


def test_calibration_is_for_tasks_with_options_and_batch_for_fixed_ones():
    """The plan leaves out what has no meaning, by the strategy's kinds."""
    assert parse("few-shot(calibrate=auto)").kinds == {"classification", "choice"}
    assert parse("zero-shot(calibrate=batch)").kinds == {"classification"}
    assert parse("zero-shot").kinds == {"classification", "choice", "generation"}
    with pytest.raises(ConfigError, match="solves tasks of kind classification"):
        check_fit(parse("zero-shot(calibrate=batch)"), "choice", "decoder")


@pytest.mark.parametrize(
    "program", [*(ZeroShot(calibrate=method) for method in ("pmi", "contextual", "batch", "auto")), ZeroShot(spread=5)]
)
def test_what_must_ask_rows_refuses_a_task_without_any(program):
    """A task of labels and unlabelled rows alone: there is nothing to calibrate on, and nothing to spread over."""
    task = small_task("classification")
    bare = replace(task, splits=dict.fromkeys(task.splits, ()))
    with pytest.raises(ConfigError, match="the task has none"):
        program.check(bare)
    program.check(replace(bare, splits={**bare.splits, "train": task.train}))
    ZeroShot().check(bare)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("program", "variants"), [(ZeroShot(spread=5), 2), (FewShot(k=2, spread=5), 4)])
def test_the_forecast_counts_what_the_spread_asks(program, variants, kind):
    """Two wordings, and two more draws where examples are drawn, each on five rows: they are paid for."""
    task = small_task(kind)
    engine = FakeEngine(
        lambda asked: (
            scored(asked, [-1.0] * len(asked.continuations)) if isinstance(asked, Score) else generated(asked, "x")
        )
    )
    program.choose(program.prepare(task, seed=0), task, engine, seed=0, budget=Budget())
    assert len(engine.requests) == 5 * variants
    assert program.usage(task.definition, len(task.validation)).fit_requests == len(engine.requests)
