"""Conversations: rows that hold a list of messages, each with a role and a content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import DataError, TaskError, TaskfitError
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.tasks.template import evaluate, single_expression

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["Chat", "asked", "chat_of", "chat_sources", "read_chat"]

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Chat:
    """A conversation up to its last question, and that question's answer.

    Attributes:
        turns: earlier questions with the answers they got.
        question: the last thing that the user said.
        answer: the assistant's reply to it; empty where the conversation ends with the user.
        system: what stands before everything, or None.
    """

    turns: tuple[Shot, ...]
    question: str
    answer: str
    system: str | None = None


def read_chat(value: object) -> Chat:
    """Read a list of messages: an optional ``system``, then ``user`` and ``assistant`` in turn.

    Raises:
        DataError: it is no such list; which message is wrong, and what was expected there.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"messages must be a list of mappings with role and content (got {_shown(value)})")
    texts = [_message(item, number) for number, item in enumerate(value, start=1)]
    system = texts[0][1] if texts[0][0] == "system" else None
    turns = texts if system is None else texts[1:]
    first = 1 if system is None else 2
    for place, (role, _) in enumerate(turns):
        expected = ("user", "assistant")[place % 2]
        if role != expected:
            raise DataError(f"message {place + first} must be by the {expected} (got {role}); the two take turns")
    if not turns:
        raise DataError("messages must hold at least one by the user (got a system message alone)")
    contents = [content for _, content in turns]
    answer = contents.pop() if len(contents) % 2 == 0 else ""
    pairs = zip(contents[0:-1:2], contents[1:-1:2], strict=True)
    return Chat(tuple(Shot(question, reply) for question, reply in pairs), contents[-1], answer, system)


def chat_of(definition: TaskDefinition, row: Row) -> Chat | None:
    """Return the row's conversation; None where the task's rows hold none.

    Raises:
        TaskError: the row lacks the field. DataError: it holds no conversation. Both name the row.
    """
    if definition.messages is None:
        return None
    try:
        return read_chat(evaluate(definition.messages, {**row.fields, "row": row.fields}))
    except TaskfitError as error:
        raise type(error)(f"row {row.id}: {error.message}", error.hint) from error


def asked(definition: TaskDefinition, row: Row, wording: int = 0) -> Prompt:
    """Return the row's question as a prompt without worked examples.

    The earlier turns of a conversation stand in it as turns, not as text.
    """
    chat = chat_of(definition, row)
    if chat is None:
        return Prompt(definition.prompt_text(row, wording))
    return Prompt(chat.question, chat.turns, chat.system)


def chat_sources(messages: str) -> tuple[str, str]:
    """Return the Jinja2 sources of the input (the conversation as text, its answer left out) and of the answer.

    The text is what encoders and such programs read that ask in a text of their own.

    Args:
        messages: the Jinja2 source of the list, one expression.

    Raises:
        TaskError: it is more than one expression.
    """
    listed = single_expression(messages)
    if listed is None:
        raise TaskError(f"messages must be a field or one Jinja2 expression in {{{{ }}}} (got {messages!r})")
    begin = f"{{% set turns = {listed} %}}"
    answered = 'turns and turns[-1].role == "assistant"'
    text = (
        f"{begin}{{% for turn in (turns[:-1] if {answered} else turns) %}}"
        "{{ turn.role }}: {{ turn.content }}{% if not loop.last %}\n\n{% endif %}{% endfor %}"
    )
    return text, f"{begin}{{% if {answered} %}}{{{{ turns[-1].content }}}}{{% endif %}}"


def _message(item: object, number: int) -> tuple[str, str]:
    """(role, content) of a message."""
    if not isinstance(item, Mapping):
        raise DataError(f"message {number} must be a mapping with role and content (got {_shown(item)})")
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        raise DataError(f"message {number}: role must be one of {', '.join(_ROLES)} (got {_shown(role)})")
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"message {number}: content must be a text (got {_shown(content)})")
    return role, content


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
