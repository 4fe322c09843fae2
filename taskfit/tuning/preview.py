"""What training will see, shown before it starts: most failures of tuning are visible in one decoded example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import TrainingError

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tuning.examples import Example

__all__ = ["Preview", "preview"]

SHOWN_TOKENS = 120
"""Prompt tokens shown at each end of the example."""


@dataclass(frozen=True)
class Preview:
    """Facts about a training set as the model will see it.

    Attributes:
        example: the first example, decoded; what is learned stands between ⟦ and ⟧.
        rows: number of examples.
        prompt_tokens: tokens read and not learned, all examples together.
        supervised_tokens: tokens learned, all examples together.
        unended_rows: examples whose last learned token is not an end token; the model would not learn to stop.
        cut_rows: examples that lost tokens because the context is too short.
        cut_tokens: tokens lost.
        dropped_shots: worked examples lost.
        duplicate_rows: ids of rows that repeat an earlier prompt and answer.
        conflicting_rows: pairs of ids with the same prompt and another answer.
    """

    example: str
    rows: int
    prompt_tokens: int
    supervised_tokens: int
    unended_rows: int
    cut_rows: int
    cut_tokens: int
    dropped_shots: int
    duplicate_rows: tuple[str, ...]
    conflicting_rows: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """Return the preview as lines for the user."""
        lines = [
            f"training on {self.rows} rows: {self.supervised_tokens} supervised tokens, "
            f"{self.prompt_tokens} prompt tokens; the end token is supervised in {self.rows - self.unended_rows} rows, "
            f"{self.cut_rows} rows were cut; supervised text between ⟦ and ⟧:",
            *(f"  {line}" for line in self.example.splitlines()),
        ]
        if self.unended_rows:
            lines.append(f"warning: {self.unended_rows} rows do not teach the end token; answers may not stop")
        if self.cut_rows:
            lines.append(
                f"warning: {self.cut_rows} of {self.rows} rows are longer than the context; {self.cut_tokens} tokens "
                f"were cut from the middle of prompts and {self.dropped_shots} worked examples left out"
            )
        if self.duplicate_rows:
            lines.append(f"{len(self.duplicate_rows)} rows repeat an earlier one, first {self.duplicate_rows[0]}")
        if self.conflicting_rows:
            first, second = self.conflicting_rows[0]
            lines.append(
                f"warning: {len(self.conflicting_rows)} rows have the prompt of an earlier row and another answer, "
                f"first {second} against {first}"
            )
        return lines


def preview(model: LanguageModel, examples: Sequence[Example]) -> Preview:
    """Describe a training set as the model will see it.

    Raises:
        TrainingError: no token is supervised.
    """
    supervised = sum(len(example.answer) for example in examples)
    if supervised == 0:
        raise TrainingError(
            f"none of the {len(examples)} training rows has a supervised token; there is nothing to learn",
            "Check the task's target template.",
        )
    duplicates, conflicts = _repeated(examples)
    return Preview(
        example=_marked(model, examples[0]),
        rows=len(examples),
        prompt_tokens=sum(len(example.prompt) for example in examples),
        supervised_tokens=supervised,
        unended_rows=sum(example.answer[-1:] == () or not _ends(model, example) for example in examples),
        cut_rows=sum(example.cut_tokens > 0 or example.dropped_shots > 0 for example in examples),
        cut_tokens=sum(example.cut_tokens for example in examples),
        dropped_shots=sum(example.dropped_shots for example in examples),
        duplicate_rows=duplicates,
        conflicting_rows=conflicts,
    )


def _ends(model: LanguageModel, example: Example) -> bool:
    """Whether an end token is among the last learned tokens (some chat templates put a line break after it)."""
    return any(token in model.end_token_ids for token in example.answer[-2:])


def _marked(model: LanguageModel, example: Example) -> str:
    """The example as text, special tokens visible."""
    prompt = example.prompt
    if len(prompt) <= 2 * SHOWN_TOKENS:
        shown = model.tokenizer.decode(prompt)
    else:
        left_out = len(prompt) - 2 * SHOWN_TOKENS
        head, tail = prompt[:SHOWN_TOKENS], prompt[-SHOWN_TOKENS:]
        shown = f"{model.tokenizer.decode(head)} […{left_out} tokens…] {model.tokenizer.decode(tail)}"
    return f"{shown}⟦{model.tokenizer.decode(example.answer)}⟧"


def _repeated(examples: Sequence[Example]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """(ids of duplicates, pairs of ids in conflict)."""
    seen: dict[tuple[int, ...], dict[tuple[int, ...], str]] = defaultdict(dict)
    duplicates: list[str] = []
    conflicts: list[tuple[str, str]] = []
    for example in examples:
        answers = seen[example.prompt]
        if example.answer in answers:
            duplicates.append(example.row_id)
        elif answers:
            conflicts.append((next(iter(answers.values())), example.row_id))
        answers.setdefault(example.answer, example.row_id)
    return tuple(duplicates), tuple(conflicts)
