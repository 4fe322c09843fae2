"""Programs of several requests: their flows, what they ask, and how they answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from taskfit.errors import ConfigError, DataError, PredictorError
from taskfit.inference.requests import Generate, Score
from taskfit.prompting.asking import CUE, stem, vote
from taskfit.prompting.chain import TRIGGER, ChainOfThought, SelfConsistency
from taskfit.prompting.ensemble import PromptEnsemble
from taskfit.prompting.least_to_most import DECOMPOSE, LeastToMost, parts_of
from taskfit.prompting.self_refine import CRITICISE, ENOUGH, SelfRefine
from taskfit.prompting.spread import prompt_spread
from taskfit.prompting.step_back import ABSTRACT, StepBack
from taskfit.strategy.contract import Answer, Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.run_program import run_programs
from taskfit.strategy.table import STRATEGIES
from taskfit.testing import FakeEngine, generated, scored
from tests.strategy.small_tasks import small_task

KINDS = ["classification", "choice", "generation"]
PROGRAMS = ["chain-of-thought", "self-consistency(n=3)", "least-to-most", "step-back", "self-refine", "prompt-ensemble"]


def _run(program, kind, respond, rows=1, seed=0, task=None):
    task = task or small_task(kind)
    engine = FakeEngine(respond)
    prepared = program.prepare(task, seed=seed)
    return run_programs(task.definition, prepared, task.test[:rows], engine), engine, task


def _echo(text):
    def respond(request):
        if isinstance(request, Score):
            return scored(request, [-float(len(one)) for one in request.continuations])
        return generated(request, text)

    return respond


def _gold(task, row):
    """How a model would say the right answer."""
    return task.definition.target_text(row)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_shot_chain_of_thought_asks_twice(kind):
    """First to think, then, with its reasoning in view, to answer; the answer alone is read."""
    task = small_task(kind)
    gold = _gold(task, task.test[0])

    def respond(request):
        return generated(request, f" {gold}.\nQ: more" if request.prompt.text.endswith(CUE) else " because, good, bad")

    [outcome], engine, _ = _run(ChainOfThought(), kind, respond, task=task)
    first, second = engine.requests
    assert first.prompt.text.endswith(TRIGGER) and first.max_tokens == 256
    assert second.prompt.text == f"{first.prompt.text} because, good, bad\n{CUE}"
    assert outcome.answer.answer in task.definition.gold(task.test[0])
    assert outcome.answer.raw.startswith("because, good, bad")
    assert engine.waves == [1, 1]


@pytest.mark.parametrize("kind", ["classification", "choice"])
def test_the_answer_to_ones_own_reasoning_may_be_scored(kind):
    """Then it is always valid and has probabilities."""
    [outcome], engine, _ = _run(ChainOfThought(answer="score"), kind, _echo("hm"))
    assert isinstance(engine.requests[1], Score)
    assert outcome.answer.is_parsed
    assert sum(outcome.answer.probabilities.values()) == pytest.approx(1)


def _with_rationales(kind="classification"):
    task = small_task(kind)
    rows = tuple(replace(row, fields={**row.fields, "why": f"it is {row.fields['label']}"}) for row in task.train[:4])
    return replace(
        task,
        definition=replace(task.definition, rationale="{{ why }}"),
        splits={**task.splits, "train": rows + task.train[4:]},
    )


def test_worked_rationales_are_shown_and_the_answer_is_read_behind_the_cue():
    """One request; a chain that breaks off is no answer, whatever labels it names on the way."""
    task = _with_rationales()
    [right], engine, _ = _run(
        ChainOfThought(k=2), "", lambda r: generated(r, "bad? no. So the answer is good."), task=task
    )
    [request] = engine.requests
    assert all(shot.answer.startswith("it is ") and "So the answer is " in shot.answer for shot in request.prompt.shots)
    assert len(request.prompt.shots) == 2 and request.stop == ("\n\n",)
    assert right.answer.answer == "good"
    [broken], _, _ = _run(ChainOfThought(k=2), "", _echo("we see that it is good and"), task=task)
    assert not broken.answer.is_parsed
    assert broken.answer.raw == "we see that it is good and"


def test_without_rationales_there_is_nothing_to_show():
    """Four rows have one; five cannot be shown."""
    with pytest.raises(ConfigError, match=r"chain-of-thought needs k=5 training rows with a rationale \(got 4\)"):
        ChainOfThought(k=5).prepare(_with_rationales(), seed=0)


def test_self_consistency_takes_the_majority_and_shares_votes():
    """Four samples: two good, one bad, one unreadable; every sample has a seed of its own."""
    said = iter(["So the answer is good.", "So the answer is bad.", "hm", "I say: the answer is good"] * 2)
    task = _with_rationales()
    outcomes, engine, _ = _run(SelfConsistency(n=4, k=2), "", lambda r: generated(r, next(said)), rows=2, task=task)
    assert outcomes[0].answer.answer == "good"
    assert outcomes[0].answer.probabilities == {"bad": pytest.approx(1 / 3), "good": pytest.approx(2 / 3), "odd": 0.0}
    seeds = [request.seed for request in engine.requests]
    assert len(set(seeds)) == 8
    assert {request.temperature for request in engine.requests} == {0.7}
    again = _run(SelfConsistency(n=4, k=2), "", _echo("x"), rows=2, task=task)[1]
    assert [request.seed for request in again.requests] == seeds
    alone = _run(SelfConsistency(n=4, k=2), "", _echo("x"), rows=1, task=task)[1]
    assert [request.seed for request in alone.requests] == seeds[:4]
    other = _run(SelfConsistency(n=4, k=2), "", _echo("x"), rows=2, seed=1, task=task)[1]
    assert not set(seeds) & {request.seed for request in other.requests}


def test_votes_without_any_answer_are_no_answer():
    """And of equals the first to be given wins, whatever its case."""
    assert not vote([Answer("", is_parsed=False, raw="x")] * 2).is_parsed
    tied = vote([Answer("Six"), Answer("seven"), Answer("SEVEN "), Answer("six")])
    assert (tied.answer, tied.probabilities) == ("Six", {"Six": 0.5, "seven": 0.5})


def _answers(targets, metric="exact_match"):
    task = small_task("generation")
    rows = tuple(replace(row, fields={**row.fields, "label": targets[n % 2]}) for n, row in enumerate(task.train))
    definition = replace(task.definition, metrics=(metric,))
    return replace(task, definition=definition, splits={**task.splits, "train": rows, "validation": rows})


@pytest.mark.parametrize(
    ("targets", "said", "answer"),
    [
        (("02139", "94110"), "The answer is 02139.", "02139"),
        (("3.50", "12.25"), "The answer is 3.50.", "3.50"),
        (("1,250", "$18"), "The answer is $1,250.00 a day.", "1250"),
        (("1/2", "-7"), "The answer is 1/2 of it.", "1/2"),
    ],
)
def test_zeros_of_codes_and_prices_are_kept(targets, said, answer):
    """Right answers that have some could never be the same text otherwise; other numbers are read as numbers."""
    [outcome], _, _ = _run(ChainOfThought(), "generation", _echo(said), task=_answers(targets))
    assert outcome.answer.answer == answer


def test_where_numbers_are_compared_zeros_do_not_matter():
    """``numeric_match`` as the deciding metric: a number is read whatever its zeros."""
    task = _answers(("3.50", "12.25"), "numeric_match")
    [outcome], _, _ = _run(ChainOfThought(), "generation", _echo("The answer is $3.50 a day."), task=task)
    assert outcome.answer.answer == "3.5"


def test_least_to_most_solves_the_parts_in_order():
    """Each part is asked with the answers of those before it; the question comes last, in its own wording."""

    def respond(request):
        text = request.prompt.text
        if text.endswith(DECOMPOSE):
            return generated(request, "1. Is it a film?\n- Is it warm?\n\n(3) Is it warm?\nToo many?")
        return generated(request, "yes" if text.endswith("A:") else "good")

    [outcome], engine, task = _run(LeastToMost(parts=2), "classification", respond)
    _, first, second, last = (request.prompt.text for request in engine.requests)
    assert first.endswith("\n\nQ: Is it a film?\nA:")
    assert second == f"{first} yes\n\nQ: Is it warm?\nA:"
    question = task.definition.prompt_text(task.test[0])
    assert last == f"Q: Is it a film?\nA: yes\n\nQ: Is it warm?\nA: yes\n\n{question}"
    assert outcome.answer.answer == "good"


def test_parts_may_stand_in_quotes_on_one_line():
    """As in the paper's prompts; a question that cannot be broken up is asked as it is."""
    assert parts_of('To solve it, we need to first solve: "how far", "how fast".', 5) == ["how far", "how fast"]
    [_], engine, task = _run(LeastToMost(), "generation", _echo(""))
    assert engine.requests[-1].prompt.text == task.definition.prompt_text(task.test[0])


def test_step_back_asks_the_general_question_first():
    """Its answer stands in front of the row's question; without a general question the row's is asked alone."""

    def respond(request):
        text = request.prompt.text
        if text.endswith(ABSTRACT):
            return generated(request, "What makes films good?")
        return generated(request, "warmth" if text.endswith("Answer:") else "(B)")

    [outcome], engine, task = _run(StepBack(), "classification", respond)
    question = task.definition.prompt_text(task.test[0])
    assert [request.prompt.text for request in engine.requests] == [
        f"{stem(question)}\n\n{ABSTRACT}",
        "What makes films good?\nAnswer:",
        f"What makes films good?\nwarmth\n\n{question}",
    ]
    assert outcome.answer.answer == task.definition.labels[1]
    [_], engine, _ = _run(StepBack(answer="score"), "classification", _echo(""))
    assert isinstance(engine.requests[-1], Score) and engine.requests[-1].prompt.text == question


def test_self_refine_goes_on_until_nothing_is_wrong():
    """Answer, criticism, better answer; an answer found right ends it; rounds are bounded."""

    def respond(request):
        text = request.prompt.text
        if text.endswith(CRITICISE):
            return generated(request, ENOUGH if "Answer: good" in text else "it is not bad")
        return generated(request, "good" if text.endswith("Better answer:") else "bad")

    [outcome], engine, _ = _run(SelfRefine(rounds=3), "classification", respond)
    assert outcome.answer.answer == "good"
    assert "Criticism: it is not bad" in engine.requests[2].prompt.text
    assert len(engine.requests) == 4
    [never], engine, _ = _run(SelfRefine(rounds=2), "classification", _echo("still bad"))
    assert len(engine.requests) == 5
    assert never.answer.answer == "bad"


@pytest.mark.parametrize(
    ("criticism", "asks"),
    [
        ("It is correct.", 2),
        ("I looked twice: it is correct", 2),
        ('"It is correct."', 2),
        ("**It is correct.** Nothing is missing.", 2),
        ("I doubt that it is correct.", 3),
        ("It is correct that the film is long, but that is no reason.", 3),
    ],
)
def test_self_refine_ends_where_a_whole_sentence_says_that_the_answer_is_correct(criticism, asks):
    """Answer and criticism, and a better answer only where something was wrong."""
    [_], engine, _ = _run(SelfRefine(rounds=1), "classification", _echo(criticism))
    assert len(engine.requests) == asks


def test_an_ensemble_averages_log_probabilities():
    """Two wordings, one unsure, one sure of another label: the geometric mean of their shares decides."""

    def respond(request):
        sure = request.prompt.text.startswith("What")
        return scored(request, [-0.1, -6.0, -6.0] if not sure else [-1.2, -1.0, -6.0])

    [outcome], engine, task = _run(PromptEnsemble(), "classification", respond)
    assert engine.waves == [2]
    assert outcome.answer.answer == task.definition.labels[0]
    odds = outcome.answer.probabilities
    first, second, _ = task.definition.labels
    assert odds[first] / odds[second] == pytest.approx(2.718281828459045 ** ((5.9 - 0.2) / 2))


def test_an_ensemble_knows_options_by_value_whatever_their_order():
    """A wording may list the row's options in an order of its own; one that lists others is refused."""
    task = small_task("choice")

    def in_order(source):
        second = replace(task.definition.wordings[1], options=source)
        return replace(task, definition=replace(task.definition, wordings=(task.definition.wordings[0], second)))

    def respond(request):
        return scored(request, [-1.0 if "odd" in text else -3.0 for text in request.continuations])

    [plain], _, _ = _run(PromptEnsemble(), "choice", respond, task=task)
    [turned], _, _ = _run(PromptEnsemble(), "choice", respond, task=in_order("{{ options[1:] + options[:1] }}"))
    assert turned.answer.answer == plain.answer.answer == "it is odd"
    assert turned.answer.probabilities == pytest.approx(plain.answer.probabilities)
    with pytest.raises(DataError, match="must have the same values"):
        _run(PromptEnsemble(), "choice", respond, task=in_order("{{ options[1:] }}"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_that_generates_votes(kind):
    """Texts of the wordings are counted."""
    task = small_task(kind)
    [outcome], engine, _ = _run(PromptEnsemble(answer="generate", k=2), kind, _echo(_gold(task, task.test[0])))
    assert all(isinstance(request, Generate) and len(request.prompt.shots) == 2 for request in engine.requests)
    assert outcome.answer.answer in task.definition.gold(task.test[0])
    assert max(outcome.answer.probabilities.values()) == 1.0


def test_an_ensemble_says_how_much_its_wordings_differ():
    """On validation rows, at the fit; one wording alone is no ensemble."""
    task = small_task("classification")
    said: list[str] = []

    def respond(request):
        return scored(request, [-1.0, -2.0, -3.0] if request.prompt.text.startswith("What") else [-3.0, -2.0, -1.0])

    program = PromptEnsemble()
    prepared = program.prepare(task, seed=0)
    assert (
        program.choose(prepared, task, FakeEngine(respond), seed=0, budget=Budget(say=lambda s: said.append(s)))
        is prepared
    )
    assert said == ["2 wordings score 0.333 to 0.333 on 6 validation rows (standard deviation 0.000)"]
    bare = replace(task, splits=dict.fromkeys(task.splits, ()))
    program.choose(prepared, bare, FakeEngine(respond), seed=0, budget=Budget(say=lambda s: said.append(s)))
    assert len(said) == 1  # no rows, no figure
    one = replace(task, definition=replace(task.definition, wordings=task.definition.wordings[:1]))
    with pytest.raises(ConfigError, match="the task has 1"):
        program.prepare(one, seed=0)
    with pytest.raises(ConfigError, match="the task has 2"):
        PromptEnsemble(wordings=3).prepare(task, seed=0)


def test_the_spread_shows_wordings_and_draws():
    """Scores of each wording and draw on the same validation rows; test rows are never asked."""
    task = small_task("classification")
    texts = [task.definition.prompt_text(row, wording) for row in task.validation for wording in (0, 1)]

    def respond(request):
        assert request.prompt.text in texts
        good = request.prompt.shots and request.prompt.shots[0].answer == "good"
        return scored(request, [-1.0, -3.0, -3.0] if good else [-3.0, -1.0, -3.0])

    spread = prompt_spread(parse("few-shot(k=2)").program, task, FakeEngine(respond), draws=3)
    assert (len(spread.wordings), len(spread.draws), spread.rows) == (2, 3, 6)
    assert spread.low <= spread.draws[0] <= spread.high
    assert len(spread.lines()) == 2 and "2 wordings score" in spread.lines()[0]
    heard: list[str] = []
    program = parse("few-shot(k=2, spread=6)").program
    prepared = program.prepare(task, seed=0)
    assert program.choose(prepared, task, FakeEngine(respond), seed=0, budget=Budget(say=heard.append)) == prepared
    assert heard == list(spread.lines())
    fixed = prompt_spread(parse("zero-shot(wording=1)").program, task, FakeEngine(_echo("")))
    assert len(fixed.draws) == 1 and fixed.draw_sd == 0.0 and fixed.wordings[1] == fixed.draws[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*PROGRAMS, "prompt-ensemble(k=2)", "self-refine(rounds=1)"])
def test_every_program_answers_every_kind_and_goes_through_json(name, kind):
    """An engine that talks nonsense: what cannot be read is marked and kept, never an error; restored it asks alike."""
    program = parse(name).program
    task = small_task(kind)
    prepared = program.prepare(task, seed=2)
    restored = program.restore(prepared.to_json())
    assert restored == prepared
    engine = FakeEngine(_echo("nonsense here"))
    outcomes = run_programs(task.definition, prepared, task.test, engine)
    assert len(outcomes) == len(task.test)
    assert all(o.answer.is_parsed or o.answer.raw for o in outcomes)
    usage = program.usage(task.definition, len(task.validation))
    assert 0 < len(engine.requests) / len(task.test) <= 2 * usage.requests + 1
    assert prepared.prompt(task.definition, task.test[0]).text
    assert prepared.wording == 0


def test_programs_that_cannot_be_trained_on_say_so():
    """A change of the weights needs a prompt that the answer follows."""
    for name in [*PROGRAMS, "prompt-search"]:
        with pytest.raises(ConfigError, match="there is no prompt to train on"):
            parse(f"lora+{name}")
    assert parse("lora+few-shot(k=2, select=similar)").name == "lora+few-shot(k=2, select=similar)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("self-consistency(n=1)", "n must be at least 2"),
        ("self-consistency(temperature=0)", "temperature must be above 0"),
        ("self-consistency(top_p=0)", "top_p must be above 0"),
        ("chain-of-thought(max_tokens=0)", "max_tokens must be at least 1"),
        ("least-to-most(parts=0)", "parts must be at least 1"),
        ("step-back(wording=-1)", "wording must be at least 0"),
        ("self-refine(rounds=0)", "rounds must be at least 1"),
        ("prompt-ensemble(wordings=1)", "wordings must be 0 for all"),
        ("prompt-search(budget=3)", "budget must be at least 8"),
    ],
)
def test_parameters_out_of_range_are_named(name, message):
    """Before anything runs."""
    with pytest.raises(ConfigError, match=message):
        parse(name)


@pytest.mark.parametrize("name", [*PROGRAMS, "prompt-search"])
def test_a_damaged_state_is_refused(name):
    """A predictor folder changed by hand."""
    with pytest.raises(PredictorError):
        parse(name).program.restore({"members": [3], "found": {}, "tried": [{}], "n": "x"})


def test_numbers_are_read_where_all_answers_are_numbers():
    """The form of the answers is seen in the data: then "5 boats" is 5."""
    task = small_task("generation")
    rows = {
        split: tuple(replace(row, fields={**row.fields, "label": "1,234"}) for row in rows)
        for split, rows in task.splits.items()
    }
    task = replace(task, splits=rows)
    [outcome], _, _ = _run(StepBack(), "", _echo("about 1,234.0 boats"), task=task)
    assert outcome.answer.answer == "1234"


def test_every_program_of_the_table_has_a_source():
    """Each names its paper in the table."""
    programs = [entry for entry in STRATEGIES.values() if entry.part == "program"]
    assert len(programs) == 9 and all(entry.source for entry in programs)
    assert Counter(entry.part for entry in STRATEGIES.values())["program"] == 9


def test_options_that_differ_in_case_alone_have_votes_of_their_own():
    """Free texts are folded before they are counted, options are not."""
    ballots = [Answer("US"), Answer("us"), Answer("us")]
    found = vote(ballots, ["us", "US"])
    assert (found.answer, found.probabilities) == ("us", {"us": pytest.approx(2 / 3), "US": pytest.approx(1 / 3)})
    assert vote(ballots).probabilities == {"US": 1.0}


@pytest.mark.parametrize("damage", [{"n": 0}, {"n": -2}, {"max_tokens": 0}])
def test_a_folder_cannot_ask_for_no_chain(damage):
    """Nothing could be voted on."""
    saved = SelfConsistency().prepare(small_task("classification"), seed=0).to_json()
    with pytest.raises(PredictorError, match="must be at least 1"):
        SelfConsistency().restore(saved | damage)
