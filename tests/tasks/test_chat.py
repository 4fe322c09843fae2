"""Rows that hold conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskfit.errors import DataError, TaskError
from taskfit.prompting.shots import ZeroShot
from taskfit.tasks import load_task
from taskfit.tasks.chat import Chat, asked, read_chat
from taskfit.tasks.definition import TaskDefinition
from taskfit.tasks.prompt import Prompt, Shot
from tests.tasks.conftest import WriteTask

TASK = "kind: generation\nmessages: {field}\ndata: {{train: a.jsonl, validation: b.jsonl, test: c.jsonl}}\n"


def said(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def rows(start: int) -> list[dict[str, object]]:
    return [{"talk": said(f"q{n}", f"a{n}", f"r{n}", f"b{n}", system="be kind")} for n in range(start, start + 3)]


def written(write_task: WriteTask, field: str = "talk", **extra: str) -> Path:
    text = TASK.format(field=field) + "".join(f"{key}: {value}\n" for key, value in extra.items())
    return write_task(text, a__jsonl=rows(0), b__jsonl=rows(10), c__jsonl=rows(20))


def test_a_conversation_becomes_turns_a_question_and_its_answer() -> None:
    """The last exchange is what is asked; a conversation that ends with the user has no answer yet."""
    assert read_chat(said("a", "b", "c", "d")) == Chat((Shot("a", "b"),), "c", "d")
    assert read_chat(said("a", "b", "c")) == Chat((Shot("a", "b"),), "c", "")
    assert read_chat(said("a", system="s")) == Chat((), "a", "", "s")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a list of mappings"),
        ("hello", "must be a list of mappings"),
        (["hello"], "message 1 must be a mapping with role and content"),
        ([{"role": "human", "content": "a"}], "role must be one of system, user, assistant .got 'human'"),
        ([{"role": "user", "content": ["a"]}], "message 1: content must be a text"),
        ([{"role": "user", "content": " "}], "message 1: content must be a text"),
        (said("a", "b")[1:], "message 1 must be by the user .got assistant."),
        ([*said("a"), *said("b")], "message 2 must be by the assistant .got user."),
        ([*said("a", "b"), {"role": "system", "content": "s"}], "message 3 must be by the user .got system."),
        (said(system="s"), "at least one by the user"),
    ],
)
def test_what_is_no_conversation_is_refused(value: object, message: str) -> None:
    """With the number of the message."""
    with pytest.raises(DataError, match=message):
        read_chat(value)


@pytest.mark.parametrize("field", ["talk", "'{{ row[\"talk\"] }}'"])
def test_a_task_of_conversations_asks_their_last_question(write_task: WriteTask, field: str) -> None:
    """With the turns before it; texts are there for what reads texts."""
    task = load_task(written(write_task, field))
    definition, row = task.definition, task.train[0]
    assert definition.kind == "generation"
    assert asked(definition, row) == Prompt("r0", (Shot("q0", "a0"),), "be kind")
    assert ZeroShot().prepare(task, seed=0).prompt(definition, row) == asked(definition, row)
    assert definition.target_text(row) == "b0"
    assert definition.gold(row) == ("b0",)
    assert definition.input_text(row) == "system: be kind\n\nuser: q0\n\nassistant: a0\n\nuser: r0"
    assert TaskDefinition.from_json(definition.to_json()) == definition


def test_a_task_without_conversations_keeps_its_json() -> None:
    """Fingerprints of tasks and folders of predictors stay what they were."""
    from tests.tuning.keyword_task import keyword_task

    values = keyword_task(2).definition.to_json()
    assert "messages" not in values
    assert TaskDefinition.from_json(values).messages is None


def test_a_faulty_conversation_is_named_with_its_row(write_task: WriteTask) -> None:
    """At load, not in the middle of training."""
    path = written(write_task)
    broken = '{"id": "x1", "talk": [{"role": "assistant", "content": "hi"}]}\n'
    (path.parent / "a.jsonl").write_text(broken, encoding="utf-8")
    with pytest.raises(DataError, match=r"messages: message 1 must be by the user .*a\.jsonl:1"):
        load_task(path)


@pytest.mark.parametrize(
    ("field", "extra", "message"),
    [
        ("talk", {"input": "x"}, "`messages` says what `input` would"),
        ("talk", {"instruction": "Be kind"}, "with the role system"),
        ("'{{ talk }} and {{ more }}'", {}, "one Jinja2 expression"),
    ],
)
def test_a_faulty_key_is_refused(write_task: WriteTask, field: str, extra: dict[str, str], message: str) -> None:
    """With the other keys that say the same."""
    with pytest.raises(TaskError, match=message):
        load_task(written(write_task, field, **extra))


def test_conversations_are_generated(write_task: WriteTask) -> None:
    """Other kinds have labels or options."""
    path = written(write_task)
    path.write_text(path.read_text(encoding="utf-8").replace("generation", "choice"), encoding="utf-8")
    with pytest.raises(TaskError, match="belongs to kind generation"):
        load_task(path)
