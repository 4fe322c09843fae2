"""Plain text as a model of each architecture learns it: continued, with masked tokens, or with corrupted spans."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from taskfit.errors import TrainingError
from taskfit.tuning.examples import Example
from taskfit.tuning.masking import masks_of, sentinels_of
from taskfit.tuning.packing import Piece, pack, packed_example, pieces_of
from taskfit.tuning.training_set import TrainingSet

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.text import Document

__all__ = ["TextSet", "text_set"]

HELD_OUT_SHARE = 0.05
"""Share of the text's tokens whose perplexity is told before and after, and decides when to stop."""

HELD_OUT_SEQUENCES = 64
"""Most of them, in full sequences: more would cost more than they tell."""

_MASKS, _HELD_OUT, _ORDER = 4, 5, 6
"""What a stream of random numbers is for; each has its own."""

Corrupt = Callable[[str, Piece, Sequence[int]], Example]
"""Makes an example of a piece of text; takes its name, its tokens and what the random numbers come from."""


@dataclass(frozen=True)
class TextSet:
    """What is learned of a text, and by what it is judged.

    Attributes:
        data: the examples of all passes, and those held out.
        judged: examples of held-out text whose loss is told before and after.
        measure: what the exponential of that loss is, in words.
    """

    data: TrainingSet
    judged: tuple[Example, ...]
    measure: str


def text_set(
    model: LanguageModel,
    documents: Sequence[Document],
    length: int,
    *,
    steps: Callable[[int], int],
    batch: int,
    seed: int,
    where: str,
) -> TextSet:
    """Return the documents as the model learns them.

    A decoder gets them packed; for the others every text is a sequence of its own (long ones are several), hidden anew
    in each pass, by draws from (seed, pass, text) alone. Held-out text is hidden in the same way for every seed.

    Args:
        model: decides what is learned.
        documents: in the order in which they are held out.
        length: most tokens of a sequence.
        steps: of training on so many sequences.
        batch: sequences of one step.
        seed: of what is hidden, and of the order.
        where: the text comes from, in words.

    Raises:
        TrainingError: there is too little text.
        ConfigError: the model cannot go on with its pre-training.
    """
    if model.architecture == "decoder":
        return _continued(model, documents, length, where)
    if model.architecture == "encoder":
        masks = masks_of(model)
        learned, held_out = _learned_and_held_out(model, documents, length)
        corrupt: Corrupt = masks.masked
        judged = [part for n, ids in enumerate(held_out, 1) for part in masks.in_turn(f"text {n}", ids)]
        measure, what = "pseudo-perplexity", "15 % of the tokens masked"
    else:
        sentinels = sentinels_of(model)
        learned, held_out = _learned_and_held_out(model, documents, length)
        corrupt, judged = sentinels.corrupted, []
        measure, what = "perplexity of spans", "15 % of the tokens taken out in spans of 3"
    passes = ceil(steps(len(learned)) * batch / len(learned))
    kept = tuple(corrupt(f"text {n}", ids, (_HELD_OUT, n)) for n, ids in enumerate(held_out, 1))
    examples = tuple(
        corrupt(f"text {n}, pass {turn + 1}", ids, (seed, _MASKS, turn, n))
        for turn in range(passes)
        for n, ids in enumerate(learned, 1)
    )
    tokens = sum(map(len, learned))
    note = (
        f"{len(documents):,} documents of {where}: {tokens:,} tokens in {len(learned)} sequences of at most {length}, "
        f"{what}, anew in each of {passes} passes; {sum(map(len, held_out)):,} tokens are held out"
    )
    order = _order(len(learned), passes, seed)
    data = TrainingSet(examples, kept, len(learned), order, (note,))
    return TextSet(data, tuple(judged) or kept, f"{measure} of held-out text")


def _continued(model: LanguageModel, documents: Sequence[Document], length: int, where: str) -> TextSet:
    """Texts packed into full sequences."""
    learned, held_out = _parted([pieces_of(model, document, length) for document in documents], length)
    examples, kept = _packed(learned, length), tuple(_packed(held_out, length))
    tokens = sum(map(len, learned))
    note = (
        f"{len(documents):,} documents of {where}: {tokens:,} tokens packed into {len(examples)} sequences of at most "
        f"{length} ({tokens / (len(examples) * length):.0%} full); {sum(map(len, held_out)):,} tokens are held out"
    )
    return TextSet(
        TrainingSet(tuple(examples), kept, len(examples), notes=(note,)), kept, "perplexity of held-out text"
    )


def _learned_and_held_out(
    model: LanguageModel, documents: Sequence[Document], length: int
) -> tuple[list[Piece], list[Piece]]:
    return _parted([_stretches(model, document, length) for document in documents], length)


def _stretches(model: LanguageModel, document: Document, length: int) -> list[Piece]:
    """The document's tokens in stretches that fit between special tokens; those stand around an encoder's already."""
    from taskfit.models.joint import disarm, token_ids
    from taskfit.models.text_format import text_format

    form, tokenizer = text_format(model.tokenizer), model.tokenizer
    written = [re.escape(token) for token in (tokenizer.mask_token, tokenizer.sep_token) if token is not None]
    text = disarm(document.text, form.control)  # which lets those two stand, for a template may write them
    body = token_ids(tokenizer, disarm(text, re.compile("|".join(written))) if written else text)
    room = length - len(form.head) - len(form.tail)
    stretches = [body[start : start + room] for start in range(0, len(body), room)]
    if model.architecture == "encoder":
        special = set(tokenizer.all_special_ids)
        return [(*form.head, *ids, *form.tail) for ids in stretches if not special.issuperset(ids)]
    return [ids for ids in stretches if len(ids) > 1]


def _parted(pieces: Sequence[Sequence[Piece]], length: int) -> tuple[list[Piece], list[Piece]]:
    """(learned pieces, held-out pieces): whole documents in order, of the last one its end, until there are enough.

    Of a few long documents only the end of one is held out, and of a single piece nothing can be.

    Raises:
        TrainingError: there is too little text.
    """
    total = sum(len(piece) for document in pieces for piece in document)
    wanted = min(HELD_OUT_SHARE * total, float(HELD_OUT_SEQUENCES * length))
    held_out: list[Piece] = []
    learned: list[Piece] = []
    for document in pieces:
        taken: list[Piece] = []
        left = list(document)
        while left and sum(map(len, held_out)) + sum(map(len, taken)) < wanted:
            taken.insert(0, left.pop())
        held_out += taken
        learned += left
    if not held_out or not learned:
        raise TrainingError(
            f"there is too little text to learn from: {sum(map(len, pieces))} pieces of at most {length} tokens, "
            "and at least two are needed, one of them to look at afterwards",
            "Name text files with text=, or give the task `unlabelled` rows.",
        )
    return learned, held_out


def _packed(pieces: Sequence[Piece], length: int) -> list[Example]:
    groups = pack([len(piece) for piece in pieces], length)
    return [packed_example(f"text {n}", [pieces[index] for index in group]) for n, group in enumerate(groups, start=1)]


def _order(sequences: int, passes: int, seed: int) -> tuple[int, ...]:
    """The example at each place of the training: every pass's own, in an order of its own."""
    import numpy as np

    orders = (np.random.default_rng([seed, _ORDER, turn]).permutation(sequences) for turn in range(passes))
    return tuple(turn * sequences + int(index) for turn, order in enumerate(orders) for index in order)
