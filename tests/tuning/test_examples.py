"""What the model reads and what it is to learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskfit.errors import TrainingError
from taskfit.prompting.shots import FewShot, ZeroShot
from taskfit.tasks.task import Row
from taskfit.tuning.examples import IGNORED, Example, build_examples, collate
from tests.tuning.keyword_task import Family, keyword_task, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "chat", "t5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def built(folder: Path, family: Family, context: int | None = None, prompt: str = "") -> list[Example]:
    task = keyword_task(6, prompt=prompt)
    model = tiny_model(folder, family)
    if context is not None:
        model = replace(model, context=context)
    return build_examples(model, task.definition, ZeroShot().prepare(task, seed=0), task.train)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_and_its_end_are_supervised_and_nothing_else(folder: Path, family: Family) -> None:
    """The supervised labels decode to the label's text; the last one is the end token."""
    model = tiny_model(folder, family)
    examples = built(folder, family)
    labels = collate(examples, model.architecture, model.tokenizer.pad_token_id)["labels"]
    for example, row in zip(examples, labels, strict=True):
        supervised = row[row != IGNORED].tolist()
        assert supervised[-1] in model.end_token_ids
        expected = "positive" if int(example.row_id[1:]) % 2 else "negative"
        assert model.tokenizer.decode(supervised[:-1]).strip() == expected


def test_padding_that_equals_the_end_token_masks_no_end(folder: Path) -> None:
    """GPT-2 pads with its end token; each row still has exactly one supervised end."""
    model = tiny_model(folder, "gpt2")
    assert model.tokenizer.pad_token_id in model.end_token_ids
    examples = built(folder, "gpt2")
    batch = collate(examples, model.architecture, model.tokenizer.pad_token_id)
    assert len({example.length for example in examples}) > 1, "some rows must be padded"
    for example, labels, mask in zip(examples, batch["labels"], batch["attention_mask"], strict=True):
        assert (labels == model.end_token_ids[0]).sum() == 1
        assert mask.sum() == example.length
        assert (labels[mask == 0] == IGNORED).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_answer_are_what_prediction_will_read(folder: Path, family: Family) -> None:
    """Decoded, the prompt ends with the template's end and holds the row's text once."""
    model = tiny_model(folder, family)
    example = built(folder, family)[1]
    text = model.tokenizer.decode(example.prompt, skip_special_tokens=True)
    assert text.count("was good, said the") == 1
    assert text.count("Label:") == 1
    assert "positive" not in text


def test_a_long_prompt_loses_its_middle_and_never_the_answer(folder: Path) -> None:
    """The row is cut to the context and says by how much."""
    whole = built(folder, "gpt2")
    room = max(len(example.prompt) for example in whole) - 10
    cut = built(folder, "gpt2", context=room)
    assert [example.answer for example in cut] == [example.answer for example in whole]
    assert all(example.length <= room for example in cut)
    assert any(example.cut_tokens > 0 for example in cut)


def test_rows_that_do_not_fit_are_refused_with_count_and_example(folder: Path) -> None:
    """Nothing of the question would be left."""
    with pytest.raises(TrainingError, match=r"6 of 6 training rows cannot be learned from; row r0: "):
        built(folder, "gpt2", context=8)


def test_no_rows_are_refused(folder: Path) -> None:
    """An empty train split trains nothing."""
    task = keyword_task(2)
    with pytest.raises(TrainingError, match="no rows to train on"):
        build_examples(tiny_model(folder, "llama"), task.definition, ZeroShot().prepare(task, seed=0), [])


def test_an_empty_answer_is_refused(folder: Path) -> None:
    """A row whose target has nothing but the end token teaches nothing."""
    task = keyword_task(2, kind="generation")
    empty = Row("e1", {"text": "the fish was good", "label": ""})
    with pytest.raises(TrainingError, match=r"1 of 3 training rows .* row e1: its answer is empty"):
        build_examples(
            tiny_model(folder, "llama"), task.definition, ZeroShot().prepare(task, seed=0), [*task.train, empty]
        )


def test_a_demonstration_never_shows_the_row_its_own_answer(folder: Path) -> None:
    """Trained with few-shot prompts, a row's own question stands in the prompt once."""
    task = keyword_task(4)
    model = tiny_model(folder, "gpt2")
    for example in build_examples(model, task.definition, FewShot(k=4).prepare(task, seed=0), task.train):
        text = model.tokenizer.decode(example.prompt)
        assert text.count(f"number {example.row_id[1:]}\n") == 1
        assert text.count("Label:") == 4


def test_encoder_decoder_labels_have_their_own_length(folder: Path) -> None:
    """The prompt goes to the encoder, the answer to the decoder."""
    model = tiny_model(folder, "t5")
    batch = collate(built(folder, "t5"), model.architecture, model.tokenizer.pad_token_id)
    assert batch["labels"].shape[1] < batch["input_ids"].shape[1]
    assert (batch["input_ids"] != IGNORED).all()
