"""From rows to token ids: what the model reads, and which tokens it is to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import EngineError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.strategy.contract import PreparedProgram
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["IGNORED", "Example", "build_examples", "collate"]

IGNORED = -100
"""Label of a position that is not supervised (the convention of torch and transformers)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model is trained on it.

    Prompt and answer are kept apart, so that a prompt token or padding can never be supervised, and the answer's
    end token never lost, whatever the ids of the padding and end tokens are.

    Attributes:
        row_id: the row's id.
        prompt: ids that are read (of an encoder–decoder: by the encoder).
        answer: ids that are learned, the end token included.
        cut_tokens: tokens left out of the middle of the prompt because it was too long.
        dropped_shots: worked examples left out of the prompt for the same reason.
    """

    row_id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    cut_tokens: int = 0
    dropped_shots: int = 0

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.answer)


def build_examples(
    model: LanguageModel, definition: TaskDefinition, program: PreparedProgram, rows: Sequence[Row]
) -> list[Example]:
    """Encode every row: the program's prompt, then the task's target and the end token.

    A prompt that is too long loses whole worked examples, then its middle; an answer is never cut.

    Raises:
        TrainingError: there are no rows, or rows have no answer left to learn or do not fit into the context; with
            their number and an example.
    """
    from taskfit.models.encoding import encode

    if not rows:
        raise TrainingError("there are no rows to train on", "Give the task a train split.")
    examples: list[Example] = []
    faults: list[tuple[Row, str]] = []
    for row in rows:
        target = definition.target_text(row, program.wording)
        if not target.strip():
            faults.append((row, "its answer is empty"))
            continue
        try:
            encoded = encode(model, program.prompt(definition, row), [target], with_end=True)
        except EngineError as error:
            faults.append((row, error.message))
            continue
        examples.append(Example(row.id, encoded.prompt, encoded.answers[0], encoded.cut_tokens, encoded.dropped_shots))
    if faults:
        row, fault = faults[0]
        raise TrainingError(
            f"{len(faults)} of {len(rows)} training rows cannot be learned from; row {row.id}: {fault}",
            "Shorten the texts or the template, drop these rows, or choose a model with a longer context.",
        )
    return examples


def collate(examples: Sequence[Example], architecture: Architecture, pad_id: int) -> dict[str, Tensor]:
    """Return one micro-batch, padded on the right to its longest row.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each of shape (batch, length); for an encoder–decoder the
        labels have the length of the longest answer. Labels are ``IGNORED`` at every prompt and padding position.
    """
    if architecture == "encoder-decoder":
        inputs = [example.prompt for example in examples]
        labels = [example.answer for example in examples]
    else:
        inputs = [example.prompt + example.answer for example in examples]
        labels = [(IGNORED,) * len(example.prompt) + example.answer for example in examples]
    return {
        "input_ids": _padded(inputs, pad_id),
        "attention_mask": _padded([(1,) * len(ids) for ids in inputs], 0),
        "labels": _padded(labels, IGNORED),
    }


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of ids as one tensor, shape (rows, longest)."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
