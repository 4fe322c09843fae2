"""A definition renders rows, and survives JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError, TaskError
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.options import options_from
from taskfit.tasks.task import Option, Row
from taskfit.tasks.wordings import default_wording

ROW = Row("r1", {"text": " Good. ", "label": 1, "choices": ["yes", "no"], "answer": "no", "long": "An answer.\n"})
CLASSIFICATION = TaskDefinition(
    name="t",
    kind="classification",
    wordings=(
        default_wording(
            "classification",
            "{{ text }}",
            "{{ label }}",
            instruction="Is it {good}?",
            label_texts={"0": "bad", "1": "good"},
            label_count=2,
        ),
    ),
    text="{{ text }}",
    references=("{{ label }}",),
    labels=("0", "1"),
    metrics=("accuracy",),
)
CHOICE = replace(
    CLASSIFICATION,
    kind="choice",
    wordings=(default_wording("choice", "{{ text }}", "{{ answer }}", options="{{ choices }}"),),
    references=("{{ answer }}",),
    labels=(),
)
GENERATION = replace(
    CLASSIFICATION,
    kind="generation",
    wordings=(default_wording("generation", "{{ text }}", "{{ long }}"),),
    references=("{{ long }}", "{{ other | default('') }}", "{{ long }}"),
    labels=(),
    rationale="{{ why }}",
)


def test_the_default_prompt_of_a_classification() -> None:
    """Instruction, input, options and the word Answer, divided by empty lines, with no white space at the end."""
    assert CLASSIFICATION.prompt_text(ROW) == "Is it {good}?\n\n Good. \n\nOptions: bad, good\n\nAnswer:"


def test_the_default_prompt_of_a_choice() -> None:
    """Options stand one on a line."""
    assert CHOICE.prompt_text(ROW) == " Good. \n\nOptions:\n- yes\n- no\n\nAnswer:"


def test_the_default_prompt_of_a_generation() -> None:
    """There is nothing to choose from."""
    assert GENERATION.prompt_text(ROW) == " Good. \n\nAnswer:"


def test_many_labels_are_not_listed() -> None:
    """With more than 20 labels the prompt would be all labels."""
    assert "Options" in default_wording("classification", "a", "b", label_count=20).prompt
    assert "Options" not in default_wording("classification", "a", "b", label_count=21).prompt


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=" \n\tab", max_size=10))
def test_prompts_never_end_in_white_space(end: str) -> None:
    """Whatever the template says."""
    definition = replace(CLASSIFICATION, wordings=(Wording("w", "{{ text }}" + end, "{{ label }}", {}),))
    prompt = definition.prompt_text(ROW)
    assert prompt == prompt.rstrip()


def test_the_target_is_the_text_of_the_option_that_is_gold() -> None:
    """What is trained is what is scored."""
    for definition in (CLASSIFICATION, CHOICE):
        texts = {option.value: option.text for option in definition.options(ROW)}
        assert definition.target_text(ROW) == texts[definition.gold(ROW)[0]]
    assert (CLASSIFICATION.gold(ROW), CLASSIFICATION.target_text(ROW)) == (("1",), "good")
    assert (GENERATION.gold(ROW), GENERATION.target_text(ROW)) == (("An answer.",), "An answer.")
    assert GENERATION.options(ROW) == ()


def test_a_choice_may_be_answered_by_value_or_by_text() -> None:
    """Gold is the option's value in both cases."""
    row = Row("r", {"text": "", "choices": {"label": ["A", "B"], "text": ["one", "two"]}, "answer": "two"})
    assert CHOICE.gold(row) == ("B",)
    assert CHOICE.gold(Row("r", {**row.fields, "answer": "B"})) == ("B",)
    assert CHOICE.target_text(row) == "two"


def test_an_answer_outside_the_options_is_a_data_error() -> None:
    """The row and the nearest option are named."""
    with pytest.raises(DataError, match=r"row r: answer 'noo' is none of the 2 options \(did you mean 'no'\?\)"):
        CHOICE.target_text(Row("r", {**ROW.fields, "answer": "noo"}))


def test_a_missing_field_names_the_row() -> None:
    """Prediction over rows of another shape fails at the first one, loudly."""
    with pytest.raises(TaskError, match=r"row r9: template '.*' names 'text', which is no field"):
        CLASSIFICATION.prompt_text(Row("r9", {"body": "x"}))
    with pytest.raises(TaskError, match="row r9"):
        CHOICE.options(Row("r9", {"body": "x"}))


def test_a_wording_that_is_not_there_is_a_config_error() -> None:
    """Negative numbers do not count from the end."""
    for number in (1, -1):
        with pytest.raises(ConfigError, match="wording must be between 0 and 0"):
            CLASSIFICATION.prompt_text(ROW, number)


def test_reasons_are_empty_where_a_row_has_none() -> None:
    """Only some rows need reasons."""
    assert GENERATION.rationale_text(ROW) == ""
    assert GENERATION.rationale_text(Row("r", {"why": " because "})) == "because"
    assert CLASSIFICATION.rationale_text(ROW) == ""


def test_a_generation_without_options_has_no_answer_choices() -> None:
    """A template that asks for them fails instead of printing nothing."""
    definition = replace(GENERATION, wordings=(Wording("w", "{{ answer_choices | join }}", "a", {}),))
    with pytest.raises(TaskError, match="names 'answer_choices', which is no field"):
        definition.prompt_text(ROW)


def test_answer_choices_of_a_wording_keep_their_own_order() -> None:
    """Promptsource templates index them by label."""
    wording = Wording("w", "{{ text }}", "{{ answer_choices[label] }}", {"0": "no", "1": "yes"}, "no ||| yes")
    definition = replace(CLASSIFICATION, wordings=(wording,))
    assert definition.written_target(ROW) == "yes"
    assert definition.input_text(ROW) == "Good."


@pytest.mark.parametrize("definition", [CLASSIFICATION, CHOICE, GENERATION])
def test_json_gives_the_definition_back(definition: TaskDefinition) -> None:
    """Through real JSON text."""
    assert TaskDefinition.from_json(json.loads(json.dumps(definition.to_json()))) == definition


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("kind", "ranking", "kind must be one of"),
        ("name", 7, "name must be a text"),
        ("text", "{{ a", "is no Jinja2 template"),
        ("labels", "a", "labels must be a list"),
        ("labels", [1], "labels must be a text"),
        ("references", ["{% x %}"], "is no Jinja2 template"),
        ("instruction", 7, "instruction must be a text"),
        ("max_answer_tokens", True, "max_answer_tokens must be a whole number"),
        ("wordings", [], "at least one wording"),
        ("wordings", [7], "must be a mapping"),
        ("wordings", [{"name": "a"}], "key 'prompt' is missing"),
        ("wordings", [{**CHOICE.to_json()["wordings"][0], "label_texts": [], "options": 7}], "label_texts must map"),  # type: ignore[index,dict-item]
        ("metrix", [], "unknown key 'metrix' (did you mean 'metrics'?)"),
    ],
)
def test_a_damaged_definition_is_refused(key: str, value: object, said: str) -> None:
    """A predictor folder may come from anywhere."""
    with pytest.raises(TaskError) as caught:
        TaskDefinition.from_json({**CHOICE.to_json(), key: value})  # type: ignore[dict-item]
    assert said in caught.value.message


def test_a_definition_that_is_no_mapping_is_refused() -> None:
    """As above."""
    with pytest.raises(TaskError, match="expected a mapping"):
        TaskDefinition.from_json([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", 2], [("a", "a"), ("2", "2")]),
        ("a ||| b", [("a", "a"), ("b", "b")]),
        ('["a", "b|||c"]', [("a", "a"), ("b|||c", "b|||c")]),
        ("[a ||| b]", [("[a", "[a"), ("b]", "b]")]),
        ([{"label": "A", "text": "x"}], [("A", "x")]),
        ({"id": [1, 2], "text": ["x", "y"]}, [("1", "x"), ("2", "y")]),
        ({"text": ["x", "y"]}, [("x", "x"), ("y", "y")]),
    ],
)
def test_options_may_be_written_in_many_ways(value: object, expected: list[tuple[str, str]]) -> None:
    """All the shapes that data sets use."""
    assert options_from(value) == tuple(Option(*pair) for pair in expected)


@pytest.mark.parametrize("value", [7, None, [None], [["a"]], [{"text": "a"}], {"label": ["A"], "text": ["a", "b"]}])
def test_what_holds_no_options_is_refused(value: object) -> None:
    """Nothing is guessed."""
    with pytest.raises(DataError):
        options_from(value)
