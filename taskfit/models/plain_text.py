"""A prompt as plain text, for models without chat turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.tasks.prompt import Prompt

__all__ = ["plain_text", "separator"]


def plain_text(prompt: Prompt) -> str:
    """Return system text, worked examples and question, with a blank line between each."""
    parts = [prompt.system] if prompt.system else []
    parts += [shot.question + separator(shot.question, shot.answer) + shot.answer for shot in prompt.shots]
    return "\n\n".join([*parts, prompt.text])


def separator(question: str, answer: str) -> str:
    """Return what stands between a question and its answer: a space, where neither brings white space of its own."""
    if not question or not answer or question[-1].isspace() or answer[0].isspace():
        return ""
    return " "
