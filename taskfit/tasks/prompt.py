"""What is asked of a language model, before any tokenizer has seen it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Prompt", "Shot"]


@dataclass(frozen=True)
class Shot:
    """One worked example in a prompt: a question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A question, the worked examples before it, and an optional system text.

    The structure is kept until a model encodes it, so that a chat template can make turns of it, and so that a
    prompt longer than the context can lose whole examples (the first ones first) before any text is cut.
    """

    text: str
    shots: tuple[Shot, ...] = ()
    system: str | None = None
