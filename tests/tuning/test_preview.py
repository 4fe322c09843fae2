"""What is shown before training starts."""

from __future__ import annotations

import pytest

from taskfit.errors import TrainingError
from taskfit.models.language_model import LanguageModel
from taskfit.tuning.examples import Example
from taskfit.tuning.preview import Preview
from taskfit.tuning.preview import preview as preview_of
from taskfit.tuning.training_set import TrainingSet
from tests.tuning.keyword_task import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny decoder without BOS."""
    return tiny_model(tmp_path_factory.mktemp("models"), "gpt2")


def example(model: LanguageModel, row_id: str, prompt: str, answer: str, **lost: int) -> Example:
    encode = model.tokenizer.encode
    return Example(row_id, tuple(encode(prompt)), (*encode(answer), model.end_token_ids[0]), **lost)


def preview(model: LanguageModel, examples: list[Example], batch: int = 1, shown: int = 1) -> Preview:
    data = TrainingSet(tuple(examples), (), len(examples))
    return preview_of(model, data, batch, shown=shown)


def test_supervised_text_is_marked(model: LanguageModel) -> None:
    """The first example is decoded with its end token."""
    shown = preview(model, [example(model, "a", "Label:", " yes")])
    assert shown.shown == ("Label:⟦ yes<|endoftext|>⟧",)
    assert "Label:⟦ yes<|endoftext|>⟧" in shown.lines()[1]
    assert len(shown.lines()) == 2


def test_tokens_are_counted(model: LanguageModel) -> None:
    """Sums over all examples."""
    examples = [example(model, "a", "Label: one", " yes"), example(model, "b", "Label:", " no")]
    shown = preview(model, examples)
    assert shown.rows == 2
    assert shown.supervised_tokens == sum(len(one.answer) for one in examples)
    assert shown.prompt_tokens == sum(len(one.prompt) for one in examples)
    assert shown.unended_rows == 0


def test_what_was_cut_is_said(model: LanguageModel) -> None:
    """Rows, tokens and worked examples."""
    examples = [
        example(model, "a", "one", " yes", cut_tokens=5),
        example(model, "b", "two", " yes", dropped_shots=2),
        example(model, "c", "three", " yes"),
    ]
    shown = preview(model, examples)
    assert (shown.cut_rows, shown.cut_tokens, shown.dropped_shots) == (2, 5, 2)
    assert any("2 of 3 rows are longer than the context; 5 tokens" in line for line in shown.lines())


def test_duplicates_and_conflicts_are_told_apart(model: LanguageModel) -> None:
    """Same prompt and answer, or same prompt and another answer."""
    examples = [
        example(model, "a", "one", " yes"),
        example(model, "b", "one", " yes"),
        example(model, "c", "one", " no"),
        example(model, "d", "two", " no"),
    ]
    shown = preview(model, examples)
    assert shown.duplicate_rows == ("b",)
    assert shown.conflicting_rows == (("a", "c"),)
    assert any("1 rows repeat an earlier one, first b" in line for line in shown.lines())
    assert any("first c against a" in line for line in shown.lines())


def test_a_missing_end_token_is_a_warning(model: LanguageModel) -> None:
    """A model trained so would not stop."""
    ids = tuple(model.tokenizer.encode(" yes"))
    shown = preview(model, [Example("a", (5,), ids)])
    assert shown.unended_rows == 1
    assert any("1 rows do not teach the end token" in line for line in shown.lines())


def test_nothing_supervised_is_refused(model: LanguageModel) -> None:
    """Training on nothing would report a loss of 0."""
    with pytest.raises(TrainingError, match="1 of 2 training rows have no supervised token, first b"):
        preview(model, [example(model, "a", "Label:", " yes"), Example("b", (5, 6), ())])


def test_a_long_prompt_is_shortened_for_the_eye_only(model: LanguageModel) -> None:
    """Both ends are shown, and the number of tokens between."""
    shown = preview(model, [Example("a", tuple([40] * 500), (41, model.end_token_ids[0]))])
    assert "[…260 tokens…]" in shown.shown[0]
    assert shown.prompt_tokens == 500


def test_answers_that_a_teacher_shares_a_row_among_are_no_conflict(model: LanguageModel) -> None:
    """The same row stands there once for each; another row with its prompt and a third answer is one."""
    shared = [example(model, "a", "Label:", " yes"), example(model, "a", "Label:", " no")]
    assert preview(model, shared).conflicting_rows == ()
    other = example(model, "b", "Label:", " maybe")
    assert preview(model, [*shared, other]).conflicting_rows == (("a", "b"),)
