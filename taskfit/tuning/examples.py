"""From rows to token ids: what the model reads, and which tokens it is to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

from taskfit.errors import EngineError, TrainingError
from taskfit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = [
    "IGNORED",
    "Asks",
    "Example",
    "Faulty",
    "Turns",
    "build_examples",
    "collate",
    "encode_example",
    "row_examples",
]

IGNORED = -100
"""Label of a position that is not supervised (the convention of torch and transformers)."""

Turns = Literal["all", "last"]
"""Which of the assistant's turns in a conversation are learned."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence as the model is trained on it; mostly one row.

    Prompt and answer are kept apart, so that a prompt token or padding can never be supervised, and the answer's
    end token never lost, whatever the ids of the padding and end tokens are.

    Attributes:
        row_id: the row's id.
        prompt: ids that are read (of an encoder–decoder: by the encoder); never empty.
        answer: ids that are learned, the end token included.
        cut_tokens: tokens left out of the middle of the prompt because it was too long.
        dropped_shots: worked examples left out of the prompt for the same reason.
        read: parts of ``answer`` that are read and not learned, each from its first place to behind its last, in
            order: the user's later turns of a conversation, the first token of each further document.
        documents: lengths of the texts that the sequence is packed of, which do not see each other; empty: it is one.
        weight: what the loss of each learned token is multiplied by.
        masked: places of an encoder's ``prompt`` whose tokens are hidden, with the tokens, which are learned there;
            such an example has no ``answer``.
    """

    row_id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    cut_tokens: int = 0
    dropped_shots: int = 0
    read: tuple[tuple[int, int], ...] = ()
    documents: tuple[int, ...] = ()
    weight: float = 1.0
    masked: tuple[tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.answer)

    @property
    def learned(self) -> int:
        """Supervised tokens."""
        return len(self.masked) + len(self.answer) - sum(stop - start for start, stop in self.read)

    @property
    def labels(self) -> tuple[int, ...]:
        """The answer's ids, ``IGNORED`` where they are only read; of masked tokens, all places of the prompt."""
        if self.masked:
            hidden = dict(self.masked)
            return tuple(hidden.get(place, IGNORED) for place in range(len(self.prompt)))
        labels = list(self.answer)
        for start, stop in self.read:
            labels[start:stop] = [IGNORED] * (stop - start)
        return tuple(labels)

    @property
    def positions(self) -> tuple[int, ...]:
        """Position of every token in its own text."""
        return tuple(place for length in self.documents or (self.length,) for place in range(length))


class Asks(Protocol):
    """What training needs of a prepared program: see :class:`taskfit.strategy.contract.PreparedProgram`."""

    @property
    def wording(self) -> int:
        """Which of the task's wordings it asks in."""
        ...

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the prompt that is answered by the row's target."""
        ...


class Faulty:
    """Rows that cannot be learned from, collected so that one error can tell of all."""

    def __init__(self) -> None:
        self._faults: list[tuple[str, TrainingError]] = []

    def note(self, row_id: str, error: TrainingError) -> None:
        """Remember a row and what is wrong with it."""
        self._faults.append((row_id, error))

    def raise_if_any(self, rows: int) -> None:
        """Raise one TrainingError with the number of faulty rows among ``rows`` and the first of them."""
        if self._faults:
            row_id, error = self._faults[0]
            raise TrainingError(
                f"{len(self._faults)} of {rows} training rows cannot be learned from; row {row_id}: {error.message}",
                error.hint,
            )


def build_examples(
    model: LanguageModel,
    definition: TaskDefinition,
    program: Asks,
    rows: Sequence[Row],
    *,
    turns: Turns = "all",
) -> list[Example]:
    """Encode every row: the program's prompt, then the task's target and the end token.

    A prompt that is too long loses whole worked examples, then its middle; an answer is never cut.

    Raises:
        TrainingError: there are no rows, or rows have no answer left to learn or do not fit into the context, or a
            label is not known to the tokenizer; with their number and an example.
    """
    if not rows:
        raise TrainingError("there are no rows to train on", "Give the task a train split.")
    examples: list[Example] = []
    faulty = Faulty()
    for row in rows:
        try:
            prompt = program.prompt(definition, row)
            examples += row_examples(model, definition, row, prompt, wording=program.wording, turns=turns)
        except TrainingError as error:
            faulty.note(row.id, error)
    faulty.raise_if_any(len(rows))
    return examples


def row_examples(
    model: LanguageModel, definition: TaskDefinition, row: Row, prompt: Prompt, *, wording: int, turns: Turns
) -> list[Example]:
    """Return the row's example: its target after the prompt.

    Of a conversation all of the assistant's turns are learned. They stand in one sequence where the whole one begins
    with the very tokens that each earlier question and its reply have by themselves; turns for which that is not so
    (a template that shows old turns otherwise, turns left out for want of room) are examples of their own.

    Raises:
        TrainingError: the row cannot be learned from.
    """
    whole = encode_example(model, row.id, prompt, definition.target_text(row, wording))
    if definition.kind != "generation":
        _check_known(model, whole, definition.target_text(row, wording))
    if definition.messages is None or turns == "last":
        return [whole]
    from taskfit.tasks.chat import asked

    return _with_earlier_turns(model, whole, prompt, len(asked(definition, row, wording).shots))


def encode_example(model: LanguageModel, row_id: str, prompt: Prompt, target: str) -> Example:
    """Encode one prompt with what is to be learned after it, and the end token.

    Raises:
        TrainingError: the target is empty, the context is too short, or the tokenizer has no end token.
    """
    from taskfit.models.encoding import encode

    if not target.strip():
        raise TrainingError("its answer is empty", "Drop such rows, or mend the template.")
    if not model.end_token_ids:
        raise TrainingError(
            f"the tokenizer of {model.name} has no end token, so the model could not learn to stop",
            'Set "eos_token" in tokenizer_config.json.',
        )
    try:
        encoded = encode(model, prompt, [target], with_end=True)
    except EngineError as error:
        raise TrainingError(
            error.message,
            "Shorten the texts or the template, drop these rows, take fewer vectors (tokens=) where some stand before "
            "the prompt, or choose a model with a longer context.",
        ) from error
    return Example(row_id, encoded.prompt, encoded.answers[0], encoded.cut_tokens, encoded.dropped_shots)


def collate(examples: Sequence[Example], architecture: Architecture, pad_id: int) -> dict[str, Tensor]:
    """Return one micro-batch, padded on the right to its longest row.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each of shape (batch, length); for an encoder–decoder the
        labels have the length of the longest answer; for an encoder they stand at the masked tokens. Labels are
        ``IGNORED`` everywhere else.
        Where an example is packed of several texts, ``position_ids`` stand in place of ``attention_mask``: they begin
        anew with each text and with padding, and transformers keeps apart what does. ``weights``, of shape (batch,),
        where an example has one other than 1.
    """
    import torch

    if architecture == "encoder-decoder" or architecture == "encoder":
        inputs = [example.prompt for example in examples]
        labels = [example.labels for example in examples]
    else:
        inputs = [example.prompt + example.answer for example in examples]
        labels = [(IGNORED,) * len(example.prompt) + example.labels for example in examples]
    batch = {"input_ids": _padded(inputs, pad_id), "labels": _padded(labels, IGNORED)}
    if any(example.documents for example in examples):
        batch["position_ids"] = _positions([example.positions for example in examples])
    else:
        batch["attention_mask"] = _padded([(1,) * len(ids) for ids in inputs], 0)
    if any(example.weight != 1 for example in examples):
        batch["weights"] = torch.tensor([example.weight for example in examples], dtype=torch.float64)
    return batch


def _with_earlier_turns(model: LanguageModel, whole: Example, prompt: Prompt, turns: int) -> list[Example]:
    """The example with the assistant's earlier turns learned too, and those that could not be learned in it."""
    before, earlier = prompt.shots[: len(prompt.shots) - turns], prompt.shots[len(prompt.shots) - turns :]
    ids = whole.prompt + whole.answer
    spans, alone = [(len(whole.prompt), len(ids))], list[Example]()
    for place, turn in reversed(list(enumerate(earlier))):
        shown = Prompt(turn.question, (*before, *earlier[:place]), prompt.system)
        one = encode_example(model, f"{whole.row_id}, turn {place + 1}", shown, turn.answer)
        if model.architecture == "decoder" and ids[: one.length] == one.prompt + one.answer:
            spans.insert(0, (len(one.prompt), one.length))
        else:
            alone.insert(0, one)
    first = spans[0][0]
    read = tuple((earlier[1] - first, later[0] - first) for earlier, later in pairwise(spans))
    return [*alone, replace(whole, prompt=ids[:first], answer=ids[first:], read=read)]


def _check_known(model: LanguageModel, example: Example, target: str) -> None:
    """Refuse a label or option that the tokenizer cannot tell from others."""
    unknown = model.tokenizer.unk_token_id
    if unknown is not None and unknown not in model.end_token_ids and unknown in example.answer:
        raise TrainingError(
            f"the tokenizer of {model.name} does not know what stands in the answer {target!r}",
            "Give the label another text under `labels` in the task file.",
        )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of ids as one tensor, shape (rows, longest)."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)


def _positions(rows: Sequence[Sequence[int]]) -> Tensor:
    """Positions as one tensor, shape (rows, longest); padding is a text of its own."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *range(longest - len(row))] for row in rows], dtype=torch.long)
