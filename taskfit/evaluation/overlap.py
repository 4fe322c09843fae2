"""How well an answer's text meets the right ones: equality, words in common, ROUGE. One value a row.

With several right answers the best one counts. An answer that could not be parsed scores 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.outcomes import Outcomes

__all__ = ["exact_match", "is_right", "is_right_by", "normalise_answer", "rouge", "script_note", "token_f1", "word_f1"]

FloatArray = NDArray[np.float64]

_PUNCTUATION = re.compile(rf"(?<!\d)\.|\.(?!\d)|[{re.escape(string.punctuation.replace('.', ''))}]")
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def is_right(outcomes: Outcomes) -> FloatArray:
    """1 where the answer is one of the right ones, character for character, else 0; for labels and options."""
    rows = zip(outcomes.answers, outcomes.golds, outcomes.is_parsed, strict=True)
    return np.array([float(parsed and answer in golds) for answer, golds, parsed in rows])


def is_right_by(yardstick: str) -> Callable[[Outcomes], FloatArray]:
    """Return 1 where the option that another yardstick chooses is right, else 0.

    ``raw`` is the highest log-probability of the whole option, ``normalised`` the highest one a byte: every further
    token or byte makes a text less likely. Where options were not scored, the run's own answer counts.

    Source: Brown et al. 2020, section 2.4; Gao et al. 2021, the harness's ``acc`` and ``acc_norm``.
    """

    def right(outcomes: Outcomes) -> FloatArray:
        choices = outcomes.choices or (None,) * len(outcomes)
        answers = tuple(
            answer if chosen is None else chosen.get(yardstick, answer)
            for answer, chosen in zip(outcomes.answers, choices, strict=True)
        )
        return is_right(replace(outcomes, answers=answers, _memo={}))

    return right


def exact_match(outcomes: Outcomes) -> FloatArray:
    """1 where the answer equals a right one after ``normalise_answer``, else 0."""
    return _best(outcomes, lambda answer, gold: float(normalise_answer(answer) == normalise_answer(gold)))


def token_f1(outcomes: Outcomes) -> FloatArray:
    """F1 of the words in common with a right answer, counted with repetition."""
    return _best(outcomes, word_f1)


def word_f1(answer: str, gold: str) -> float:
    """F1 of the words of two texts after ``normalise_answer``; two empty texts are equal, one empty text scores 0."""
    one, other = normalise_answer(answer).split(), normalise_answer(gold).split()
    if not one or not other:
        return float(one == other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def normalise_answer(text: str) -> str:
    """Lower the case, drop ASCII punctuation, drop the words a, an and the, and make all white space one space.

    So "60%" matches 60, and "The U.S." matches "us". As in SQuAD with one exception: a point between two digits
    stays, because otherwise 1.5 would match 15.
    Source: Rajpurkar et al. 2016, section 6.1.
    """
    return " ".join(_ARTICLE.sub(" ", _PUNCTUATION.sub("", text.lower())).split())


def rouge(kind: str, *, is_stemmed: bool = True) -> Callable[[Outcomes], FloatArray]:
    """Return the function that gives ROUGE F1 per row, by the ``rouge-score`` package; the best reference counts.

    Args:
        kind: ``rouge1``, ``rouge2``, ``rougeL`` (over the whole text as one sentence) or ``rougeLsum`` (sentence by
            sentence, where every line is a sentence, and each word of a reference sentence counts once).
        is_stemmed: whether words longer than three letters are cut to their stem (Porter).

    A word, or pair of words, counts at most as often as the reference has it (clipping). Its tokenizer keeps only
    the letters a to z and digits; ``script_note`` says so where that matters.
    Source: Lin 2004.
    """

    def rouge_rows(outcomes: Outcomes) -> FloatArray:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=is_stemmed)
        return _best(outcomes, lambda answer, gold: float(scorer.score(gold, answer)[kind].fmeasure))

    return rouge_rows


def script_note(name: str) -> Callable[[Outcomes], str | None]:
    """Return the function that warns where a metric's idea of a word does not fit the script of the answers."""

    def note(outcomes: Outcomes) -> str | None:
        if name != "token_f1" and not name.startswith("rouge"):
            return None
        letters = [letter for golds in outcomes.golds for letter in golds[0] if letter.isalpha()]
        foreign = sum(not letter.isascii() for letter in letters)
        if foreign <= 0.2 * len(letters):
            return None
        reads = "words between spaces" if name == "token_f1" else "only the letters a to z and digits"
        return f"{foreign / len(letters):.0%} of the letters of right answers are not a to z, and {name} reads {reads}"

    return note


def _best(outcomes: Outcomes, similarity: Callable[[str, str], float]) -> FloatArray:
    rows = zip(outcomes.answers, outcomes.golds, outcomes.is_parsed, strict=True)
    return np.array([max(similarity(answer, gold) for gold in golds) if ok else 0.0 for answer, golds, ok in rows])
