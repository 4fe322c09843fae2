"""Rows as an encoder reads them: token ids of the input alone, with the index of the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import DataError
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["LabelledTexts", "Texts", "encode_labelled", "encode_rows", "findings", "pad_id_of", "repeated_lines"]


@dataclass(frozen=True)
class Texts:
    """Token ids of each row, special tokens included, and the tokens each lost at its end."""

    ids: list[tuple[int, ...]]
    cut: list[int]

    @property
    def lost(self) -> Work:
        """What was cut, as work."""
        return Work(cut_tokens=sum(self.cut), cut_rows=sum(tokens > 0 for tokens in self.cut))


@dataclass(frozen=True)
class LabelledTexts(Texts):
    """The same with the index of each row's label, and the rows' ids."""

    labels: list[int]
    row_ids: list[str]


def encode_rows(model: LanguageModel, definition: TaskDefinition, rows: Sequence[Row], max_tokens: int) -> Texts:
    """Encode the rows' inputs; texts longer than ``max_tokens`` or the context keep their head."""
    from taskfit.models.encoding import encode_texts

    ids, cut = encode_texts(model, [definition.input_text(row) for row in rows], limit=max_tokens)
    return Texts(ids, cut)


def encode_labelled(
    model: LanguageModel, definition: TaskDefinition, rows: Sequence[Row], max_tokens: int
) -> LabelledTexts:
    """Encode rows with their labels.

    Raises:
        DataError: a row's label is not one of the task's.
    """
    index_of = {label: index for index, label in enumerate(definition.labels)}
    labels: list[int] = []
    for row in rows:
        label = next(iter(definition.gold(row)), "")
        if label not in index_of:
            raise DataError(f"row {row.id} has label {label!r}, which is not one of the task's labels")
        labels.append(index_of[label])
    texts = encode_rows(model, definition, rows, max_tokens)
    return LabelledTexts(texts.ids, texts.cut, labels, [row.id for row in rows])


def pad_id_of(model: LanguageModel) -> int:
    """The padding token; any token serves where there is none, as padding is masked."""
    pad_id = model.tokenizer.pad_token_id
    return pad_id if pad_id is not None else 0


def repeated_lines(texts: LabelledTexts) -> Iterator[str]:
    """Yield a sentence on rows that read the same as an earlier one with its label, and one on those with another."""
    first: dict[tuple[int, ...], tuple[str, int]] = {}
    duplicates: list[str] = []
    conflicts: list[tuple[str, str]] = []
    for ids, label, row_id in zip(texts.ids, texts.labels, texts.row_ids, strict=True):
        earlier, its_label = first.setdefault(ids, (row_id, label))
        if label != its_label:
            conflicts.append((earlier, row_id))
        elif earlier != row_id:
            duplicates.append(row_id)
    if duplicates:
        yield f"{len(duplicates)} rows repeat an earlier one, first {duplicates[0]}"
    if conflicts:
        before, after = conflicts[0]
        count = len(conflicts)
        yield f"warning: {count} rows have the text of an earlier row and another label, first {after} against {before}"


def findings(
    model: LanguageModel,
    definition: TaskDefinition,
    train_set: LabelledTexts,
    held_out: LabelledTexts,
    rate: float,
    *,
    shown: int = 1,
) -> Iterator[str]:
    """Yield what the user must see before training starts: counts, the first rows, and what is odd about them."""
    rows = len(train_set.ids)
    tokens = sum(len(ids) for ids in train_set.ids)
    yield (
        f"training the encoder on {rows} rows of {len(definition.labels)} labels, {tokens / rows:.0f} tokens each on "
        f"average, learning rate {rate:.2g}; the first one reads"
    )
    for ids, index in zip(train_set.ids[:shown], train_set.labels, strict=False):
        yield f"  {model.tokenizer.decode(ids)} ⟦{definition.labels[index]}⟧"
    yield from repeated_lines(train_set)
    count = Counter(train_set.labels)
    absent = [label for index, label in enumerate(definition.labels) if index not in count]
    if absent:
        yield f"warning: {len(absent)} labels have no training row and can hardly be predicted, first {absent[0]}"
    cut_rows = sum(cut > 0 for cut in train_set.cut)
    if cut_rows:
        yield f"warning: {cut_rows} of {rows} texts are too long and lost {sum(train_set.cut)} tokens at their end"
    if not held_out.ids:
        yield "no validation rows: training runs to its last step without early stopping"
