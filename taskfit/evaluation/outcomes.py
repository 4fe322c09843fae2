"""What one run answered and what was right, row by row: the only thing that metrics look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import DataError, Faults

if TYPE_CHECKING:
    from taskfit.strategy.contract import Prediction
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Kind, Row

__all__ = ["Outcomes", "check_same_rows", "outcomes", "outcomes_of"]

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One run's answers beside the right ones, always in the order of the row ids.

    The order is fixed so that nothing computed from it depends on the order in which rows were predicted, and so
    that two runs over the same rows are paired position by position.

    Attributes:
        kind: the task's kind.
        labels: label values, for classification; empty otherwise.
        row_ids: sorted, each once.
        golds: the right answers of each row, at least one.
        answers: what the run answered; never looked at where ``is_parsed`` is false.
        is_parsed: shape (rows,); false where the run gave no valid answer, which counts as wrong.
        groups: shape (rows,), codes from 0 up without gaps, of rows that belong together; None: every row by itself.
        probabilities: of each row, answer value to probability; None for rows, or all rows, where the run gave none.
        choices: of each row, what would be chosen by other yardsticks (``raw``, ``normalised``); None for rows, or all
            rows, whose options were not scored.
    """

    kind: Kind
    labels: tuple[str, ...]
    row_ids: tuple[str, ...]
    golds: tuple[tuple[str, ...], ...]
    answers: tuple[str, ...]
    is_parsed: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None
    probabilities: tuple[Mapping[str, float] | None, ...] | None = None
    choices: tuple[Mapping[str, str] | None, ...] | None = None
    _memo: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def units(self) -> int:
        """Number of things that are drawn when resampling: groups where there are some, rows otherwise."""
        return len(self) if self.groups is None else int(self.groups.max()) + 1

    def only(self, keep: NDArray[np.bool_]) -> Outcomes:
        """Return the outcomes of some rows, at least one; ``keep`` has shape (rows,)."""
        places = np.flatnonzero(keep)
        if not len(places):
            raise DataError("expected at least one row to keep, got none")
        groups = None if self.groups is None else np.unique(self.groups[places], return_inverse=True)[1].ravel()
        return replace(
            self,
            row_ids=tuple(self.row_ids[i] for i in places),
            golds=tuple(self.golds[i] for i in places),
            answers=tuple(self.answers[i] for i in places),
            is_parsed=self.is_parsed[places],
            groups=groups,
            probabilities=None if self.probabilities is None else tuple(self.probabilities[i] for i in places),
            choices=None if self.choices is None else tuple(self.choices[i] for i in places),
            _memo={},
        )

    def once(self, key: str, compute: Callable[[], Result]) -> Result:
        """Return ``compute()``, computed at the first call with this key only."""
        if key not in self._memo:
            self._memo[key] = compute()
        kept: Result = self._memo[key]
        return kept


def outcomes(
    kind: Kind,
    row_ids: Sequence[str],
    golds: Sequence[Sequence[str]],
    answers: Sequence[str],
    *,
    labels: Sequence[str] = (),
    is_parsed: Sequence[bool] | None = None,
    groups: Sequence[str] | None = None,
    probabilities: Sequence[Mapping[str, float] | None] | None = None,
    choices: Sequence[Mapping[str, str] | None] | None = None,
) -> Outcomes:
    """Build outcomes from columns of equal length, in any order of rows.

    Args:
        kind: the task's kind.
        row_ids: each once.
        golds: right answers of each row, at least one: label value, option value, or texts.
        answers: the run's answers.
        labels: label values; needed for classification.
        is_parsed: false where there was no valid answer; default: all true.
        groups: names of groups that rows belong to (a dialogue, a customer); default: every row by itself.
        probabilities: answer value to probability, of each row; None where a row has none.
        choices: yardstick to what it would choose, of each row; None where the options were not scored.

    Raises:
        DataError: columns of unequal length, no rows, an id twice, a row without a right answer, a gold label outside
            the labels, or probabilities that are negative or do not sum to 1. All faults are reported together.
    """
    parsed = [True] * len(row_ids) if is_parsed is None else list(is_parsed)
    shares = [each or None for each in probabilities] if probabilities is not None and any(probabilities) else None
    _check(kind, row_ids, golds, answers, labels, parsed, groups, shares)
    order = sorted(range(len(row_ids)), key=row_ids.__getitem__)
    codes = None if groups is None else np.unique([groups[i] for i in order], return_inverse=True)[1].astype(np.int64)
    return Outcomes(
        kind=kind,
        labels=tuple(labels),
        row_ids=tuple(row_ids[i] for i in order),
        golds=tuple(tuple(golds[i]) for i in order),
        answers=tuple(answers[i] for i in order),
        is_parsed=np.array([parsed[i] for i in order], dtype=np.bool_),
        groups=codes,
        probabilities=None if shares is None else tuple(shares[i] for i in order),
        choices=None if choices is None or not any(choices) else tuple(choices[i] for i in order),
    )


def outcomes_of(definition: TaskDefinition, rows: Sequence[Row], predictions: Iterable[Prediction]) -> Outcomes:
    """Match predictions to the rows they were made for, by id.

    Raises:
        DataError: a row without a prediction, a prediction without a row, or two for one row.
    """
    listed = list(predictions)
    by_id = {prediction.row_id: prediction for prediction in listed}
    faults = Faults("predictions")
    if len(by_id) != len(listed):
        faults.add(f"expected one prediction a row, got {len(listed)} predictions for {len(by_id)} different rows")
    missing = [row.id for row in rows if row.id not in by_id]
    strange = sorted(by_id.keys() - {row.id for row in rows})
    if missing:
        faults.add(f"{len(missing)} rows have no prediction, the first is {missing[0]!r}")
    if strange:
        faults.add(f"{len(strange)} predictions belong to no row, the first is {strange[0]!r}")
    faults.raise_as(DataError)
    matched = [by_id[row.id] for row in rows]
    group = definition.group
    return outcomes(
        definition.kind,
        [row.id for row in rows],
        [definition.gold(row) for row in rows],
        [prediction.answer for prediction in matched],
        labels=definition.labels,
        is_parsed=[prediction.is_parsed for prediction in matched],
        groups=None if group is None else [str(row.fields.get(group)) for row in rows],
        probabilities=[prediction.probabilities for prediction in matched],
        choices=[prediction.choices for prediction in matched],
    )


def check_same_rows(runs: Sequence[Outcomes]) -> None:
    """Make sure that all runs answered the same rows, with the same right answers.

    Raises:
        DataError: no runs, or a run that differs from the first; says in how many rows.
    """
    if not runs:
        raise DataError("expected at least one run, got none")
    first = runs[0]
    for number, run in enumerate(runs[1:], start=2):
        if run.row_ids != first.row_ids:
            apart = len(set(run.row_ids) ^ set(first.row_ids))
            raise DataError(
                f"runs must be over the same rows; run {number} and run 1 differ in {apart} row ids",
                "compare runs over one test set only, or keep the rows that all of them predicted",
            )
        if run.golds != first.golds:
            apart = sum(a != b for a, b in zip(run.golds, first.golds, strict=True))
            raise DataError(f"the right answers of {apart} rows differ between run {number} and run 1")
        if (run.kind, run.labels) != (first.kind, first.labels):
            raise DataError(f"run {number} and run 1 belong to tasks of different kinds or labels")
        if not _same_groups(run.groups, first.groups):
            raise DataError(f"run {number} and run 1 put the rows into different groups")


def _same_groups(one: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one, other))


def _check(
    kind: Kind,
    row_ids: Sequence[str],
    golds: Sequence[Sequence[str]],
    answers: Sequence[str],
    labels: Sequence[str],
    is_parsed: Sequence[bool],
    groups: Sequence[str] | None,
    probabilities: Sequence[Mapping[str, float] | None] | None,
) -> None:
    faults = Faults("outcomes")
    columns = {"golds": len(golds), "answers": len(answers), "is_parsed": len(is_parsed)}
    if groups is not None:
        columns["groups"] = len(groups)
    if probabilities is not None:
        columns["probabilities"] = len(probabilities)
    for name, length in columns.items():
        if length != len(row_ids):
            faults.add(f"expected {len(row_ids)} {name}, one a row (got {length})")
    if not row_ids:
        faults.add("expected at least one row, got none")
    if len(set(row_ids)) != len(row_ids):
        often = Counter(row_ids).most_common(1)[0]
        faults.add(f"a row id must occur once; {often[0]!r} occurs {often[1]} times")
    empty = [row_id for row_id, gold in zip(row_ids, golds, strict=False) if not gold]
    if empty:
        faults.add(f"{len(empty)} rows have no right answer, the first is {empty[0]!r}")
    if kind == "classification":
        known = set(labels)
        outside = [row_id for row_id, gold in zip(row_ids, golds, strict=False) if gold and gold[0] not in known]
        if not labels:
            faults.add("classification needs labels, got none")
        elif outside:
            faults.add(f"the right answer of {len(outside)} rows is none of the labels, the first is {outside[0]!r}")
    strange = [row_id for row_id, shares in zip(row_ids, probabilities or (), strict=False) if not _is_sound(shares)]
    if strange:
        faults.add(f"the probabilities of {len(strange)} rows are negative or do not sum to 1, first {strange[0]!r}")
    faults.raise_as(DataError)


def _is_sound(shares: Mapping[str, float] | None) -> bool:
    """Say whether these are probabilities; a sum off by less than a thousandth is rounding."""
    return shares is None or (min(shares.values(), default=0.0) >= 0 and abs(sum(shares.values()) - 1) < 1e-3)
