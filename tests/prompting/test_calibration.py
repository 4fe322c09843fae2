"""Calibration of option scores: what each method promises, and which one is chosen."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import Faults, PredictorError
from taskfit.inference.requests import Scored
from taskfit.prompting.calibrating import choose_calibration, prefix_note
from taskfit.prompting.calibration import (
    CONTENT_FREE,
    Calibration,
    ScoredRow,
    best_calibration,
    calibrated,
    calibration_from_json,
    content_free_rows,
    premise,
    prior,
)
from taskfit.prompting.options import shares
from taskfit.prompting.shots import FewShot, ZeroShot
from taskfit.strategy.contract import Budget
from taskfit.strategy.run_program import run_programs
from taskfit.tasks.task import Option
from taskfit.testing import FakeEngine, scored
from tests.strategy.small_tasks import small_task

SCORES = st.lists(st.lists(st.floats(-30, 0), min_size=3, max_size=3), min_size=1, max_size=8)
OPTIONS = (Option("a", "a"), Option("b", "bb"), Option("c", "ccc"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-30, 0), min_size=3, max_size=3))
def test_contextual_calibration_makes_a_content_free_input_uniform(scores):
    """The very input that the prior was made of comes out with equal shares; so does pmi's premise."""
    for method in ("contextual", "pmi"):
        assert shares(calibrated(scores, prior(method, [scores]))) == pytest.approx([1 / 3] * 3, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_batch_calibration_makes_mean_shares_uniform(rows):
    """The mean share of every label, divided by its prior, is 1: no label is favoured over the batch."""
    found = prior("batch", rows)
    for label in range(3):
        mean = math.fsum(shares(row)[label] for row in rows) / len(rows)
        assert mean / math.exp(found[label]) == pytest.approx(1, rel=1e-6) or mean < 1e-299


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-30, 0), min_size=3, max_size=3))
def test_none_changes_nothing(scores):
    """Sums stay sums."""
    assert Calibration().scores(OPTIONS, Scored(tuple(scores), (1, 1, 1), 1)) == tuple(scores)


@settings(max_examples=30, deadline=None)
@given(SCORES, st.floats(-20, 20))
def test_a_leaning_of_the_prompt_is_taken_off(rows, leaning):
    """Adding the same number to one label everywhere changes nothing once the prior has it too."""
    leant = [[row[0] + leaning, *row[1:]] for row in rows]
    for row, other in zip(rows, leant, strict=True):
        plain = calibrated(row, prior("pmi", [rows[0]]))
        assert shares(calibrated(other, prior("pmi", [leant[0]]))) == pytest.approx(shares(plain), abs=1e-9)


def test_an_option_that_is_impossible_after_the_premise_loses_what_the_least_likely_loses():
    """A service may say minus infinity; the scores stay numbers, and the option does not win by it."""
    never = -math.inf
    assert prior("pmi", [(-1.0, never, -3.0)]) == (-1.0, -3.0, -3.0)
    for own in ((-1.0, -2.0, -2.5), (-1.0, never, -2.5)):
        found = shares(calibrated(own, prior("pmi", [(-1.0, never, -3.0)])))
        assert sum(found) == pytest.approx(1) and max(found) == found[2 if own[1] == never else 1]


def test_the_premise_is_what_all_questions_end_with():
    """Whole lines only, and never a question as a whole."""
    assert premise(["Film: good\n\nLabel:", "Film: bad\n\nLabel:"]) == "Label:"
    assert premise(["What of a?", "What of b?"]) == ""
    assert premise(["same", "same"]) == ""
    assert premise(["x\nAnswer:", "Answer:"]) == ""


@pytest.mark.parametrize("kind", ["classification", "choice"])
def test_content_free_rows_keep_the_options(kind):
    """Texts of the row are replaced, the options stand as they are."""
    task = small_task(kind)
    row = task.test[0]
    rows = content_free_rows(task.definition, row, 0)
    assert [one.fields["text"] for one in rows] == list(CONTENT_FREE)
    assert all(task.definition.options(one) == task.definition.options(row) for one in rows)
    assert "number" not in task.definition.prompt_text(rows[0], 0)


def test_options_taken_by_row_keep_their_fields():
    """With options named as row["..."], only the input's own fields are emptied."""
    task = small_task("choice")
    wording = replace(task.definition.wordings[0], options='{{ row["options"] }}')
    definition = replace(task.definition, wordings=(wording,))
    [first, *_] = content_free_rows(definition, task.test[0], 0)
    assert first.fields["text"] == "N/A" and first.fields["label"] == task.test[0].fields["label"]


def _leaning_rows(count, lean, seed=0):
    """Rows whose right label stands out by 1 under a lean towards the first label and noise."""
    random = Random(seed)
    rows = []
    for number in range(count):
        gold = number % 3
        noise = [random.gauss(0, 0.7) for _ in range(3)]
        logprobs = tuple(-5 + noise[i] + (i == gold) * 2 + (i == 0) * lean for i in range(3))
        free = Scored((-5 + lean, -5.0, -5.0), (1, 1, 1), 1)
        rows.append(ScoredRow(OPTIONS, gold, Scored(logprobs, (1, 1, 1), 1), {"contextual": [free], "pmi": [free]}))
    return rows


def test_a_leaning_prompt_is_calibrated_and_an_even_one_left_alone():
    """Chosen by evidence: with a strong lean a method wins, without one the plain scores stay."""
    methods = ["none", "contextual", "batch", "pmi"]
    leaning = best_calibration(_leaning_rows(120, 4.0), ["sum"], methods, True)
    assert leaning.method != "none"
    assert leaning.prior is not None
    plain = next(one for one in leaning.tried if one.calibrate == "none")
    chosen = next(one for one in leaning.tried if one.calibrate == leaning.method)
    assert chosen.accuracy > plain.accuracy + 0.2 and chosen.nll < plain.nll
    assert best_calibration(_leaning_rows(120, 0.0), ["sum"], methods, True).method == "none"


def test_few_validation_rows_choose_nothing():
    """19 rows: the plain scores stay, and the table is there all the same."""
    found = best_calibration(_leaning_rows(19, 4.0), ["sum", "byte"], ["none", "batch"], True)
    assert (found.method, found.normalise) == ("none", "sum")
    assert len(found.tried) == 4


def _lean(request):
    """A model that says good of everything, and a little more so of what is good."""
    logprobs = []
    for text in request.continuations:
        fits = {"good": ("great", "warm", "bright"), "bad": ("awful", "cold", "dull"), "odd": ("strange", "queer")}
        word = next(label for label in fits if label in text)
        logprobs.append(-9 + 3.0 * ("good" in text) + any(f" {w} " in request.prompt.text[-60:] for w in fits[word]))
    return scored(request, logprobs)


@pytest.mark.parametrize("method", ["pmi", "contextual", "batch", "auto"])
@pytest.mark.parametrize("program", [ZeroShot, FewShot])
def test_calibration_is_asked_for_once_and_turns_the_answers(method, program):
    """A model that always says good is right once its leaning is off; priors take few requests, rows one each."""
    task = small_task("classification", validation=45, test=30)
    engine = FakeEngine(_lean)
    strategy, lines = program(calibrate=method), []
    prepared = strategy.choose(
        strategy.prepare(task, seed=0), task, engine, seed=0, budget=Budget(say=lambda line: lines.append(line))
    )
    asked = {"pmi": 1, "contextual": 3, "batch": 45, "auto": 45 + 3 + 1}[method]
    assert len(engine.requests) == asked
    outcomes = run_programs(task.definition, prepared, task.test, engine)
    assert len(engine.requests) == asked + 30
    right = sum(o.answer.answer in task.definition.gold(r) for o, r in zip(outcomes, task.test, strict=True))
    plain = run_programs(task.definition, strategy.prepare(task, seed=0), task.test, engine)
    assert sum(o.answer.answer == "good" for o in plain) == 30
    assert right > 20
    assert program().restore(prepared.to_json()) == prepared
    assert lines == [] or "standard error" in lines[0]


@pytest.mark.parametrize("method", ["pmi", "contextual", "auto"])
def test_priors_of_options_are_asked_with_every_row(method):
    """Options differ by row: one wave of a row's own prompt and those without it; nothing is asked twice."""
    task = small_task("choice", validation=24)
    engine = FakeEngine(_lean)
    strategy = ZeroShot(calibrate=method)
    prepared = strategy.choose(strategy.prepare(task, seed=0), task, engine, seed=0, budget=Budget())
    before = len(engine.requests)
    assert before == (24 * (1 + 3 + 1) if method == "auto" else 0)
    [outcome] = run_programs(task.definition, prepared, task.test[:1], engine)
    free = {"pmi": 1, "contextual": 3, "none": 0, "batch": 0}[prepared.calibration.method]
    assert len(engine.requests) - before == 1 + free
    assert math.fsum(outcome.answer.probabilities.values()) == pytest.approx(1)


def test_examples_by_likeness_have_priors_of_their_own():
    """The leaning of a prompt lies in its examples: with other examples a row it is asked for with the row."""
    task = small_task("classification", validation=24)
    strategy = FewShot(k=2, select="similar", calibrate="contextual")
    engine = FakeEngine(_lean)
    prepared = strategy.choose(strategy.prepare(task, seed=0), task, engine, seed=0, budget=Budget())
    assert engine.requests == []
    run_programs(task.definition, prepared, task.test[:2], engine)
    assert engine.waves == [8]


def test_test_rows_are_never_asked():
    """Calibration reads validation, or training where there is none."""
    task = small_task("classification", validation=30)
    splits = {**task.splits, "test": ()}
    for rows in (splits, {**splits, "validation": ()}):
        strategy = ZeroShot(calibrate="auto")
        bare = replace(task, splits=rows)
        assert strategy.choose(
            strategy.prepare(bare, seed=0), bare, FakeEngine(_lean), seed=0, budget=Budget()
        ).calibration.tried


def test_a_label_that_begins_another_is_said():
    """By the sum it never scores below the longer one."""
    task = small_task("classification")
    wording = replace(task.definition.wordings[0], label_texts={"good": "card", "bad": "card payment"})
    definition = replace(task.definition, wordings=(wording,))
    prepared = ZeroShot().prepare(task, seed=0)
    lines: list[str] = []
    choose_calibration(prepared, replace(task, definition=definition), FakeEngine(_lean), "auto", "none", lines.append)
    assert "'card' is the beginning of 'card payment'" in lines[0]
    assert prefix_note(definition, replace(prepared, calibration=Calibration("mean"))) == ""
    assert prefix_note(task.definition, prepared) == ""


def test_a_calibration_goes_through_json_and_damage_is_refused():
    """Every field; numbers must be finite."""
    found = best_calibration(_leaning_rows(30, 4.0), ["sum"], ["none", "batch"], True)
    assert calibration_from_json(found.to_json() | {"premise": "Label:"}, Faults("")) == replace(
        found, premise="Label:"
    )
    for damage in ({"prior": [math.nan]}, {"prior": 3}, {"normalise": "x"}, {"tried": [{"nll": 1}]}, {"tried": 5}):
        faults = Faults("x")
        calibration_from_json(found.to_json() | damage, faults)
        assert len(faults.messages) == 1


@pytest.mark.parametrize("damage", [{"prior": [0.5]}, {"prior": None}])
def test_a_prior_of_another_length_is_refused(damage):
    """A folder from elsewhere may hold anything; its numbers are no labels' until they are as many."""
    task = small_task("classification", validation=24)
    strategy = ZeroShot(calibrate="batch")
    engine = FakeEngine(_lean)
    saved = strategy.choose(strategy.prepare(task, seed=0), task, engine, seed=0, budget=Budget()).to_json()
    restored = strategy.restore({**saved, "calibration": {**saved["calibration"], **damage}})
    with pytest.raises(PredictorError, match="numbers for 3 options"):
        run_programs(task.definition, restored, task.test[:1], engine)
