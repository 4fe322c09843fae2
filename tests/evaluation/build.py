"""Small outcomes for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence

from taskfit.evaluation.outcomes import Outcomes, outcomes


def row_ids(rows: int) -> list[str]:
    """Return ids whose sorted order is their order."""
    return [f"r{row:06d}" for row in range(rows)]


def classified(
    gold: Sequence[int], predicted: Sequence[int], labels: int, groups: Sequence[str] | None = None
) -> Outcomes:
    """Return outcomes of a classification; a prediction of -1 could not be parsed."""
    names = [f"label-{code}" for code in range(labels)]
    return outcomes(
        "classification",
        row_ids(len(gold)),
        [(names[code],) for code in gold],
        [names[code] if code >= 0 else "?" for code in predicted],
        labels=names,
        is_parsed=[code >= 0 for code in predicted],
        groups=groups,
    )


def chosen(is_right: Sequence[bool], groups: Sequence[str] | None = None) -> Outcomes:
    """Return outcomes of a choice task where each row is right or wrong."""
    answers = ["a" if right else "b" for right in is_right]
    return outcomes("choice", row_ids(len(answers)), [("a",)] * len(answers), answers, groups=groups)


def generated(golds: Sequence[Sequence[str]], answers: Sequence[str]) -> Outcomes:
    """Return outcomes of a generation task."""
    return outcomes("generation", row_ids(len(golds)), golds, answers)


def judged(gold: Sequence[int], shares: Sequence[Sequence[float]], groups: Sequence[str] | None = None) -> Outcomes:
    """Return outcomes of a classification that answers the likeliest label and says how likely each is."""
    names = [f"label-{code}" for code in range(len(shares[0]))]
    return outcomes(
        "classification",
        row_ids(len(gold)),
        [(names[code],) for code in gold],
        [names[max(range(len(row)), key=row.__getitem__)] for row in shares],
        labels=names,
        groups=groups,
        probabilities=[dict(zip(names, row, strict=True)) for row in shares],
    )
