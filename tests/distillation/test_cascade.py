"""The strategy ``cascade``: who answers what, what is saved, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from taskfit.distillation.cascade import FOR_A_PERSON, Cascade, CascadePredictor
from taskfit.distillation.cascade_rule import set_rule
from taskfit.errors import ConfigError, PredictorError
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget, Prediction
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.task import Row, Task
from tests.strategy.small_tasks import small_task
from tests.tuning.keyword_task import tiny_model

TASK = small_task("classification", train=30, validation=200, test=40)


class Sayer:
    """A predictor whose answers and confidences come from a row's number."""

    def __init__(self, wrong: set[int], sure: float = 0.99, unsure: float = 0.6, parsed: bool = True) -> None:
        self.strategy, self.definition, self.fit_work, self.predict_work = "sayer", TASK.definition, Work(), Work()
        self.wrong, self.sure, self.unsure, self.parsed = wrong, sure, unsure, parsed
        self.asked: list[str] = []

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        for row in rows:
            self.asked.append(row.id)
            number = int(row.id[-3:])
            right = TASK.definition.gold(row)[0]
            answer = right if number not in self.wrong else next(x for x in TASK.definition.labels if x != right)
            level = self.unsure if number in self.wrong or number % 4 == 0 else self.sure
            rest = (1 - level) / 2
            shares = {label: level if label == answer else rest for label in TASK.definition.labels}
            yield Prediction(row.id, answer, shares, 5, 1, is_parsed=self.parsed)

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def _cascade(student: Sayer, teacher: Sayer, *, asks_people: bool = False) -> CascadePredictor:
    fitted = parse("cascade(student=majority, teacher=majority)").fit(None, TASK, seed=0, budget=Budget())
    assert isinstance(fitted, CascadePredictor)
    rows = TASK.validation
    rule, _ = set_rule(student, teacher, rows[:150], rows[150:], 0.95, 0.9, asks_people=asks_people)
    fitted.student, fitted.teacher, fitted.rule = student, teacher, rule
    return fitted


def test_the_teacher_is_asked_only_where_the_student_is_in_doubt() -> None:
    """A quarter of the rows, and what both read is counted."""
    student, teacher = Sayer(set(range(0, 1000, 8))), Sayer(set())
    cascade = _cascade(student, teacher)
    teacher.asked.clear()
    found = list(cascade.predict(TASK.test))
    assert [one.answer for one in found] == [TASK.definition.gold(row)[0] for row in TASK.test]
    assert teacher.asked == [row.id for row in TASK.test if int(row.id[-3:]) % 4 == 0]
    assert [one.tokens_in for one in found] == [10 if int(row.id[-3:]) % 4 == 0 else 5 for row in TASK.test]
    assert cascade.notes == (f"cascade: rows answered by student {40 - len(teacher.asked)}, teacher 10, person 0",)


def test_rows_of_one_id_keep_their_own_answers() -> None:
    """Files of rows that all number from 1 are predicted together; only the row in doubt gets the teacher's word."""
    cascade = _cascade(Sayer(set(range(0, 1000, 4))), Sayer(set()))
    sure, doubtful = (next(row for row in TASK.test if int(row.id[-3:]) % 4 == rest) for rest in (1, 0))
    alone = [one.answer for row in (sure, doubtful) for one in cascade.predict([row])]

    class OneId(Sayer):
        def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
            own = {sure.fields["text"]: sure, doubtful.fields["text"]: doubtful}
            yield from (replace(one, row_id="1") for one in super().predict([own[row.fields["text"]] for row in rows]))

    cascade.student, cascade.teacher = OneId(set(range(0, 1000, 4))), OneId(set())
    found = list(cascade.predict([Row("1", sure.fields), Row("1", doubtful.fields)]))
    assert [one.answer for one in found] == alone
    assert [one.tokens_in for one in found] == [5, 10]


def test_a_person_gets_what_neither_is_sure_of() -> None:
    """Both are often wrong where they are unsure: these rows come without an answer, and say why."""
    unsure = set(range(0, 1000, 4))
    cascade = _cascade(Sayer(unsure), Sayer(unsure), asks_people=True)
    found = list(cascade.predict(TASK.test))
    left = [one for one in found if not one.is_parsed]
    assert {one.row_id for one in left} == {row.id for row in TASK.test if int(row.id[-3:]) % 4 == 0}
    assert {(one.answer, one.raw) for one in left} == {("", FOR_A_PERSON)}


def test_a_teacher_without_valid_answers_lets_no_student_answer_and_leaves_all_to_people() -> None:
    """Nothing can be certified against answers that are none."""
    cascade = _cascade(Sayer(set()), Sayer(set(), parsed=False))
    assert not any(one.is_parsed for one in cascade.predict(TASK.test))


def test_a_student_that_is_always_wrong_answers_nothing() -> None:
    """The teacher answers every row."""
    cascade = _cascade(Sayer(set(range(1000)), unsure=0.99), Sayer(set()))
    assert [one.answer for one in cascade.predict(TASK.test)] == [TASK.definition.gold(row)[0] for row in TASK.test]


def test_it_is_fitted_saved_and_loaded(tmp_path: Path) -> None:
    """The same answers; the folder says who answers at every threshold, in words and numbers."""
    said: list[str] = []
    strategy = parse("cascade(student=linear, teacher=majority, agreement=0.6)")
    fitted = strategy.fit(None, TASK, seed=0, budget=Budget(say=said.append))
    fitted.save(tmp_path / "p")
    loaded = load_predictor(tmp_path / "p")
    assert list(loaded.predict(TASK.test)) == list(fitted.predict(TASK.test))
    assert any("on 100 held-out rows" in line for line in said)
    table = (tmp_path / "p" / "cascade.md").read_text(encoding="utf-8")
    assert "| never | 0.0% | 100.0% | 0.0% | 100.0% |" in table


def test_too_few_validation_rows_are_told_aloud() -> None:
    """Nothing is promised on three rows, and the line says how many it takes."""
    said: list[str] = []
    small = small_task("classification", validation=6)
    parse("cascade(student=linear, teacher=majority)").fit(None, small, seed=0, budget=Budget(say=said.append))
    assert "cannot certify" in said[-1]
    assert "needs 45 held-out rows at least: the teacher answers every row" in said[-1]


def test_without_validation_rows_it_is_refused() -> None:
    """There is nothing to set a threshold on."""
    task = replace(TASK, splits={**TASK.splits, "validation": ()})
    with pytest.raises(ConfigError, match="validation rows, and the task has none"):
        Cascade(parse("linear"), parse("majority")).fit(None, task, seed=0, budget=Budget())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cascade(student=lora, teacher=zero-shot)", "lora would change the model that both parts use"),
        ("cascade(student=linear, agreement=1)", "agreement must be between 0 and 1"),
        ("cascade(student=linear, agreement=0)", "agreement must be between 0 and 1"),
        ("cascade(student=linear, confidence=2)", "confidence must be between 0 and 1"),
        ("cascade(student=4)", "student must be a strategy"),
        ("cascade(student=linaer)", "did you mean 'linear'"),
        ("cascade(against=nobody)", "against must be one of teacher, people"),
    ],
)
def test_what_cannot_be_a_cascade_is_refused(text: str, message: str) -> None:
    """Before anything is fitted."""
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "change",
    [
        {"rule": None},
        {"rule": {"threshold": "low"}},
        {"threshold": "0.5"},
        {"threshold": True},
        {"asks_people": 1},
        {"student": {"slope": 1.0}},
        {"student": {"slope": "x", "intercept": 0.0, "rows": 0, "note": ""}},
    ],
)
def test_a_hostile_rule_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """What stands in a folder is checked before it decides anything."""
    fitted = parse("cascade(student=linear, teacher=majority)").fit(None, TASK, seed=0, budget=Budget())
    fitted.save(tmp_path / "p")
    path = tmp_path / "p" / "predictor.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["state"] |= change if "rule" in change else {"rule": values["state"]["rule"] | change}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(PredictorError, match="rule must hold"):
        load_predictor(tmp_path / "p")


def test_the_held_out_rows_are_seen_by_neither_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sets the threshold has no say in what the parts answer."""
    seen: list[Task] = []
    kind = type(parse("majority"))
    fit = kind.fit
    monkeypatch.setattr(
        kind, "fit", lambda self, model, task, **rest: (seen.append(task), fit(self, model, task, **rest))[1]
    )
    asked: list[Row] = []
    monkeypatch.setattr(
        "taskfit.distillation.cascade.set_rule",
        lambda student, teacher, held, *rest, **more: (
            asked.extend(held),
            set_rule(student, teacher, held, *rest, **more),
        )[1],
    )
    parse("cascade(student=majority, teacher=majority)").fit(None, TASK, seed=0, budget=Budget())
    assert len(seen) == 2
    assert not {row.id for row in asked} & {row.id for task in seen for row in (*task.train, *task.validation)}
    assert len(asked) == 100


TWO_MODELS = 'cascade(student=linear-probe, teacher_model="{}", agreement=0.6)'


def test_two_models_are_saved_and_loaded_each_on_its_own(tmp_path: Path) -> None:
    """An encoder as student, a decoder that it does not share: the folder alone gives the same answers."""
    encoder = tiny_model(tmp_path, "bert")
    tiny_model(tmp_path, "llama")
    strategy = parse(TWO_MODELS.format(tmp_path / "llama"))
    fitted = strategy.fit(encoder, TASK, seed=0, budget=Budget())
    assert isinstance(fitted, CascadePredictor)
    (apart,) = fitted.elsewhere
    assert apart.model.architecture == "decoder"
    assert apart.fit_work.prompt_tokens > 0
    assert fitted.fit_work.computed_tokens > 0
    fitted.rule = replace(fitted.rule, threshold=0.5)
    before = list(fitted.predict(TASK.test))
    asked = fitted.elsewhere[0].predict_work.prompt_tokens
    assert (asked > 0) == ("teacher 0," not in fitted.notes[0])
    rule = {**fitted.manifest.state["rule"], "threshold": 0.5}  # type: ignore[dict-item]
    fitted.manifest = replace(fitted.manifest, state={**fitted.manifest.state, "rule": rule})
    fitted.save(tmp_path / "out")
    for model in (None, encoder):
        loaded = load_predictor(tmp_path / "out", model=model)
        assert [one.answer for one in loaded.predict(TASK.test)] == [one.answer for one in before]
    assert parse(strategy.name) == strategy
    assert strategy.architectures == {"encoder"}


def test_a_student_without_a_model_leaves_the_base_to_the_teachers_own(tmp_path: Path) -> None:
    """Nothing is asked of the trial, whose model is none."""
    tiny_model(tmp_path, "llama")
    strategy = parse(f'cascade(teacher_model="{tmp_path / "llama"}")')
    assert strategy.architectures == frozenset()
    fitted = strategy.fit(None, TASK, seed=0, budget=Budget())
    fitted.save(tmp_path / "out")
    assert [one.answer for one in load_predictor(tmp_path / "out").predict(TASK.test[:4])]
    assert isinstance(strategy, Cascade)
    before = strategy.other_data(TASK)
    assert before
    assert parse("cascade").other_data(TASK) == ""  # type: ignore[attr-defined]


def test_a_model_of_ones_own_lets_both_parts_be_trained() -> None:
    """What one model for both forbids."""
    parse("cascade(student=encoder, teacher=lora, teacher_model=taskfit-tiny)")
    for name, words in (
        ("cascade(student=encoder, teacher=lora)", "no model suits both"),
        ("cascade(student=lora, teacher=zero-shot)", "would change the model"),
        ("cascade(student_model=minilm)", "needs no model"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(name)


def test_a_tuned_student_on_the_teachers_model_leaves_the_teacher_as_it_was(tmp_path: Path) -> None:
    """The same model by name: loaded again, both parts answer as before they were saved."""
    model = tiny_model(tmp_path, "llama")
    tuned = "lora(min_steps=4, learning_rate=0.05)"
    strategy = parse(f'cascade(student={tuned}, student_model="{tmp_path / "llama"}")')
    fitted = strategy.fit(model, TASK, seed=0, budget=Budget())
    assert isinstance(fitted, CascadePredictor)
    before = [list(part.predict(TASK.test[:4])) for part in (fitted.student, fitted.teacher)]
    fitted.save(tmp_path / "out")
    loaded = load_predictor(tmp_path / "out", model=tiny_model(tmp_path, "llama"))
    assert isinstance(loaded, CascadePredictor)
    assert [list(part.predict(TASK.test[:4])) for part in (loaded.student, loaded.teacher)] == before
