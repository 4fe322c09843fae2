"""What training will see, shown before it starts: most failures of tuning are visible in one decoded example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from taskfit.errors import TrainingError

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tuning.examples import Example
    from taskfit.tuning.training_set import TrainingSet

__all__ = ["Preview", "preview", "shown_lines"]

SHOWN_EXAMPLES = 3
"""Examples shown by a preview that nothing follows."""

SHOWN_TOKENS = 120
"""Tokens shown at each end of a long part of an example."""


@dataclass(frozen=True)
class Preview:
    """Facts about a training set as the model will see it.

    Attributes:
        shown: the first examples, decoded; what is learned stands between ⟦ and ⟧.
        rows: number of examples.
        pass_size: examples of one pass over the data.
        batch: examples of one step.
        prompt_tokens: tokens read and not learned, all examples together.
        supervised_tokens: tokens learned, all examples together.
        padding_tokens: tokens that one pass computes beside those of its examples, at the usual size of micro-batches.
        unended_rows: examples whose last learned token is not an end token; the model would not learn to stop.
        unknown_tokens: learned tokens that stand for what the tokenizer does not know.
        cut_rows: examples that lost tokens because the context is too short.
        cut_tokens: tokens lost.
        dropped_shots: worked examples lost.
        duplicate_rows: ids of rows that repeat an earlier prompt and answer.
        conflicting_rows: pairs of ids with the same prompt and another answer.
        notes: what was decided when the set was built.
    """

    shown: tuple[str, ...]
    rows: int
    pass_size: int
    batch: int
    prompt_tokens: int
    supervised_tokens: int
    padding_tokens: int
    unended_rows: int
    unknown_tokens: int
    cut_rows: int
    cut_tokens: int
    dropped_shots: int
    duplicate_rows: tuple[str, ...]
    conflicting_rows: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the preview as lines for the user."""
        return [
            f"training on {self.rows} rows: {self.supervised_tokens} supervised tokens, "
            f"{self.prompt_tokens} prompt tokens; the end token is supervised in {self.rows - self.unended_rows} rows, "
            f"{self.cut_rows} rows were cut; supervised text between ⟦ and ⟧:",
            *(f"  {line}" for text in self.shown for line in text.splitlines()),
            *self.notes,
            *self._size_lines(),
            *self._warnings(),
        ]

    def _size_lines(self) -> Iterator[str]:
        if self.pass_size != self.rows:
            yield f"one pass holds {self.pass_size} of them; every pass is drawn anew"
        if self.padding_tokens:
            yield f"one pass computes {self.padding_tokens} tokens of padding beside its own"
        if self.pass_size < self.batch:
            yield f"{self.pass_size} rows are fewer than one batch of {self.batch}: every step sees all of them"

    def _warnings(self) -> Iterator[str]:
        if self.unended_rows:
            yield f"warning: {self.unended_rows} rows do not teach the end token; answers may not stop"
        if self.unknown_tokens:
            yield (
                f"warning: {self.unknown_tokens} supervised tokens stand for what the tokenizer does not know; "
                "the model would learn to give that mark"
            )
        if self.cut_rows:
            yield (
                f"warning: {self.cut_rows} of {self.rows} rows are longer than the context; {self.cut_tokens} tokens "
                f"were cut from the middle of prompts and {self.dropped_shots} worked examples left out"
            )
        if self.duplicate_rows:
            yield f"{len(self.duplicate_rows)} rows repeat an earlier one, first {self.duplicate_rows[0]}"
        if self.conflicting_rows:
            first, second = self.conflicting_rows[0]
            yield (
                f"warning: {len(self.conflicting_rows)} rows have the prompt of an earlier row and another answer, "
                f"first {second} against {first}"
            )


def preview(model: LanguageModel, data: TrainingSet, batch: int, *, shown: int = 1, seed: int = 0) -> Preview:
    """Describe a training set as the model will see it.

    Args:
        model: decodes.
        data: the training set; padding is counted in its first pass.
        batch: examples of one step.
        shown: how many examples are decoded.
        seed: of their order.

    Raises:
        TrainingError: an example has no supervised token.
    """
    examples = data.examples
    _check_supervised(examples)
    duplicates, conflicts = _repeated(examples)
    return Preview(
        shown=tuple(_marked(model, example) for example in examples[:shown]),
        rows=len(examples),
        pass_size=data.pass_size,
        batch=batch,
        prompt_tokens=sum(example.length - example.learned for example in examples),
        supervised_tokens=sum(example.learned for example in examples),
        padding_tokens=_padding(model, data, batch, seed),
        unended_rows=sum(not _ends(model, example) for example in examples),
        unknown_tokens=sum(_unknown(model, example) for example in examples),
        cut_rows=sum(example.cut_tokens > 0 or example.dropped_shots > 0 for example in examples),
        cut_tokens=sum(example.cut_tokens for example in examples),
        dropped_shots=sum(example.dropped_shots for example in examples),
        duplicate_rows=duplicates,
        conflicting_rows=conflicts,
        notes=data.notes,
    )


def shown_lines(model: LanguageModel, data: TrainingSet, batch: int, *, seed: int) -> list[str]:
    """Return what ``taskfit fit --preview`` shows of a training set; arguments as for :func:`preview`."""
    seen = preview(model, data, batch, shown=SHOWN_EXAMPLES, seed=seed)
    return [*seen.lines(), f"{len(data.held_out)} further examples are held out to decide when to stop"]


def _check_supervised(examples: Sequence[Example]) -> None:
    empty = [example.row_id for example in examples if example.learned == 0]
    if empty or not examples:
        first = f", first {empty[0]}" if empty else ""
        raise TrainingError(
            f"{len(empty)} of {len(examples)} training rows have no supervised token{first}; they teach nothing",
            "Check the task's target template.",
        )


def _padding(model: LanguageModel, data: TrainingSet, batch: int, seed: int) -> int:
    """Tokens of padding in the micro-batches of the first pass; none where rows are packed."""
    from taskfit.tuning.batches import StepPlan
    from taskfit.tuning.memory_plan import TOKEN_BUDGET
    from taskfit.tuning.packed import is_packable

    if model.architecture == "decoder" and is_packable(model.module):
        return 0
    lengths = tuple(example.length for example in data.examples)
    plan = StepPlan(lengths, batch, TOKEN_BUDGET, seed, data.order)
    padding = 0
    for step in range(ceil(data.pass_size / batch)):
        for group in plan.micro_batches_at(step):
            rows = [data.examples[row] for row in group]
            sides = [[row.length for row in rows]]
            if model.architecture == "encoder-decoder":
                sides = [[len(row.prompt) for row in rows], [len(row.answer) for row in rows]]
            padding += sum(max(side) * len(side) - sum(side) for side in sides)
    return padding


def _ends(model: LanguageModel, example: Example) -> bool:
    """Whether an end token is among the last learned tokens (some chat templates put a line break after it)."""
    is_text = bool(example.documents or example.masked)  # long ones are cut, and their pieces have no end
    return is_text or any(token in model.end_token_ids for token in example.answer[-2:])


def _unknown(model: LanguageModel, example: Example) -> int:
    """Learned tokens that the tokenizer puts for what it does not know."""
    unknown = model.tokenizer.unk_token_id
    return 0 if unknown is None or unknown in model.end_token_ids else example.labels.count(unknown)


def _marked(model: LanguageModel, example: Example) -> str:
    """The example as text, special tokens visible, what is learned between marks."""
    if example.masked:
        return _with_masks(model, example)
    text = _shortened(model, example.prompt)
    place = 0
    for start, stop in (*example.read, (len(example.answer), len(example.answer))):
        if start > place:
            text += f"⟦{_shortened(model, example.answer[place:start])}⟧"
        text += _shortened(model, example.answer[start:stop])
        place = stop
    return text


def _with_masks(model: LanguageModel, example: Example) -> str:
    """The beginning of the text, the hidden tokens between marks."""
    text, start = "", 0
    for place, token in (one for one in example.masked if one[0] < 2 * SHOWN_TOKENS):
        text += f"{model.tokenizer.decode(example.prompt[start:place])} ⟦{model.tokenizer.decode([token])}⟧ "
        start = place + 1
    left_out = max(0, len(example.prompt) - 2 * SHOWN_TOKENS)
    text += str(model.tokenizer.decode(example.prompt[start : 2 * SHOWN_TOKENS]))
    return f"{text} […{left_out} tokens…]" if left_out else text


def _shortened(model: LanguageModel, ids: Sequence[int]) -> str:
    """The ids as text, a long one without its middle."""
    if len(ids) <= 2 * SHOWN_TOKENS:
        return str(model.tokenizer.decode(ids))
    head, tail = ids[:SHOWN_TOKENS], ids[-SHOWN_TOKENS:]
    left_out = len(ids) - 2 * SHOWN_TOKENS
    return f"{model.tokenizer.decode(head)} […{left_out} tokens…] {model.tokenizer.decode(tail)}"


def _repeated(examples: Sequence[Example]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """(ids of duplicates, pairs of ids in conflict); packed texts have no prompts to compare.

    A row whose teacher shares it among several answers stands here once for each: that is no conflict.
    """
    seen: dict[tuple[int, ...], dict[tuple[int, ...], str]] = defaultdict(dict)
    whole: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    duplicates: list[str] = []
    conflicts: list[tuple[str, str]] = []
    for example in (one for one in examples if not one.documents and not one.masked):
        first = example.answer[: example.read[0][0]] if example.read else example.answer  # of a conversation
        answers = seen[example.prompt]
        if (example.prompt, example.answer) in whole:
            duplicates.append(example.row_id)
        elif first not in answers and (others := [one for one in answers.values() if one != example.row_id]):
            conflicts.append((others[0], example.row_id))
        whole.add((example.prompt, example.answer))
        answers.setdefault(first, example.row_id)
    return tuple(duplicates), tuple(conflicts)
