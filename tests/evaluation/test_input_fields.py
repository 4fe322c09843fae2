from __future__ import annotations

from taskfit.evaluation.input_fields import input_fields
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import Row


def definition(kind: str, prompt: str, *, target: str = "{{ label }}", options: str | None = None) -> TaskDefinition:
    """A task of one wording; the text is its prompt."""
    labels = ("a", "b") if kind == "classification" else ()
    wording = Wording("w", prompt, target, {}, options)
    return TaskDefinition("t", kind, (wording,), prompt, (target,), labels, ("accuracy",))  # type: ignore[arg-type]


ROW = Row("r", {"text": "one", "label": "a", "note": "unused", "my field": "two", "number": 3, "choices": ["x", "y"]})


def test_fields_that_are_asked_and_say_no_answer_are_the_input() -> None:
    """Also those that are taken by row["..."]; numbers and unused fields are not."""
    asked = definition("classification", '{{ text }} {{ row["my field"] }} {{ number }}')
    assert input_fields(asked, [ROW]) == ("text", "my field")


def test_fields_that_say_the_answer_or_an_option_are_left_out() -> None:
    """Changing them would change what is right."""
    assert input_fields(definition("classification", "{{ text }} {{ label }}"), [ROW]) == ("text",)
    row = Row("r", {"question": "q", "x": "red", "y": "blue", "right": "red"})
    choice = definition("choice", "{{ question }} {{ x }} {{ y }}", target="{{ right }}", options="{{ [x, y] }}")
    assert input_fields(choice, [row]) == ("question",)
    copied = definition("generation", "{{ text }}", target="{{ text }}")
    assert input_fields(copied, [ROW]) == ()


def test_fields_that_a_template_needs_as_they_are_are_left_out() -> None:
    """A text that chooses by another text is not free."""
    picky = definition("classification", "{{ {'one': 'x'}[text] }} {{ note }}")
    assert input_fields(picky, [ROW]) == ("note",)


def test_rows_may_lack_what_others_have() -> None:
    """None is no text."""
    rows = [ROW, Row("s", {**ROW.fields, "text": None})]
    assert input_fields(definition("classification", "{{ text }}"), rows) == ("text",)
