"""Rows with several right labels at once: an answer that lists labels, held against the list of right ones.

Such a task is one of generation: its target is a text like ``billing, refund``. Labels are parted by commas,
semicolons and line breaks; case, order, repetition and white space around them do not matter. Of several references,
each a whole list, the likest one counts. An answer that could not be parsed lists nothing.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.outcomes import Outcomes

__all__ = ["label_set", "label_sets_f1", "macro_columns", "macro_labels_f1", "micro_columns", "micro_labels_f1"]

FloatArray = NDArray[np.float64]

_BREAK = re.compile(r"[,;\n]")


def label_set(text: str) -> frozenset[str]:
    """Return the labels that a text lists.

    >>> sorted(label_set("Billing,  refund;billing"))
    ['billing', 'refund']
    """
    return frozenset(" ".join(part.split()).casefold() for part in _BREAK.split(text) if part.strip())


def label_sets_f1(outcomes: Outcomes) -> FloatArray:
    """Return the F1 of each row's labels, shape (rows,); their mean is scikit-learn's ``average="samples"``."""
    return np.array([_f1(answer, right) for answer, right in _pairs(outcomes)])


def micro_columns(outcomes: Outcomes) -> FloatArray:
    """Return each row's labels in common, right ones and answered ones, shape (rows, 3)."""
    return np.array([[len(a & r), len(r), len(a)] for a, r in _pairs(outcomes)], dtype=np.float64)


def micro_labels_f1(sums: FloatArray) -> FloatArray:
    """F1 of all labels' counts together, from sums of ``micro_columns``; 0 where there are none."""
    bottom = sums[..., 1] + sums[..., 2]
    found: FloatArray = np.divide(2 * sums[..., 0], bottom, out=np.zeros_like(bottom), where=bottom > 0)
    return found


def macro_columns(outcomes: Outcomes) -> Any:  # a scipy sparse array; scipy has no types
    """Return, per row, 1 for each right, answered and common label, sparse, shape (rows, 3 x labels).

    Labels are those of any reference, so that the columns are the same in all runs over the same rows.
    """
    from scipy.sparse import lil_array

    known = sorted(set().union(*(label_set(gold) for golds in outcomes.golds for gold in golds)))
    place, width = {label: number for number, label in enumerate(known)}, len(known)
    columns = lil_array((len(outcomes), 3 * width))
    for row, (answer, right) in enumerate(_pairs(outcomes)):
        for shift, labels in enumerate((right, answer & place.keys(), answer & right)):
            for label in labels:
                columns[row, shift * width + place[label]] = 1.0
    return columns.tocsr()


def macro_labels_f1(sums: FloatArray) -> FloatArray:
    """Mean F1 over the labels that are right somewhere, from sums of ``macro_columns``.

    An answered label that is right nowhere lowers the other two figures, and not this one.
    """
    width = sums.shape[-1] // 3
    right, answered, common = sums[..., :width], sums[..., width : 2 * width], sums[..., 2 * width :]
    scores = np.divide(2 * common, right + answered, out=np.zeros_like(common), where=right + answered > 0)
    counted = (right > 0).sum(-1).astype(np.float64)
    total = np.where(right > 0, scores, 0.0).sum(-1)
    found: FloatArray = np.divide(total, counted, out=np.zeros_like(counted), where=counted > 0)
    return found


def _pairs(outcomes: Outcomes) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Return (labels answered, right labels) of each row."""

    def pairs() -> list[tuple[frozenset[str], frozenset[str]]]:
        found = []
        for answer, golds, parsed in zip(outcomes.answers, outcomes.golds, outcomes.is_parsed, strict=True):
            given = label_set(answer) if parsed else frozenset()
            found.append((given, max(map(label_set, golds), key=lambda right: _f1(given, right))))
        return found

    return outcomes.once("label sets", pairs)


def _f1(answer: frozenset[str], right: frozenset[str]) -> float:
    total = len(answer) + len(right)
    return 2 * len(answer & right) / total if total else 1.0
