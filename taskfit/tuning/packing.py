"""Texts packed into sequences of the context's length: no padding, and no text sees another."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from taskfit.models.text_format import text_format
from taskfit.tuning.examples import Example

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.text import Document

__all__ = ["Piece", "pack", "packed_example", "pieces_of", "unpacked"]

Piece = tuple[int, ...]
"""Token ids of a text, or of a stretch of one that is longer than a sequence."""


def pieces_of(model: LanguageModel, document: Document, length: int) -> list[Piece]:
    """Return the tokens of a document, begun and ended as the model's texts are, in pieces of at most ``length``.

    A piece of one token, which has nothing to predict, is left out.
    """
    from taskfit.models.joint import disarm, token_ids

    form = text_format(model.tokenizer)
    body = token_ids(model.tokenizer, disarm(document.text, form.control))
    end = model.tokenizer.eos_token_id
    ids = (*form.head, *body, end if end is not None else model.end_token_ids[0])
    pieces = (ids[start : start + length] for start in range(0, len(ids), length))
    return [piece for piece in pieces if len(piece) > 1]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Part pieces into as few sequences as is quickly found: the longest first, each where it leaves the least room.

    Args:
        lengths: tokens of each piece, at most ``capacity``.
        capacity: most tokens of a sequence.

    Returns:
        Indices of the pieces of each sequence, in order; every piece once.

    Source: best fit decreasing (Johnson 1973); packing of texts as in Ding et al. 2024, section 3.
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, group), sorted
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = bisect_left(rooms, (lengths[index], -1))
        if place == len(rooms):
            groups.append([])
            left, group = capacity, len(groups) - 1
        else:
            left, group = rooms.pop(place)
        groups[group].append(index)
        insort(rooms, (left - lengths[index], group))
    return [sorted(group) for group in groups]


def packed_example(name: str, pieces: Sequence[Piece]) -> Example:
    """Return one sequence of several pieces; the first token of each is read, all others are learned."""
    ids = tuple(token for piece in pieces for token in piece)
    starts = list(accumulate(len(piece) for piece in pieces[:-1]))
    return Example(
        name,
        ids[:1],
        ids[1:],
        read=tuple((start - 1, start) for start in starts),
        documents=tuple(len(piece) for piece in pieces),
    )


def unpacked(example: Example) -> list[Example]:
    """Return every text of a packed sequence as an example of its own."""
    ids, found, start = example.prompt + example.answer, list[Example](), 0
    for number, length in enumerate(example.documents):
        own = ids[start : start + length]
        found.append(Example(f"{example.row_id}.{number}", own[:1], own[1:]))
        start += length
    return found
