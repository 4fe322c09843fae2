"""A text and what may follow it, tokenised together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["Joint", "disarm", "join_answers", "label_ids", "token_ids", "token_spans"]

Ids = tuple[int, ...]

_MARK = "\ufdd0"
"""A code point that no text may hold: put inside text that looks like a control token, taken out of the tokens."""

_LONGEST_TAIL = 200  # characters


@dataclass(frozen=True)
class Joint:
    """Ids of a text, and of each answer after it.

    Attributes:
        prompt: the ids that all answers share; empty when the first token is already merged.
        answers: what follows ``prompt``, for each answer.
        is_merged: the text alone has more ids than ``prompt``.
    """

    prompt: Ids
    answers: tuple[Ids, ...]
    is_merged: bool


def disarm(text: str, control: re.Pattern[str]) -> str:
    """Mark what looks like a control token, so that :func:`token_ids` reads it as ordinary text."""
    return control.sub(lambda match: match[0][0] + _MARK + match[0][1:], text) if control.search(text) else text


def token_ids(tokenizer: Any, text: str) -> Ids:
    """Return the ids of a text without special tokens around it; marked control tokens are ordinary text."""
    if _MARK not in text:
        return tuple(_call(tokenizer, text)["input_ids"])
    return tuple(token for token, (start, end) in _with_spans(tokenizer, text) if not _is_mark(text[start:end]))


@lru_cache(maxsize=4096)
def label_ids(tokenizer: Any, text: str) -> Ids:
    """Return :func:`token_ids` of a text that comes again with other prompts, from memory."""
    return token_ids(tokenizer, text)


def token_spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Return where each token of a text begins and ends, in characters."""
    return [span for _, span in _with_spans(tokenizer, text)]


def join_answers(tokenizer: Any, text: str, answers: Sequence[str]) -> Joint:
    """Tokenise a text together with each answer.

    With several answers only the end of the text is tokenised again for each, from a place where that gives the same
    ids as the whole text does (checked on the text alone, and on the first answer in full); texts that end alike
    share that work.
    """
    ids = token_ids(tokenizer, text)
    if not answers:
        return Joint(ids, (), False)
    first = token_ids(tokenizer, text + answers[0])
    if len(answers) > 1:
        for tail in _tails(text):
            shared, tail_length, rest = _after_tail(tokenizer, tail, tuple(answers))
            before = len(ids) - tail_length
            kept = before + shared
            is_same = ids[max(before, 0) :] == token_ids(tokenizer, tail)
            if before >= 0 and is_same and ids[:kept] + rest[0] == first:
                return Joint(ids[:kept], rest, shared < tail_length)
    fulls = [first, *(token_ids(tokenizer, text + answer) for answer in answers[1:])]
    kept = _shared_length(ids, fulls)
    return Joint(ids[:kept], tuple(full[kept:] for full in fulls), kept < len(ids))


@lru_cache(maxsize=256)
def _after_tail(tokenizer: Any, tail: str, answers: tuple[str, ...]) -> tuple[int, int, tuple[Ids, ...]]:
    """Return (ids of the tail that all answers keep, ids of the tail, ids of each answer after the kept ones)."""
    ids = token_ids(tokenizer, tail)
    fulls = [token_ids(tokenizer, tail + answer) for answer in answers]
    kept = _shared_length(ids, fulls)
    return kept, len(ids), tuple(full[kept:] for full in fulls)


def _tails(text: str) -> Iterator[str]:
    """Yield ends of a text from which it may be tokenised alike, likely ones first.

    The last line is first, as it is often the same in all prompts ("Answer:", or the opened turn of a chat); then the
    last few words. Each is tried with and without the space before it.
    """
    content = text.rstrip()
    line = content.rfind("\n") + 1
    word = content.rfind(" ", 0, max(len(content) - 24, 0)) + 1
    for start in dict.fromkeys((line, word)):
        if start > 0 and len(text) - start <= _LONGEST_TAIL:
            yield text[start:]
            yield text[start - 1 :]


def _shared_length(ids: Ids, fulls: Sequence[Ids]) -> int:
    """Return how many of the first ids are the first ids of all others too."""
    length = len(ids)
    for full in fulls:
        length = min(length, len(full))
        while ids[:length] != full[:length]:
            length -= 1
    return length


def _call(tokenizer: Any, text: str, **settings: bool) -> Any:
    return tokenizer(text, add_special_tokens=False, padding=False, truncation=False, verbose=False, **settings)


def _with_spans(tokenizer: Any, text: str) -> list[tuple[int, tuple[int, int]]]:
    encoded = _call(tokenizer, text, return_offsets_mapping=True)
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def _is_mark(piece: str) -> bool:
    return bool(piece) and not piece.strip(_MARK)
