"""The strategies ``distil`` and ``step-by-step``: who teaches whom what, what it costs, what is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taskfit.distillation import teach as teach_module
from taskfit.distillation.annotate import annotate
from taskfit.distillation.config import AnnotateConfig
from taskfit.distillation.data_file import answer_field, write_data
from taskfit.distillation.distil import Distil, StepByStep
from taskfit.distillation.labelling import label_rows
from taskfit.distillation.ledger import Label, open_ledger
from taskfit.distillation.report import make_report
from taskfit.distillation.review import read_review, reviewed
from taskfit.distillation.teacher import Teacher
from taskfit.distillation.teacher_answers import _with_share, read_answers
from taskfit.errors import ConfigError, DataError, StudyError
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget, Prediction
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import read_manifest
from taskfit.strategy.predictor import load_predictor
from taskfit.studies.needs import check_task, labels_used, other_data
from taskfit.tasks import load_task
from taskfit.tasks.reading import read_file
from taskfit.tasks.sources import FileSource
from taskfit.tasks.task import Row, Task
from taskfit.tasks.template import field_source
from tests.tuning.keyword_task import tiny_model

WORDS = {"good": ("great", "warm", "bright"), "bad": ("awful", "cold", "dull")}
TASK = "name: films\nkind: classification\ninput: text\ntarget: label\ndata: {train: train.jsonl, "
TASK += "validation: validation.jsonl, test: test.jsonl}\nunlabelled: more.jsonl\n"


def record(number: int) -> dict[str, str]:
    label = ("good", "bad")[number % 2]
    return {"text": f"a {WORDS[label][number // 2 % 3]} film, number {number}", "label": label}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A task file with 40 rows to learn, 40 to choose by, 40 to test on and 60 without labels."""
    numbers = iter(range(1000))
    for split, count in (("train", 40), ("validation", 40), ("test", 40)):
        write(tmp_path / f"{split}.jsonl", (record(next(numbers)) for _ in range(count)))
    write(tmp_path / "more.jsonl", ({"text": record(next(numbers))["text"]} for _ in range(60)))
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path / "task.yaml"


class Sayer:
    """A teacher whose answers a function gives; it counts what it is asked."""

    def __init__(self, task: Task, answer: Any = None, shares: Any = None, raw: str = "") -> None:
        self.strategy, self.definition, self.fit_work = "sayer", task.definition, Work()
        self.answer = answer or (lambda row: "good" if number_of(row) % 2 == 0 else "bad")
        self.shares, self.raw = shares, raw
        self.asked: list[str] = []

    @property
    def predict_work(self) -> Work:
        return Work(prompt_tokens=7 * len(self.asked))

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        for row in rows:
            self.asked.append(row.id)
            answer = self.answer(row)
            shares = None if self.shares is None else self.shares(row, answer)
            yield Prediction(row.id, answer, shares, 7, 1, is_parsed=bool(answer), raw=self.raw)

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def number_of(row: Row) -> int:
    return int(str(row.fields["text"]).rsplit(" ", 1)[1])


def sure(row: Row, answer: str) -> dict[str, float]:
    return {label: 0.9 if label == answer else 0.1 for label in ("good", "bad")}


@pytest.fixture
def sayer(path: Path, monkeypatch: pytest.MonkeyPatch) -> Sayer:
    """Every strategy's teacher is this one."""
    made = Sayer(load_task(path))
    monkeypatch.setattr(teach_module, "load_teacher", lambda *_, **__: made)
    return made


def fit(name: str, task: Task, folder: Path | None = None, model: Any = None) -> tuple[Any, list[str]]:
    """Fit without a model: where the name says no teacher, it is majority, in whose place a fake may stand."""
    if "teacher" not in name and model is None:
        name = (
            name.replace("distil", "distil(teacher=majority)")
            if name == "distil"
            else name.replace("(", "(teacher=majority, ", 1)
        )
    said: list[str] = []
    budget = Budget(folder=folder, say=said.append)
    return parse(name).fit(model, task, seed=0, budget=budget), said


def accuracy(predictor: Any, task: Task) -> float:
    found = list(predictor.predict(task.test))
    return sum(one.answer in task.definition.gold(row) for one, row in zip(found, task.test, strict=True)) / len(found)


def test_a_student_learns_what_its_teacher_says_of_unlabelled_rows(path: Path, tmp_path: Path) -> None:
    """A real teacher, saved and loaded; the student's folder needs nothing of it."""
    task = load_task(path)
    predictor, said = fit("distil(teacher=linear, rows=50)", task)
    assert accuracy(predictor, task) == 1.0
    assert predictor.strategy == "distil(teacher=linear, rows=50)"
    assert any("linear labelled 50 rows (0 failed)" in line for line in said)
    predictor.save(tmp_path / "out")
    loaded = load_predictor(tmp_path / "out")
    assert [one.answer for one in loaded.predict(task.test)] == [one.answer for one in predictor.predict(task.test)]
    manifest = read_manifest(tmp_path / "out")
    assert manifest.strategy_in_full.startswith("linear(")
    assert manifest.task_fingerprint == task.fingerprint
    assert manifest.findings["distillation"]["rows"] == 50  # type: ignore[index, call-overload]
    assert parse(manifest.strategy).restore(None, tmp_path / "out", manifest).definition == task.definition


def test_rows_of_the_task_itself_are_never_labelled(path: Path, sayer: Sayer) -> None:
    """Unlabelled files often hold the test rows, too."""
    task = load_task(path)
    write(path.with_name("more.jsonl"), [{"text": record(n)["text"]} for n in range(130)])
    _, said = fit("distil", task)
    assert len(sayer.asked) == 10
    assert any("120 rows left out" in line for line in said)


def test_without_unlabelled_rows_the_training_rows_are_taken_with_their_labels_hidden(
    path: Path, sayer: Sayer, tmp_path: Path
) -> None:
    task = replace(load_task(path), unlabelled=())
    sayer.answer = lambda row: "bad" if number_of(row) % 2 == 0 else "good"
    alone = replace(task, splits={**task.splits, "validation": ()})
    predictor, said = fit("distil(rows=none)", alone, None, tiny_model(tmp_path, "llama"))
    assert sorted(sayer.asked) == sorted(row.id for row in task.train)
    assert accuracy(predictor, task) == 0.0
    assert any("labels hidden" in line for line in said)


@pytest.mark.parametrize("human", ["none", "mixed"])
def test_labels_of_people_join_those_of_the_teacher(path: Path, sayer: Sayer, human: str) -> None:
    """A teacher that is always wrong, on a few rows, beside people who are right on more."""
    sayer.answer = lambda row: "bad" if number_of(row) % 2 == 0 else "good"
    task = load_task(path)
    task = replace(task, splits={**task.splits, "validation": ()})
    predictor, _ = fit(f"distil(rows=8, human={human})", task)
    assert (accuracy(predictor, task) > 0.5) == (human == "mixed")


def test_first_the_teacher_then_people(path: Path, sayer: Sayer, tmp_path: Path) -> None:
    """The same encoder goes on with people's labels: a teacher that always says the same does not stay its only one."""
    sayer.answer = lambda row: "good"
    task = load_task(path)
    task = replace(task, splits={**task.splits, "validation": ()})
    student = "encoder(learning_rate=0.003, batch=8, min_steps=5, epochs=12)"
    predictor, said = fit(
        f"distil(student={student}, teacher=majority, human=after)", task, tmp_path / "s", tiny_model(tmp_path, "bert")
    )
    assert accuracy(predictor, task) > 0.8
    assert any("60 rows of the teacher are learnt; now 40 of people" in line for line in said)
    predictor.save(tmp_path / "out")
    loaded = load_predictor(tmp_path / "out")
    assert [one.answer for one in loaded.predict(task.test)] == [one.answer for one in predictor.predict(task.test)]


def test_a_model_that_generates_goes_on_too(path: Path, sayer: Sayer, tmp_path: Path) -> None:
    task = load_task(path)
    name = "distil(student=full(max_steps=2), teacher=majority, rows=8, human=after)"
    predictor, _ = fit(name, task, None, tiny_model(tmp_path, "llama"))
    once, _ = fit(name.replace("after", "none"), task, None, tiny_model(tmp_path, "llama"))
    assert predictor.fit_work.trained_tokens > 1.5 * once.fit_work.trained_tokens
    assert len(list(predictor.predict(task.test[:2]))) == 2


def test_soft_labels_are_calibrated_on_rows_of_people(path: Path, sayer: Sayer) -> None:
    """The teacher says 0.9 and is right on three of four validation rows: the student learns about 0.75."""
    task = load_task(path)
    sayer.shares = sure
    sayer.answer = lambda row: "good" if (number_of(row) % 2 == 0) != (number_of(row) % 4 == 1) else "bad"
    with open_ledger(path.parent / "ledger", {"task": "t"}) as ledger:
        ledger.fill({"human": task.validation, "train": [Row(f"u{n}", record(200 + n)) for n in range(20)]})
        while rows := ledger.lease(64):
            ledger.accept(sayer.predict(rows))
        found = read_answers(task, ledger, soft="soft", weigh="confidence", needs_reasons=False, others=0)
    said = found.rows[0].teacher
    assert said is not None
    assert said.shares is not None
    assert max(said.shares.values()) == pytest.approx(0.74, abs=0.02)
    assert sum(said.shares.values()) == pytest.approx(1.0)
    assert said.weight == pytest.approx(max(said.shares.values()))
    assert any("equally sure of all rows" in sentence for sentence in found.sentences)
    assert found.findings["agreement"]["rows"] == 40  # type: ignore[index, call-overload]


def test_validation_rows_are_asked_about_only_where_that_is_needed(path: Path, sayer: Sayer) -> None:
    task = load_task(path)
    fit("distil(rows=10)", task)
    assert len(sayer.asked) == 10
    sayer.asked.clear()
    _, said = fit("distil(rows=10, labels=soft)", task)
    assert len(sayer.asked) == 10 + 20  # the other half is kept for the teacher to choose by
    assert any("10 labels came without probabilities" in line for line in said)


def test_without_any_row_of_people_it_works_and_says_what_cannot_be_known(path: Path, sayer: Sayer) -> None:
    task = load_task(path)
    bare = replace(task, splits={**task.splits, "train": (), "validation": ()})
    sayer.shares = lambda row, answer: {answer: 0.6 + number_of(row) / 1000, "other": 0.1}
    predictor, said = fit("distil(labels=soft, weight=confidence)", bare)
    assert accuracy(predictor, task) == 1.0
    assert any("how often it is right cannot be known" in line for line in said)
    assert not any("warning" in line for line in said)


def test_answers_outside_the_labels_are_left_out_and_named(path: Path, sayer: Sayer) -> None:
    task = load_task(path)
    sayer.answer = lambda row: ("", "odd", "good")[number_of(row) % 3]
    with pytest.raises(DataError, match="same label, 'good'"):
        fit("distil", task)
    sayer.answer = lambda row: (
        "" if number_of(row) % 3 == 0 else "odd" if number_of(row) % 3 == 1 else NAMES[number_of(row) % 2]
    )
    predictor, said = fit("distil", task)
    assert any("20 answers are none of the task's" in line and "'odd'" in line for line in said)
    findings = predictor.manifest.findings["distillation"]
    assert (findings["rows"], findings["failed_rows"]) == (20, 20)
    sayer.answer = lambda row: ""
    with pytest.raises(DataError, match="no label of the teacher can be learnt from"):
        fit("distil", task)


NAMES = ("good", "bad")


def test_a_teacher_that_always_says_the_same_teaches_nothing_unless_people_do(path: Path, sayer: Sayer) -> None:
    task = load_task(path)
    sayer.answer = lambda row: "good"
    with pytest.raises(DataError, match="all 60 rows the same label, 'good'"):
        fit("distil", task)
    predictor, _ = fit("distil(rows=5, human=mixed)", task)
    assert accuracy(predictor, task) > 0.5


def test_nothing_is_asked_twice_when_a_fit_is_made_again_in_its_folder(
    path: Path, sayer: Sayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student that fails after the labels were paid for; then what the teacher computed counts all the same."""
    task = load_task(path)

    def fail(*_: object, **__: object) -> None:
        raise DataError("the student stumbles")

    with monkeypatch.context() as patched:
        patched.setattr("taskfit.tuning.baselines.Linear.fit", fail)
        with pytest.raises(DataError, match="stumbles"):
            fit("distil", task, tmp_path / "scratch")
    assert len(sayer.asked) == 60
    sayer.asked.clear()
    predictor, _ = fit("distil", task, tmp_path / "scratch")
    assert sayer.asked == []
    assert accuracy(predictor, task) == 1.0


def test_a_scratch_folder_of_another_teacher_or_task_is_refused(path: Path, sayer: Sayer, tmp_path: Path) -> None:
    task = load_task(path)
    fit("distil", task, tmp_path / "scratch")
    with pytest.raises(StudyError, match=r"teacher was majority.*is linear"):
        fit("distil(teacher=linear)", task, tmp_path / "scratch")
    other = replace(task, fingerprint="f" * 64)
    with pytest.raises(StudyError, match="task was"):
        fit("distil", other, tmp_path / "scratch")


def test_what_the_teacher_computes_counts_on_its_own_model(path: Path, sayer: Sayer, tmp_path: Path) -> None:
    """Elsewhere where it has another model than the trial's; in the fit's own work where it shares that."""
    task = load_task(path)
    trials = tiny_model(tmp_path, "bert")
    sayer.model = tiny_model(tmp_path, "llama")  # type: ignore[attr-defined]
    predictor, said = fit("distil(student=linear-probe, teacher=majority)", task, None, trials)
    (other,) = predictor.elsewhere
    assert other.model is sayer.model  # type: ignore[attr-defined]
    assert other.fit_work == Work(prompt_tokens=7 * 60)
    assert any(f"on {sayer.model.name} labelled" in line for line in said)  # type: ignore[attr-defined]
    sayer.asked.clear()
    sayer.model = trials  # type: ignore[attr-defined]
    shared, _ = fit("distil(student=linear-probe, teacher=majority)", task, None, trials)
    assert shared.elsewhere == ()
    assert shared.fit_work.prompt_tokens == predictor.fit_work.prompt_tokens + 7 * 60


def test_a_model_named_for_the_teacher_labels_and_the_trials_model_learns(path: Path, tmp_path: Path) -> None:
    """End to end, with a decoder that scores labels and an encoder that learns what it says."""
    task = load_task(path)
    tiny_model(tmp_path, "llama")
    name = f'distil(student=linear-probe, teacher_model="{tmp_path / "llama"}", rows=12, human=mixed)'
    predictor, _ = fit(name, task, None, tiny_model(tmp_path, "bert"))
    (other,) = predictor.elsewhere
    assert other.model.architecture == "decoder"
    assert other.fit_work.prompt_tokens > 12
    assert parse(name).architectures == {"encoder"}
    assert parse(predictor.strategy) == parse(name)


def _labels(path: Path, folder: Path, **changes: Any) -> Path:
    annotate(path, Teacher(parse("linear"), None, None), folder, AnnotateConfig(count=30, **changes))
    return folder


def test_a_folder_of_labels_teaches_and_a_persons_review_goes_before_the_teacher(path: Path, tmp_path: Path) -> None:
    """Its audit rows stay apart."""
    folder = _labels(path, tmp_path / "labels")
    task = load_task(path)
    name = f'distil(teacher_from="{folder}", student=linear)'
    predictor, said = fit(name, task)
    assert accuracy(predictor, task) == 1.0
    assert predictor.manifest.findings["distillation"]["rows"] == 27
    assert any("paid for before" in line for line in said)
    before = other_data(parse(name), task)
    with open_ledger(folder, None) as ledger:
        ledger.connection.execute("CREATE TABLE IF NOT EXISTS reviews (id TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        first = ledger.rows("train")[0].id
        ledger.connection.execute("REPLACE INTO reviews VALUES (?, 'bad')", (first,))
        found = read_answers(task, ledger, soft="soft", weigh="none", needs_reasons=False, others=0)
    assert found.rows[0].teacher is not None
    assert (found.rows[0].teacher.answer, found.rows[0].teacher.shares) == ("bad", None)
    assert other_data(parse(name), task) != before


def test_a_folder_of_labels_of_another_task_is_refused_and_of_the_same_question_is_not(
    path: Path, tmp_path: Path
) -> None:
    folder = _labels(path, tmp_path / "labels")
    name = f'distil(teacher_from="{folder}")'
    write(path.with_name("train.jsonl"), [record(n) for n in range(500, 530)])
    fit(name, load_task(path))
    text = TASK.replace("input: text", "input: '{{ text }} film'")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match="of another task: its input is"):
        fit(name, load_task(path))
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM notes")
    with pytest.raises(StudyError, match="do not say of which"):
        fit(name, load_task(path))


def test_labelled_rows_whose_text_is_tested_are_left_out(path: Path, tmp_path: Path) -> None:
    """Labels made before the test rows were chosen."""
    folder = _labels(path, tmp_path / "labels")
    task = load_task(path)
    with open_ledger(folder, None) as ledger:
        stolen = ledger.rows("train")[:5]
        tested = replace(task, splits={**task.splits, "test": (*task.test, *stolen)})
        found = read_answers(tested, ledger, soft="hard", weigh="none", needs_reasons=False, others=0)
    assert len(found.rows) == 22
    assert any("5 labelled rows are left out" in sentence for sentence in found.sentences)


def test_a_saved_predictor_teaches(path: Path, tmp_path: Path) -> None:
    task = load_task(path)
    parse("linear").fit(None, task, seed=0, budget=Budget()).save(tmp_path / "teacher")
    name = f'distil(teacher_from="{tmp_path / "teacher"}", rows=none)'
    predictor, _ = fit(name, task)
    assert accuracy(predictor, task) == 1.0
    assert predictor.fit_work == Work()
    _, said = fit(name.replace("rows=none", "rows=5, labels=soft"), task)
    assert any("may have chosen by these validation rows" in line for line in said)
    _, said = fit(name, replace(task, unlabelled=()))
    assert any("may have learnt these very rows" in line for line in said)


def test_reasons_of_the_teacher_are_learnt_and_reasons_that_lack_are_missed(
    path: Path, sayer: Sayer, tmp_path: Path
) -> None:
    task = load_task(path)
    name = "step-by-step(teacher=majority, rows=12, student=lora(rationale=1.0, max_steps=2))"
    with pytest.raises(DataError, match="the teacher wrote none"):
        fit(name, task, None, tiny_model(tmp_path, "t5"))
    sayer.raw = "it is called great.\nTherefore, the answer is good"
    predictor, said = fit(name, task, None, tiny_model(tmp_path, "t5"))
    assert any("12 rationales are learned beside 12 answers" in line for line in said) or predictor is not None
    with open_ledger(tmp_path / "one", {}) as ledger:
        ledger.fill({"train": list(task.train)})
        ledger.accept(sayer.predict(ledger.lease(64)))
        found = read_answers(task, ledger, soft="hard", weigh="none", needs_reasons=True, others=0)
    assert {row.teacher.rationale for row in found.rows if row.teacher} == {"it is called great."}


def test_texts_are_distilled_as_a_teacher_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequence-level distillation: the student's targets are the teacher's own texts."""
    write(tmp_path / "rows.jsonl", [{"text": f"number {n}", "label": f"it is {n}"} for n in range(60)])
    (tmp_path / "task.yaml").write_text(
        "name: numbers\nkind: generation\ninput: text\ntarget: label\ndata: rows.jsonl\nmetrics: [rouge_l]\n"
    )
    task = load_task(tmp_path / "task.yaml")
    made = Sayer(task, lambda row: f"well, {row.fields['text']}")
    monkeypatch.setattr(teach_module, "load_teacher", lambda *_, **__: made)
    learnt: list[Sequence[str]] = []

    def keep(_: object, model: object, given: Task, **__: object) -> Any:
        learnt.append([given.definition.target_text(row) for row in given.train])
        return parse("majority").fit(None, given, seed=0, budget=Budget())

    monkeypatch.setattr("taskfit.strategy.composed.Composed.fit", keep)
    write(tmp_path / "more.jsonl", [{"text": f"row {n}"} for n in range(30)])
    task = replace(task, unlabelled=(FileSource(str(tmp_path / "more.jsonl")),))
    fit("distil(student=lora, teacher=majority, rows=10)", task, None, tiny_model(tmp_path, "llama"))
    assert len(learnt[0]) == 10
    assert all(text.startswith("well, row") for text in learnt[0])


def test_what_a_plan_asks(path: Path) -> None:
    task = load_task(path)
    for name in ("distil", "distil(teacher=linear, human=mixed)"):
        check_task(parse(name), task)
    assert labels_used(parse("distil"), task, None) == 40
    assert labels_used(parse("distil(human=mixed)"), task, 20) == 60
    assert labels_used(parse("distil(teacher=few-shot(k=2))"), task, None) == 80
    before = other_data(parse("distil"), task)
    write(path.with_name("more.jsonl"), [{"text": "another"}])
    assert other_data(parse("distil"), task) != before
    assert other_data(parse("distil(teacher_model=taskfit-tiny)"), task) != other_data(parse("distil"), task)
    bare = replace(task, unlabelled=())
    for name, words in (
        ("distil(human=mixed)", "needs other rows for the teacher"),
        ("distil(teacher=linear)", "learns from the only rows"),
        ('distil(teacher_from="nowhere")', "neither a saved predictor nor labels"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_task(parse(name), bare)
    empty = replace(bare, splits={**bare.splits, "train": ()})
    with pytest.raises(ConfigError, match="no rows to label"):
        check_task(parse("distil"), empty)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("distil(rows=0)", "rows must be at least 1"),
        ("distil(student=zero-shot)", "cannot learn from a teacher"),
        ("distil(student=majority)", "cannot learn from a teacher"),
        ("distil(human=after)", "is trained further"),
        ("distil(student=encoder(tune=lora), human=after)", "is trained further"),
        ("distil(student=encoder)", "name a teacher_model"),
        ("distil(student=lora, teacher=full)", "would change the model"),
        ("distil(teacher=linear, teacher_model=minilm)", "needs no model"),
        ('distil(teacher=linear, teacher_from="x")', "not both"),
        ("step-by-step(student=lora)", "must learn rationales"),
    ],
)
def test_what_cannot_be_is_said_when_the_name_is_read(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(name)


@pytest.mark.parametrize(
    "name",
    [
        "distil",
        "distil(student=static, teacher_model=taskfit-tiny)",
        "distil(student=tune(strategy=linear), labels=soft, weight=confidence)",
        "distil(student=lora, teacher=few-shot(k=2), human=mixed)",
        'distil(teacher_from="a b/c")',
        "distil(teacher=linear-probe)",
        "step-by-step",
        "step-by-step(student=full(rationale=0.5), rows=none)",
    ],
)
def test_names_parse_back(name: str) -> None:
    made = parse(name)
    assert isinstance(made, Distil)
    assert isinstance(made, StepByStep) == name.startswith("step")
    assert parse(made.name) == made


def test_a_reviewed_choice_must_be_one_of_the_rows_own_options(tmp_path: Path) -> None:
    """Each row brings its own; the other row's will not do."""
    write(tmp_path / "rows.jsonl", [{"q": f"q{n}", "o": [f"a{n}", f"b{n}"], "a": f"a{n}"} for n in range(40)])
    (tmp_path / "task.yaml").write_text("kind: choice\ninput: q\noptions: o\ntarget: a\ndata: rows.jsonl\n")
    definition = load_task(tmp_path / "task.yaml").definition
    rows = [Row(f"r{n}", {"q": f"q{n}", "o": [f"a{n}", f"b{n}"], "a": f"a{n}"}) for n in (1, 2)]
    path = tmp_path / "review.csv"
    with open_ledger(tmp_path / "ledger", {}) as ledger:
        ledger.fill({"train": rows})
        path.write_text("id,person\nr1,b1\nr2,b1\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"person must be one of a2, b2 \(got 'b1'\)"):
            read_review(path, definition, ledger)
        path.write_text("id,person\nr1,b1\nr2,b2\n", encoding="utf-8")
        assert read_review(path, definition, ledger) == 2
        assert reviewed(ledger.connection) == {"r1": "b1", "r2": "b2"}


def test_shares_of_all_rows_count_those_that_the_teacher_gave_no_label(path: Path, tmp_path: Path) -> None:
    """A teacher that answers only what is good makes nothing of the corpus better: half of it is bad."""
    task = load_task(path)
    rows = [Row(f"u{number}", record(number + 500)) for number in range(400)]
    only_good = Sayer(task, lambda row: "good" if number_of(row) % 2 == 0 else "")
    with open_ledger(tmp_path / "labels", {"task": "one"}) as ledger:
        ledger.fill({"human": task.validation, "audit": rows[:40], "train": rows[40:]})
        label_rows(ledger, only_good, lambda line: None)
        report, _ = make_report(task, ledger, only_good, {}, AnnotateConfig(count=400))
        reviewed_rows = {row.id: "good" for row in rows[:20:2]}
        of_labelled, _ = make_report(task, ledger, only_good, reviewed_rows, AnnotateConfig(count=400))
    assert report.attempts == {"accepted": 220, "no valid answer": 220}
    assert report.corpus["good"].machine == 0.5
    found = report.corpus["good"].interval
    assert (found.value, found.low < 0.5 < found.high) == (0.5, True)
    assert any("rows that the teacher could label: 220 others" in warning for warning in of_labelled.warnings)
    assert not any("could label" in warning for warning in report.warnings)


def test_ids_that_stand_on_audit_rows_and_on_the_tasks_own_are_named(path: Path, tmp_path: Path) -> None:
    """Files that each number from 1 must not look like a damaged ledger."""
    write(path.with_name("validation.jsonl"), ({"id": f"{n}", **record(n + 40)} for n in range(40)))
    for split in ("train", "test"):
        rows = [json.loads(line) for line in path.with_name(f"{split}.jsonl").read_text().splitlines()]
        write(path.with_name(f"{split}.jsonl"), ({"id": f"{split} {n}", **row} for n, row in enumerate(rows)))
    write(path.with_name("more.jsonl"), ({"id": f"{n}", "text": f"text {n}"} for n in range(30)))
    with pytest.raises(StudyError, match="stands on a row to label and on another"):
        annotate(path, Teacher(parse("majority"), None, None), tmp_path / "out", AnnotateConfig(count=30, audit=29))


def test_a_file_in_the_place_of_the_folder_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StudyError, match="out is a file"):
        annotate(path, Teacher(parse("majority"), None, None), tmp_path / "out", AnnotateConfig(count=30))


def test_columns_of_mixed_values_become_text_in_parquet_and_others_stay(path: Path, tmp_path: Path) -> None:
    definition = load_task(path).definition
    values: list[dict[str, Any]] = [
        {"mixed": "one", "large": 2**70, "number": 1.5},
        {"mixed": 2.5, "large": 1, "number": 2.5},
    ]
    labels = [Label(Row(f"{n}", fields), "train", "good", None, "", 0, 0, 0) for n, fields in enumerate(values)]
    write_data(tmp_path / "a.parquet", definition, labels, {}, {}, has_rationales=False)
    found = [raw.fields for raw in read_file(tmp_path / "a.parquet")]
    assert [row["mixed"] for row in found] == ["one", "2.5"]
    assert [row["large"] for row in found] == [str(2**70), "1"]
    assert [row["number"] for row in found] == [1.5, 2.5]


@pytest.mark.parametrize(
    ("target", "field"),
    [("label", "label"), ("Right answer", "Right answer"), ("{{ a }}{{ b }}", "label")],
)
def test_labels_stand_in_the_field_that_the_task_reads(path: Path, target: str, field: str) -> None:
    definition = replace(load_task(path).definition, references=(field_source(target),))
    assert answer_field(definition) == field


@pytest.mark.parametrize(
    ("strategy", "may"),
    [("zero-shot", False), ("zero-shot(calibrate=auto)", True), ("few-shot(k=2)", True)],
)
def test_a_saved_teacher_that_chose_on_validation_may_have_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, may: bool
) -> None:
    named = SimpleNamespace(strategy=strategy)
    monkeypatch.setattr("taskfit.distillation.teacher.read_manifest", lambda folder: named)
    assert Teacher(None, tmp_path, None).may_have_learnt is may


def test_an_answer_whose_probability_is_rounded_to_1_gets_its_calibrated_share_too() -> None:
    """It would otherwise be learnt as certain, beside answers a millionth less sure that are not."""
    assert _with_share({"a": 1.0, "b": 0.0, "c": 0.0}, "a", 0.8) == pytest.approx({"a": 0.8, "b": 0.1, "c": 0.1})
    assert _with_share({"a": 0.9, "b": 0.1, "c": 0.0}, "a", 0.8) == pytest.approx({"a": 0.8, "b": 0.2, "c": 0.0})
    assert _with_share({"a": 1.0}, "a", 0.8) == {"a": 1.0}
