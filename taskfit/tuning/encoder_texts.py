"""Rows as an encoder reads them: token ids of the input alone, with the index of the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import DataError
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["LabelledTexts", "Texts", "encode_labelled", "encode_rows", "pad_id_of"]


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
    """The same with the index of each row's label."""

    labels: list[int]


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
    return LabelledTexts(texts.ids, texts.cut, labels)


def pad_id_of(model: LanguageModel) -> int:
    """The padding token; any token serves where there is none, as padding is masked."""
    pad_id = model.tokenizer.pad_token_id
    return pad_id if pad_id is not None else 0
