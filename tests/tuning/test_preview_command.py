"""``taskfit fit --preview``, and data that would make a training silently wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from taskfit.errors import ConfigError, TrainingError
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import ZeroShot
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.studies.fit import preview
from taskfit.tasks.task import Row
from taskfit.testing import tiny_decoder, tiny_encoder
from taskfit.tuning.batches import StepPlan
from taskfit.tuning.examples import Example, build_examples, collate
from taskfit.tuning.memory_plan import TOKEN_BUDGET
from taskfit.tuning.preview import preview as preview_of
from taskfit.tuning.training_set import TrainingSet
from tests.cli.conftest import Taskfit, taskfit  # noqa: F401  (a fixture)
from tests.tuning.keyword_task import keyword_task, tiny_model

TASK = """
kind: classification
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
input: text
target: label
labels: [good, bad]
"""


@pytest.fixture
def task_path(tmp_path: Path) -> Path:
    """Eight training rows of which one contradicts another."""
    for name, start in (("train", 0), ("validation", 100), ("test", 200)):
        made = [{"text": f"the fish was number {n}", "label": ("good", "bad")[n % 2]} for n in range(start, start + 7)]
        if name == "train":
            made.append({**made[0], "label": "bad", "other": 1})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path / "task.yaml"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def decoder(models: Path) -> Path:
    return tiny_decoder(models / "decoder")


def test_the_command_shows_rows_with_their_mask_and_writes_nothing(
    taskfit: Taskfit,  # noqa: F811
    task_path: Path,
    decoder: Path,
) -> None:
    """On standard output, for people and pipes; nothing is trained."""
    before = sorted(task_path.parent.iterdir())
    ran = taskfit("fit", task_path, "--strategy", "lora(rank=2)", "--model", decoder, "--preview")
    assert ran.code == 0, ran.err
    assert ran.out.count("⟦") == 3 + 1
    for words in ("lora trains", "8 rows:", "supervised tokens", "prompt tokens", "0 rows were cut"):
        assert words in ran.out
    assert "1 rows have the prompt of an earlier row and another answer" in ran.out
    assert "8 rows are fewer than one batch of 16" in ran.out
    assert "7 further examples are held out" in ran.out
    assert "loss" not in ran.out + ran.err
    assert sorted(task_path.parent.iterdir()) == before


@pytest.mark.parametrize("options", [(), ("--preview", "--out", "one")])
def test_either_a_folder_or_a_preview_is_asked_for(
    taskfit: Taskfit,  # noqa: F811
    task_path: Path,
    options: tuple[str, ...],
) -> None:
    """Both or none is a mistake."""
    ran = taskfit("fit", task_path, "--strategy", "lora", *options)
    assert ran.code == 2
    assert "--preview" in ran.error_line


def test_what_learns_no_tokens_has_no_preview(task_path: Path, decoder: Path) -> None:
    """Programs and floors."""
    with pytest.raises(ConfigError, match="trains nothing"):
        preview(task_path, "few-shot(k=2)", model=str(decoder))
    with pytest.raises(ConfigError, match="no tokens to preview"):
        preview(task_path, "majority")


def test_an_encoder_shows_its_texts_with_their_labels(task_path: Path, models: Path) -> None:
    """And the rows that contradict each other."""
    lines = preview(task_path, "encoder", model=str(tiny_encoder(models / "encoder")))
    assert sum("⟦" in line for line in lines) == 3
    assert any("1 rows have the text of an earlier row and another label" in line for line in lines)


def test_every_stage_shows_what_it_learns(task_path: Path, decoder: Path) -> None:
    """First the text, then the rows."""
    lines = preview(task_path, "continued-pretraining(length=32)+prompt-tuning(tokens=4)", model=str(decoder))
    assert any(
        line.startswith("8 documents of the task's own rows") or "documents of the task's own" in line for line in lines
    )
    assert any(line.startswith("prompt-tuning trains") for line in lines)


# --- bad input


def built(model: LanguageModel, context: int | None = None) -> list[Example]:
    task = keyword_task(6)
    model = model if context is None else replace(model, context=context)
    return build_examples(model, task.definition, ZeroShot().prepare(task, seed=0), task.train)


def test_a_prompt_longer_than_what_vectors_leave_is_cut_and_said(models: Path) -> None:
    """512 tokens, of which 496 are vectors: the question loses its middle, the answer nothing."""
    said: list[str] = []
    strategy = parse("prompt-tuning(tokens=496, epochs=1, min_steps=1)")
    strategy.fit(tiny_model(models, "llama"), keyword_task(4, 2), seed=0, budget=Budget(say=said.append))
    assert any("4 of 4 rows are longer than the context" in line for line in said)


def test_where_vectors_leave_no_room_for_a_question_rows_are_refused(models: Path) -> None:
    """With their number, the room there is, and what to lower."""
    strategy = parse("prompt-tuning(tokens=496, epochs=1, min_steps=1)")
    task = keyword_task(4, 2, kind="generation")
    rows = tuple(Row(row.id, {**row.fields, "label": "the fish and the boat and the sun " * 3}) for row in task.train)
    task = replace(task, splits={**task.splits, "train": rows})
    with pytest.raises(TrainingError, match=r"4 of 4 training rows .*\(16 tokens\) is too short") as caught:
        strategy.fit(tiny_model(models, "llama"), task, seed=0, budget=Budget())
    assert "take fewer vectors (tokens=)" in str(caught.value.hint)


def test_a_tokenizer_without_an_end_token_is_refused(models: Path) -> None:
    """The model could not learn to stop."""
    with pytest.raises(TrainingError, match="has no end token"):
        built(replace(tiny_model(models, "llama"), end_token_ids=()))


def test_a_tokenizer_without_padding_trains_the_same(models: Path) -> None:
    """Padding is masked, so any token will do."""
    task, strategy = keyword_task(6, 4), parse("full(epochs=1, min_steps=3, batch=4)")
    probabilities = []
    for pad in (True, False):
        model = tiny_model(models, "llama")
        if not pad:
            model.tokenizer.pad_token = None
        made = strategy.fit(model, task, seed=0, budget=Budget())
        probabilities.append([one.probabilities for one in made.predict(task.test)])
    assert probabilities[0] == probabilities[1]


def test_fewer_rows_than_a_batch_are_learned_and_said(models: Path) -> None:
    """Each step sees all of them."""
    said: list[str] = []
    strategy = parse("full(epochs=1, min_steps=2, batch=16)")
    strategy.fit(tiny_model(models, "llama"), keyword_task(3, 2), seed=0, budget=Budget(say=said.append))
    assert "3 rows are fewer than one batch of 16: every step sees all of them" in said


def test_a_label_that_the_tokenizer_does_not_know_is_refused(models: Path) -> None:
    """Two such labels would be one; a free answer is only warned of."""
    task = keyword_task(4, 2)
    model = tiny_model(models, "t5")
    unknown = model.tokenizer.unk_token_id
    assert unknown is not None
    label = next(sign for sign in "漢字鱼" if unknown in model.tokenizer(sign, add_special_tokens=False)["input_ids"])
    definition = replace(task.definition, labels=("negative", label))
    rows = [Row("a", {"text": "the fish was good", "label": label})]
    with pytest.raises(
        TrainingError, match=f"row a: the tokenizer of .* does not know what stands in the answer '{label}'"
    ):
        build_examples(model, definition, ZeroShot().prepare(task, seed=0), rows)
    free = replace(task.definition, kind="generation", labels=())
    examples = build_examples(model, free, ZeroShot().prepare(task, seed=0), rows)
    lines = preview_of(model, TrainingSet(tuple(examples), (), 1), 1).lines()
    assert any("1 supervised tokens stand for what the tokenizer does not know" in line for line in lines)


def test_padding_is_counted_as_it_will_be_computed(models: Path) -> None:
    """Rows of like length share a micro-batch; its shorter ones are filled up, unless rows are packed."""
    model = tiny_model(models, "gpt2")
    end = model.end_token_ids[0]
    examples = tuple(Example(str(n), tuple([5] * (n + 1)), (6, end)) for n in range(4))
    for batch, order in ((4, None), (2, (0, 1, 2, 3)), (1, None)):
        plan = StepPlan(tuple(example.length for example in examples), batch, TOKEN_BUDGET, 0, order)
        groups = [rows for step in range(4 // batch) for rows in plan.micro_batches_at(step)]
        masks = [collate([examples[row] for row in rows], "decoder", end)["attention_mask"] for rows in groups]
        padding = sum(int((mask == 0).sum()) for mask in masks)
        assert (padding > 0) == (batch == 4)
        assert preview_of(model, TrainingSet(examples, (), 4, order), batch).padding_tokens == padding
    assert preview_of(tiny_model(models, "llama"), TrainingSet(examples, (), 4), 4).padding_tokens == 0
