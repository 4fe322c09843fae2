"""Which rows are learned, in which words and in which order."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from taskfit.errors import ConfigError, TrainingError
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import FewShot, ZeroShot
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tasks import load_task
from taskfit.tasks.definition import Wording
from taskfit.tasks.task import Row, Task
from taskfit.tuning.answers import train_examples
from taskfit.tuning.examples import Example, collate
from taskfit.tuning.full import Full
from taskfit.tuning.loss import gathered_loss
from taskfit.tuning.rationales import RATIONALE_PREFIX, weigh, weighted
from taskfit.tuning.taught import Taught
from taskfit.tuning.training_set import TrainingSet, build_training_set
from tests.tasks.conftest import json_lines
from tests.tuning.keyword_task import keyword_task, tiny_model

WORDINGS = (
    Wording("plain", "{{ text }}\nLabel:", "{{ label }}", {}),
    Wording("asked", "Is it good? {{ text }}", "{{ label }}", {"positive": "yes", "negative": "no"}),
    Wording("short", "{{ text }} ->", "{{ label }}", {}),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny decoder."""
    return tiny_model(tmp_path_factory.mktemp("models"), "llama")


def worded_task(rows: int = 8) -> Task:
    task = keyword_task(rows, 4)
    return replace(task, definition=replace(task.definition, wordings=WORDINGS))


def built(model: LanguageModel, task: Task, method: Taught, *, seed: int = 0) -> TrainingSet:
    return build_training_set(model, task, ZeroShot().prepare(task, seed=0), method, seed=seed)


def texts(model: LanguageModel, data: TrainingSet, start: int = 0, stop: int | None = None) -> list[str]:
    order = data.order if data.order is not None else tuple(range(len(data.examples)))
    return [model.tokenizer.decode(data.examples[index].prompt) for index in order[start:stop]]


def wording_of(text: str) -> str:
    return "plain" if text.endswith("Label:") else "short" if text.endswith("->") else "asked"


def test_one_wording_is_that_of_the_program(model: LanguageModel) -> None:
    """All rows once a pass, in an order that the steps draw themselves."""
    data = built(model, worded_task(), Full())
    assert data.order is None
    assert (len(data.examples), data.pass_size, len(data.held_out)) == (8, 8, 4)
    assert {wording_of(text) for text in texts(model, data)} == {"plain"}


def test_all_wordings_are_drawn_anew_for_every_row_and_pass(model: LanguageModel) -> None:
    """Each pass holds every row once; over many passes each wording comes about equally often."""
    task = worded_task(10)
    data = built(model, task, Full(wordings="all", epochs=60, batch=5, min_steps=0))
    assert data.order is not None and len(data.order) == 600
    for start in range(0, 600, 10):
        ids = [data.examples[index].row_id for index in data.order[start : start + 10]]
        assert sorted(ids) == sorted(row.id for row in task.train)
    count = Counter(map(wording_of, texts(model, data)))
    assert all(abs(count[name] - 200) < 4 * math.sqrt(600 * 2 / 9) for name in ("plain", "asked", "short"))
    assert {wording_of(model.tokenizer.decode(one.prompt)) for one in data.held_out} == {"plain"}


def test_a_drawn_wording_brings_its_own_answer(model: LanguageModel) -> None:
    """Yes and no belong to the wording that asks."""
    data = built(model, worded_task(10), Full(wordings="all"))
    for example in data.examples:
        answer = model.tokenizer.decode(example.answer[:-1]).strip()
        is_asked = wording_of(model.tokenizer.decode(example.prompt)) == "asked"
        assert answer in (("yes", "no") if is_asked else ("positive", "negative"))


def test_draws_follow_the_seed(model: LanguageModel) -> None:
    """The same again for the same, others for another."""
    first, again, other = (built(model, worded_task(), Full(wordings="all"), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert texts(model, first) != texts(model, other)


def test_worked_examples_and_drawn_wordings_do_not_go_together(model: LanguageModel) -> None:
    """A row's own example, in other words, would stand in its prompt."""
    task = worded_task()
    with pytest.raises(ConfigError, match="wordings=all goes with zero-shot"):
        build_training_set(model, task, FewShot(k=2).prepare(task, seed=0), Full(wordings="all"), seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full(wordings=all)", "needs a task with several wordings"),
        ("lora(train_on=mixture)", "needs other tasks"),
        ("ia3(train_on=others)", "needs other tasks"),
        ("bitfit(rationale=0.5)", "needs rationales"),
    ],
)
def test_a_task_that_lacks_what_is_asked_for_is_refused(model: LanguageModel, name: str, message: str) -> None:
    """When the fit begins; a plan asks the same before."""
    with pytest.raises(ConfigError, match=message):
        parse(name).fit(model, keyword_task(4, 2), seed=0, budget=Budget())


def test_the_weight_of_rationales_is_a_finite_number() -> None:
    """From 0."""
    with pytest.raises(ConfigError, match="rationale must be at least 0"):
        parse("lora(rationale=-1)")


def test_an_encoder_takes_none_of_these_parameters() -> None:
    """It reads inputs alone, so they would be without effect."""
    with pytest.raises(ConfigError, match="wordings, rationale say what a model that generates learns from"):
        parse("encoder(tune=lora(wordings=all, rationale=1))")


# --- mixtures


def other_rows(count: int, start: int, form: str) -> list[dict[str, str]]:
    labels = ("up", "down") if form == "tides" else ("soup", "bread")
    return [{"text": f"{form} number {n} is there", "label": labels[n % 2]} for n in range(start, start + count)]


TASK = (
    "kind: classification\ninput: text\ntarget: label\n"
    "data: {{train: {0}a.jsonl, validation: {0}b.jsonl, test: {0}c.jsonl}}\n"
)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A task of 4 rows, ``tides`` of 12 and ``meals`` of 40, mixed with a cap of 20."""
    for name, rows in (("own", 4), ("tides", 12), ("meals", 40)):
        for split, count, start in (("a", rows, 0), ("b", 4, 500), ("c", 4, 900)):
            form = name if name != "own" else "meals"
            made = other_rows(count, start + (10_000 if name == "own" else 0), form)
            (tmp_path / f"{name}{split}.jsonl").write_text(json_lines(made), encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name), encoding="utf-8")
    path = tmp_path / "own.yaml"
    path.write_text(TASK.format("own") + "mixture: {tasks: [tides.yaml, meals.yaml], cap: 20}\n", encoding="utf-8")
    return path


def parts(data: TrainingSet, start: int, stop: int) -> Counter[str]:
    assert data.order is not None
    rows = [data.examples[index].row_id for index in data.order[start:stop]]
    return Counter(row.split("/")[0] if "/" in row else "own" for row in rows)


def test_each_pass_holds_the_capped_share_of_every_task(model: LanguageModel, mixed: Path) -> None:
    """4, 12 and 20 of 40: min(rows, cap) rows each."""
    data = built(model, load_task(mixed), Full(train_on="mixture", epochs=4, min_steps=0))
    assert data.pass_size == 36
    assert data.order is not None and len(data.order) >= 4 * 36
    for start in range(0, 4 * 36, 36):
        assert parts(data, start, start + 36) == {"own": 4, "tides": 12, "meals": 20}
    assert "4 of 4 (11%), tides 12 of 12 (33%), meals 20 of 40 (56%)" in data.notes[0]


def test_rows_above_the_cap_come_in_later_passes(model: LanguageModel, mixed: Path) -> None:
    """Each row once before any comes again."""
    data = built(model, load_task(mixed), Full(train_on="mixture", epochs=2, min_steps=0))
    assert data.order is not None
    twice = Counter(data.examples[index].row_id for index in data.order[: 2 * 36])
    assert [count for row, count in twice.items() if row.startswith("meals/")] == [1] * 40
    assert [count for row, count in twice.items() if not row.startswith("meals/")] == [2] * 16


def test_a_small_task_with_a_large_share_comes_again_within_a_pass(model: LanguageModel, mixed: Path) -> None:
    """Equal shares of 36: 12 of each."""
    text = mixed.read_text(encoding="utf-8").replace("cap: 20", "cap: 20, sampling: equal")
    mixed.write_text(text, encoding="utf-8")
    data = built(model, load_task(mixed), Full(train_on="mixture", epochs=1, min_steps=0))
    assert parts(data, 0, 36) == {"own": 12, "tides": 12, "meals": 12}
    own = Counter(data.examples[index].row_id for index in data.order[:36] if "/" not in data.examples[index].row_id)  # type: ignore[index]
    assert list(own.values()) == [3] * 4


def test_a_held_out_task_is_not_looked_at(model: LanguageModel, mixed: Path) -> None:
    """Neither its training rows nor its validation rows; the others' validation decides when to stop."""
    data = built(model, load_task(mixed), Full(train_on="others"))
    assert all("/" in example.row_id for example in data.examples)
    assert {example.row_id for example in data.held_out} == {
        row.id for name in ("tides", "meals") for row in load_task(mixed.with_name(f"{name}.yaml")).validation
    }
    assert "not looked at" in data.notes[1]


def test_in_a_mixture_the_task_itself_decides_when_to_stop(model: LanguageModel, mixed: Path) -> None:
    """Its validation rows alone."""
    task = load_task(mixed)
    data = built(model, task, Full(train_on="mixture"))
    assert {example.row_id for example in data.held_out} == {row.id for row in task.validation}


@pytest.mark.parametrize("train_on", ["mixture", "others"])
@pytest.mark.parametrize("name", ["full", "lora", "prompt-tuning", "norms", "adapter"])
def test_every_method_learns_a_mixture(
    tmp_path: Path, mixed: Path, model: LanguageModel, name: str, train_on: str
) -> None:
    """Saved, loaded and asked like any other."""
    said: list[str] = []
    strategy = parse(f"{name}(train_on={train_on}, epochs=1, min_steps=2, batch=8)")
    fresh = tiny_model(tmp_path, "llama")
    task = load_task(mixed)
    predictor = strategy.fit(fresh, task, seed=0, budget=Budget(say=said.append))
    assert any(line.startswith("a pass holds") for line in said)
    assert len(list(predictor.predict(task.test))) == 4
    assert parse(strategy.name) == strategy


def test_other_data_makes_another_trial(mixed: Path) -> None:
    """A mixture's rows and rules are part of what decides a result."""
    method = Full(train_on="mixture")
    before = method.other_data(load_task(mixed))
    assert before and before == method.other_data(load_task(mixed))
    assert Full().other_data(load_task(mixed)) == ""
    text = mixed.read_text(encoding="utf-8")
    mixed.write_text(text.replace("cap: 20", "cap: 21"), encoding="utf-8")
    changed = method.other_data(load_task(mixed))
    mixed.write_text(text, encoding="utf-8")
    rows = mixed.with_name("tidesa.jsonl")
    rows.write_text(rows.read_text(encoding="utf-8").replace("tides", "Tides", 1), encoding="utf-8")
    assert len({before, changed, method.other_data(load_task(mixed))}) == 3


# --- rationales


def reasoned_task(rows: int = 6, without: int = 0) -> Task:
    task = keyword_task(rows, 4)
    given = {row.id for row in task.train[without:]}
    train = tuple(
        Row(row.id, {**row.fields, "why": "the word good or bad is in it" if row.id in given else ""})
        for row in task.train
    )
    definition = replace(task.definition, rationale="{{ why }}")
    return replace(task, definition=definition, splits={**task.splits, "train": train})


def test_rationales_are_a_second_task_told_apart_by_a_prefix(model: LanguageModel) -> None:
    """The answer's own prompt stays as it is asked later; validation looks at answers alone."""
    data = built(model, reasoned_task(without=2), Full(rationale=1.0))
    asked = texts(model, data)
    reasons = [text for text in asked if RATIONALE_PREFIX in text]
    assert (len(asked), len(reasons)) == (6 + 4, 4)
    assert all(text.replace(RATIONALE_PREFIX, "") in asked for text in reasons)
    assert {example.weight for example in data.held_out} == {1.0}
    assert data.notes[-1].startswith("4 rationales are learned beside 6 answers")


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
def test_the_loss_is_that_of_answers_plus_the_weighed_one_of_rationales(model: LanguageModel, weight: float) -> None:
    """Means over tokens, as in equation 4 of Hsieh et al. 2023, up to a constant factor."""
    data = built(model, reasoned_task(), Full(rationale=weight))
    is_reason = [example.row_id.endswith("rationale") for example in data.examples]

    def loss(examples: list[Example]) -> tuple[float, int]:
        with torch.no_grad():
            total, tokens = weighted(gathered_loss)(model.module, collate(examples, "decoder", 0))
        return float(total), tokens

    whole, tokens = loss(list(data.examples))
    plain = [replace(example, weight=1.0) for example in data.examples]
    answers, answer_tokens = loss([one for one, reason in zip(plain, is_reason, strict=True) if not reason])
    reasons, reason_tokens = loss([one for one, reason in zip(plain, is_reason, strict=True) if reason])
    assert tokens == answer_tokens + reason_tokens
    expected = (answers / answer_tokens + weight * reasons / reason_tokens) / (1 + weight)
    assert whole / tokens == pytest.approx(expected, rel=1e-5)


def test_weights_do_not_depend_on_the_micro_batches(model: LanguageModel) -> None:
    """Summed over any split of the rows the loss is the same."""
    data = built(model, reasoned_task(), Full(rationale=0.5))
    loss = weighted(gathered_loss)
    with torch.no_grad():
        whole = float(loss(model.module, collate(data.examples, "decoder", 0))[0])
        parts = sum(float(loss(model.module, collate([one], "decoder", 0))[0]) for one in data.examples)
    assert whole == pytest.approx(parts, rel=1e-5)


def test_a_task_whose_rows_have_no_rationale_is_refused(model: LanguageModel) -> None:
    """The field is there and empty."""
    with pytest.raises(TrainingError, match="no training row has a rationale"):
        built(model, reasoned_task(without=6), Full(rationale=1.0))
    with pytest.raises(TrainingError, match="no training row has a rationale"):
        weigh([Example("a", (1,), (2,))], [], 1.0)


def test_a_fit_with_rationales_learns_and_answers(tmp_path: Path) -> None:
    """Through the strategy, for an encoder–decoder too."""
    for family in ("llama", "t5"):
        fresh = tiny_model(tmp_path, family)  # type: ignore[arg-type]
        task = reasoned_task()
        strategy = parse("full(rationale=0.5, epochs=1, min_steps=2, batch=4)")
        predictor = strategy.fit(fresh, task, seed=0, budget=Budget())
        assert len(list(predictor.predict(task.test))) == 8


def test_nothing_that_trains_can_be_without_supervised_tokens(model: LanguageModel) -> None:
    """One such row among others is refused, whoever made it."""
    from taskfit.tuning.answers import Pace
    from taskfit.tuning.method import Trainable

    data = TrainingSet((Example("a", (5, 6), (7, 2)), Example("b", (5, 6), (7, 2), read=((0, 2),))), (), 2)
    with pytest.raises(TrainingError, match="1 of 2 training rows have no supervised token, first b"):
        train_examples(model, data, Pace(Full(), 1e-3, "all"), Trainable("all"), seed=0, budget=Budget())
