"""BLEU and chrF: n-grams in common with the references, counted over all rows.

They are no means over rows, but functions of sums over rows, so they are resampled and paired like all others. Texts
are cut and counted by ``sacrebleu``; the figures equal its own, divided by 100.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.outcomes import Outcomes

if TYPE_CHECKING:
    from collections import Counter

    from sacrebleu.metrics.bleu import BLEUScore

__all__ = ["bleu", "bleu_columns", "bleu_note", "chrf", "chrf_columns", "signature"]

FloatArray = NDArray[np.float64]

_WORDS, _LETTERS = 4, 6  # the longest n-grams of BLEU and chrF
_RECALL_WEIGHT = 4.0  # the square of chrF's beta


def bleu_columns(outcomes: Outcomes) -> FloatArray:
    """Return each row's length, closest reference length, and matching and all n-grams of 1 to 4; (rows, 10).

    An n-gram counts at most as often as the reference that has it most often has it (clipping).
    """
    rows = _bleu_rows(outcomes)
    return np.array([[row.sys_len, row.ref_len, *row.counts, *row.totals] for row in rows], dtype=np.float64)


def bleu(sums: FloatArray) -> FloatArray:
    """BLEU between 0 and 1: the geometric mean of n-gram precisions, times a penalty for answers that are too short.

    An n-gram length without any match counts as half a match, the next such one as a quarter (exponential smoothing).
    0 where nothing matches, or no answer has four words.
    Source: Papineni et al. 2002; Post 2018 for the choices (the signature of ``sacrebleu``).
    """
    length, wanted = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + _WORDS], sums[..., 2 + _WORDS :]
    halvings = np.cumsum(matches == 0, axis=-1)
    smoothed = np.where(matches > 0, matches, 0.5**halvings)
    precisions = np.divide(smoothed, totals, out=np.ones_like(smoothed), where=totals > 0)
    shortness = np.divide(wanted, length, out=np.ones_like(length), where=length > 0)
    penalty = np.exp(np.minimum(0.0, 1.0 - shortness))
    is_defined = (totals > 0).all(-1) & (matches > 0).any(-1)
    return np.where(is_defined, penalty * np.exp(np.log(precisions).mean(-1)), 0.0)


def chrf_columns(outcomes: Outcomes) -> FloatArray:
    """Return each row's n-grams of 1 to 6 letters: those of the answer, of the reference, and the common; (rows, 18).

    White space is left out. Of several references the one with the best chrF for this row counts.
    """
    return np.array([_chrf_row(answer, golds) for answer, golds in _texts(outcomes)], dtype=np.float64)


def chrf(sums: FloatArray) -> FloatArray:
    """ChrF2 between 0 and 1: mean precision and mean recall of letter n-grams; recall weighs twice as much.

    Lengths of n-grams that the answers or the references do not have are left out of the means.
    Source: Popović 2015; beta 2 from Popović 2016.
    """
    answer, wanted, common = (sums[..., part * _LETTERS : (part + 1) * _LETTERS] for part in range(3))
    exists = (answer > 0) & (wanted > 0)
    orders = np.maximum(exists.sum(-1), 1)
    precision, recall = (
        np.divide(common, total, out=np.zeros_like(common), where=exists).sum(-1) / orders for total in (answer, wanted)
    )
    bottom = _RECALL_WEIGHT * precision + recall
    top = (1 + _RECALL_WEIGHT) * precision * recall
    return np.asarray(np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0))


def bleu_note(outcomes: Outcomes) -> str | None:
    """Say where BLEU is undefined."""
    if any(row.totals[_WORDS - 1] for row in _bleu_rows(outcomes)):
        return None
    return "bleu is given as 0: no answer has four words; chrf suits short answers"


def signature(name: Literal["bleu", "chrf"], outcomes: Outcomes) -> str:
    """Return the signature by which ``sacrebleu`` says how the figure was computed, for the report."""
    from sacrebleu.metrics import BLEU, CHRF

    scorer = BLEU() if name == "bleu" else CHRF()
    numbers = sorted({len(golds) for golds in outcomes.golds})
    streams = [[None if place >= number else "x" for number in numbers] for place in range(numbers[-1])]
    scorer.corpus_score(["x"] * len(numbers), streams)
    return str(scorer.get_signature())


def _bleu_rows(outcomes: Outcomes) -> Iterator[BLEUScore]:
    """Give each row's counts, of the words that BLEU's own tokenizer cuts: signs are words, too."""
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True)  # only the counts are used; this keeps it from warning about single rows
    return (scorer.sentence_score(answer, list(golds)) for answer, golds in _texts(outcomes))


def _texts(outcomes: Outcomes) -> list[tuple[str, tuple[str, ...]]]:
    """Return answers, empty where they could not be parsed, with their references."""
    rows = zip(outcomes.answers, outcomes.golds, outcomes.is_parsed, strict=True)
    return [(answer if parsed else "", golds) for answer, golds, parsed in rows]


def _chrf_row(answer: str, golds: Sequence[str]) -> FloatArray:
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    mine = extract_all_char_ngrams(answer, _LETTERS)
    counts = np.array([_common(mine, extract_all_char_ngrams(gold, _LETTERS)) for gold in golds], dtype=np.float64)
    best: FloatArray = counts[int(np.argmax(chrf(counts)))]
    return best


def _common(one: Sequence[Counter[str]], other: Sequence[Counter[str]]) -> list[int]:
    """Return the n-grams of the one, of the other, and of both, for each length."""
    pairs = list(zip(one, other, strict=True))
    # Without a reference n-gram of a length, the answer's own of that length are not held against it.
    mine = [a.total() if b else 0 for a, b in pairs]
    return [*mine, *(b.total() for _, b in pairs), *((a & b).total() for a, b in pairs)]
