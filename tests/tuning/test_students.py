"""What students learn from a teacher: soft labels, weights, rationales; static vectors and frozen encoders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from taskfit.errors import ConfigError, DataError, PredictorError, TrainingError
from taskfit.models.language_model import LanguageModel
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.identity import fingerprint
from taskfit.tasks.task import Row, Task, TeacherAnswer
from taskfit.tuning.classifier import class_loss
from taskfit.tuning.static_table import StaticTable, distil_table
from taskfit.tuning.teacher_answers import answer_parts, class_targets, rows_by_answer
from taskfit.tuning.training_set import build_training_set
from taskfit.tuning.vector_head import expanded, fit_head
from tests.tuning.keyword_task import Family, keyword_task, tiny_model

TASK = keyword_task(24, 8)
LABELS = TASK.definition.labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def taught(task: Task, said: TeacherAnswer | None, every: int = 1) -> Task:
    """Return the task with an answer of a teacher on every so many training rows."""
    rows = tuple(replace(row, teacher=said) if n % every == 0 else row for n, row in enumerate(task.train))
    return replace(task, splits={**task.splits, "train": rows})


def model(folder: Path, family: Family = "bert") -> LanguageModel:
    return tiny_model(folder, family)


def test_a_teachers_answer_goes_before_the_answer_in_the_data_and_is_part_of_the_fingerprint() -> None:
    row = replace(TASK.train[0], teacher=TeacherAnswer("positive", rationale=" it is good "))
    assert TASK.definition.gold(TASK.train[0]) == ("negative",)
    assert TASK.definition.gold(row) == ("positive",)
    assert TASK.definition.target_text(row) == "positive"
    assert TASK.definition.rationale_text(row) == "it is good"
    other = {**TASK.splits, "train": (row, *TASK.train[1:])}
    assert fingerprint(TASK.definition, other) != fingerprint(TASK.definition, TASK.splits)
    generation = keyword_task(kind="generation").definition
    assert generation.target_text(replace(row, teacher=TeacherAnswer("a text"))) == "a text"


def test_targets_share_out_each_rows_weight_and_rows_weigh_one_on_average() -> None:
    rows = [
        replace(TASK.train[0], teacher=TeacherAnswer("positive", {"positive": 0.75, "negative": 0.25}, weight=2.0)),
        replace(TASK.train[1], teacher=TeacherAnswer("negative", weight=0.5)),
        TASK.train[3],
    ]
    found = class_targets(TASK.definition, rows, LABELS)
    assert found is not None
    assert found == pytest.approx(np.array([[0.5, 1.5], [0.5, 0.0], [0.0, 1.0]]) * 3 / 3.5)
    assert class_targets(TASK.definition, TASK.train, LABELS) is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (TeacherAnswer("positive", weight=-1.0), "at least 0"),
        (TeacherAnswer("positive", {"positive": float("nan")}), "at least 0"),
        (TeacherAnswer("none of them"), "none of the 2 labels"),
        (TeacherAnswer("positive", weight=0.0), "weigh nothing"),
    ],
)
def test_answers_that_cannot_be_learnt_are_refused(said: TeacherAnswer, words: str) -> None:
    with pytest.raises(DataError, match=words):
        class_targets(TASK.definition, [replace(TASK.train[0], teacher=said)], LABELS)


def test_shares_of_strangers_and_crumbs_are_left_out_and_the_rest_sums_to_the_weight() -> None:
    said = TeacherAnswer("positive", {"positive": 0.6, "negative": 0.3, "odd": 0.095, "crumb": 0.005}, weight=0.5)
    row = replace(TASK.train[0], teacher=said)
    parts = answer_parts(TASK.definition, row, LABELS)
    assert [label for label, _ in parts] == ["positive", "negative"]
    assert [part for _, part in parts] == pytest.approx([1 / 3, 1 / 6])
    empty = replace(row, teacher=replace(said, shares={"odd": 1.0}))
    assert answer_parts(TASK.definition, empty, LABELS) == [("positive", 0.5)]


def test_soft_cross_entropy_is_the_weighted_sum_of_hard_ones() -> None:
    """The encoder's loss against shares, beside a loop over labels in float64."""
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": logits, "attention_mask": logits, "targets": targets}

    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return input_ids

    loss, count = class_loss(Fixed(), batch)
    by_hand = 0.0
    for row in range(5):
        for label in range(3):
            shares = logits[row].double().softmax(-1)
            by_hand -= float(targets[row, label]) * float(shares[label].log())
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)
    assert count == 5


@pytest.mark.parametrize(
    "name", ["linear", "static(dimensions=8)", "linear-probe", "encoder(learning_rate=0.003, max_steps=60)"]
)
def test_students_learn_the_teachers_answer_and_not_the_datas(folder: Path, name: str) -> None:
    """A teacher that turns every label round is believed; no validation rows, which would know better."""
    turned = tuple(
        replace(row, teacher=TeacherAnswer("negative" if TASK.definition.gold(row)[0] == "positive" else "positive"))
        for row in TASK.train
    )
    strategy = parse(name)
    task = replace(TASK, splits={**TASK.splits, "train": turned, "validation": ()})
    given = model(folder) if strategy.architectures else None
    found = strategy.fit(given, task, seed=0, budget=Budget()).predict(TASK.test)
    right = [one.answer in TASK.definition.gold(row) for one, row in zip(found, TASK.test, strict=True)]
    assert sum(right) <= 2


@pytest.mark.parametrize("name", ["linear(strength=1.0)", "static(dimensions=8)", "linear-probe"])
def test_shares_make_a_student_as_unsure_as_its_teacher(folder: Path, name: str) -> None:
    """With the same shares on every row, the student says those shares of every row."""
    strategy = parse(name)
    task = taught(TASK, TeacherAnswer("positive", {"positive": 0.75, "negative": 0.25}))
    given = model(folder) if strategy.architectures else None
    for one in strategy.fit(given, task, seed=0, budget=Budget()).predict(TASK.test):
        assert one.probabilities is not None
        assert one.probabilities["positive"] == pytest.approx(0.75, abs=0.02)


def test_a_row_without_weight_teaches_nothing() -> None:
    """A classifier fitted with a row of weight 0 is the one without it."""
    last = replace(TASK.train[-1], teacher=TeacherAnswer("positive", weight=0.0))
    kept = [replace(row, teacher=TeacherAnswer(TASK.definition.gold(row)[0])) for row in TASK.train[:-1]]
    vectors = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    targets = class_targets(TASK.definition, [*kept, last], LABELS)
    assert targets is not None
    rows, classes, weights = expanded(targets)
    assert set(rows.tolist()) == set(range(23))
    assert weights == pytest.approx(24 / 23)
    assert classes.tolist() == [LABELS.index(TASK.definition.gold(row)[0]) for row in TASK.train[:-1]]
    assert fit_head(vectors, targets, 1.0).coefficients.shape == (2, 5)


def test_a_label_that_is_never_taught_is_never_predicted() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    targets = np.eye(4)[[0, 2, 0, 2, 0, 2]]
    shares = fit_head(vectors, targets, 1.0).probabilities(vectors)
    assert shares[:, [1, 3]].max() == 0
    assert shares.sum(axis=1) == pytest.approx(1.0)
    alone = fit_head(vectors, np.eye(3)[[1] * 6], 1.0).probabilities(vectors)
    assert alone.tolist() == [[0, 1, 0]] * 6


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_model_that_generates_learns_each_share_with_its_weight(folder: Path, family: Family) -> None:
    """Shares of 3/4 and 1/4 at half the weight: tokens weigh so, and 1 on average."""
    half = TeacherAnswer("positive", {"positive": 0.75, "negative": 0.25}, weight=0.5)
    task = taught(keyword_task(4, 0), half, every=2)
    weights = parse("lora").weights  # type: ignore[attr-defined]
    program = parse("zero-shot").program.prepare(task, seed=0)  # type: ignore[attr-defined]
    data = build_training_set(model(folder, family), task, program, weights, seed=0)
    by_row: dict[str, list[float]] = {}
    for example in data.examples:
        by_row.setdefault(example.row_id, []).append(example.weight)
    first, plain = by_row["r0"], by_row["r1"]
    assert len(first) == 2
    assert len(plain) == 1
    assert [one / plain[0] for one in first] == [pytest.approx(0.375), pytest.approx(0.125)]
    tokens = sum(example.learned for example in data.examples)
    assert sum(example.weight * example.learned for example in data.examples) == pytest.approx(tokens)
    assert data.pass_size == 6


def test_a_teachers_reasons_are_learnt_without_a_rationale_in_the_task_file(folder: Path) -> None:
    task = taught(keyword_task(4, 0), TeacherAnswer("positive", rationale="it is called good"), every=2)
    weights = parse("lora(rationale=1.0)").weights  # type: ignore[attr-defined]
    program = parse("zero-shot").program.prepare(task, seed=0)  # type: ignore[attr-defined]
    data = build_training_set(model(folder, "t5"), task, program, weights, seed=0)
    assert [example.row_id for example in data.examples if "rationale" in example.row_id] == [
        "r0, rationale",
        "r2, rationale",
    ]
    with pytest.raises(ConfigError, match="needs rationales"):
        build_training_set(model(folder, "t5"), keyword_task(4, 0), program, weights, seed=0)


def test_rows_that_all_weigh_nothing_are_refused_by_a_model_that_generates(folder: Path) -> None:
    task = taught(keyword_task(4, 0), TeacherAnswer("positive", weight=0.0))
    weights, program = parse("lora").weights, parse("zero-shot").program.prepare(task, seed=0)  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="weigh nothing"):
        build_training_set(model(folder, "llama"), task, program, weights, seed=0)
    parts = list(
        rows_by_answer(task.definition, replace(task.train[0], teacher=TeacherAnswer("positive", {"positive": 0.03})))
    )
    assert [weight for _, weight in parts] == [1.0]


@pytest.mark.parametrize("name", ["static(dimensions=8)", "linear-probe", "linear-probe(pool=cls, strength=3.0)"])
def test_students_are_saved_and_predict_the_same_in_any_company(folder: Path, tmp_path: Path, name: str) -> None:
    """Loaded from its folder; one row at a time, in any order."""
    strategy = parse(name)
    fitted = strategy.fit(model(folder), TASK, seed=0, budget=Budget())
    fitted.save(tmp_path / "out")
    loaded = load_predictor(tmp_path / "out", model=model(folder) if name.startswith("linear") else None)
    whole = list(fitted.predict(TASK.test))
    assert [one.probabilities for one in loaded.predict(TASK.test)] == [one.probabilities for one in whole]
    for row, one in zip(reversed(TASK.test), reversed(whole), strict=True):
        (alone,) = loaded.predict([row])
        assert alone.answer == one.answer
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-6)
    assert parse(strategy.name) == strategy
    assert fitted.fit_work.computed_tokens > 0


def test_a_texts_static_vector_is_the_mean_of_its_tokens(folder: Path) -> None:
    """Beside the tokenizer run over the whole text and a loop in float64."""
    table, work = distil_table(model(folder), 8)
    text = "the film was good, said the cook"
    total = np.zeros(8)
    for token in table.tokenizer.encode(text, add_special_tokens=False).ids:
        total += table.vectors[token].astype(np.float64)
    found = table.embed(["", text, "the"])
    assert found[0].tolist() == [0.0] * 8
    assert found[1] == pytest.approx(total / np.linalg.norm(total), abs=1e-5)
    assert work.computed_tokens == 3 * len(table.vectors)


def test_words_are_forgotten_when_there_are_too_many_and_vectors_stay_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = distil_table(model(folder), 8)
    texts = [f"the boat {n} sails {n * 7}" for n in range(40)]
    before = StaticTable(table.vectors, table.tokenizer).embed(texts)
    monkeypatch.setattr("taskfit.tuning.static_table._MOST_WORDS", 5)
    few = StaticTable(table.vectors, table.tokenizer)
    after = np.concatenate([few.embed([text]) for text in texts])
    assert after.tolist() == before.tolist()
    assert len(few._places) <= 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("static(dimensions=1)", "dimensions must be at least 2"),
        ("static(strength=0)", "strength must be above 0"),
        ("linear-probe(max_tokens=2)", "max_tokens must be at least 4"),
        ("linear-probe(strength=-1.0)", "strength must be above 0"),
    ],
)
def test_wrong_parameters_are_named(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(name)


def test_a_damaged_static_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    parse("static(dimensions=8)").fit(model(folder), TASK, seed=0, budget=Budget()).save(tmp_path / "out")
    path = tmp_path / "out" / "vectors.safetensors"
    good = load_file(path)["vectors"]
    for wrong, words in (
        ({"vectors": good[:-1]}, "of shape"),
        ({"vectors": good.astype(np.float32)}, "must be float16"),
        ({"vectors": np.full_like(good, np.nan)}, "NaN"),
        ({"others": good}, "expected vectors"),
    ):
        save_file(wrong, path)
        with pytest.raises(PredictorError, match=words):
            load_predictor(tmp_path / "out")
    path.write_bytes(b"no tensors")
    with pytest.raises(PredictorError, match="cannot read"):
        load_predictor(tmp_path / "out")
    for text in (json.dumps({"version": "1.0"}), None):
        if text is None:
            (tmp_path / "out" / "tokenizer.json").unlink()
        else:
            (tmp_path / "out" / "tokenizer.json").write_text(text)
        with pytest.raises(PredictorError, match=r"tokenizer\.json"):
            load_predictor(tmp_path / "out")


def test_an_encoder_whose_tokenizer_is_no_fast_one_gives_no_static_vectors(folder: Path) -> None:
    given = replace(model(folder), tokenizer=object())
    with pytest.raises(ConfigError, match="cannot be saved as one file"):
        distil_table(given, 8)


def test_rows_are_plain_rows_without_a_teacher() -> None:
    assert Row("a", {}) == Row("a", {}, None)
