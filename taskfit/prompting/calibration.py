"""Taking a prompt's own leaning off the scores of options: what each method subtracts, and which one is chosen.

A prompt makes some labels likely whatever stands in the row. Each method estimates that leaning as a *prior*, one
number an option in the units of the scores, and subtracts it:

- ``pmi``: the score after the question's ending alone, without row and examples (the "domain premise", here the last
  lines that all questions share; nothing where they share none). Source: Holtzman et al. 2021, section 3.
- ``contextual``: the logarithm of the mean share when the row's texts are replaced by "N/A", by nothing and by
  "[MASK]", so that such a row comes out uniform. Source: Zhao et al. 2021, section 5.
- ``batch``: the logarithm of the mean share over rows of the task, whose labels are not looked at, so that the mean of
  the calibrated odds is the same for every label. Source: Zhou et al. 2024, section 3.2. Only where options are the
  same in every row.

None of them needs a further pass over the rows: priors of a shared prompt take at most three requests in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal, TypeGuard, cast, get_args

from taskfit.errors import Faults, PredictorError
from taskfit.prompting.options import Unit, option_scores, shares
from taskfit.tasks.task import Row

if TYPE_CHECKING:
    from taskfit.inference.requests import Scored
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Option, Value

__all__ = [
    "CONTENT_FREE",
    "LEAST_ROWS",
    "Calibrate",
    "Calibration",
    "Method",
    "ScoredRow",
    "Tried",
    "best_calibration",
    "calibrated",
    "calibration_from_json",
    "content_free_rows",
    "premise",
    "prior",
]

Method = Literal["batch", "contextual", "none", "pmi"]
Calibrate = Literal["auto", "batch", "contextual", "none", "pmi"]

CONTENT_FREE = ("N/A", "", "[MASK]")
"""What stands in for the row's texts. Source: Zhao et al. 2021, section 5."""

LEAST_ROWS = 20
"""Validation rows below which nothing is chosen: the plain scores stay."""

_TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(-12, 25))


@dataclass(frozen=True)
class Tried:
    """One way of scoring, and what it gave on validation.

    Attributes:
        nll: mean negative log-likelihood of the right option, in nats, at the best temperature.
        accuracy: share of rows whose best option is right.
    """

    normalise: Unit
    calibrate: Method
    nll: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How scores become an answer.

    Attributes:
        normalise: unit of the scores.
        method: what is subtracted.
        prior: that, one number a label; None where it is asked with every row, or nothing is subtracted.
        premise: for ``pmi``: the ending that all questions share.
        tried: the ways that were compared on validation; empty where nothing was chosen.
    """

    normalise: Unit = "sum"
    method: Method = "none"
    prior: tuple[float, ...] | None = None
    premise: str = ""
    tried: tuple[Tried, ...] = ()

    @property
    def asks_rows(self) -> bool:
        """Whether the prior is asked with every row."""
        return self.method in ("contextual", "pmi") and self.prior is None

    def scores(self, options: Sequence[Option], own: Scored, content_free: Sequence[Scored] = ()) -> tuple[float, ...]:
        """Return the calibrated scores of a row's options.

        Args:
            options: what may be answered.
            own: their log-probabilities after the row's prompt.
            content_free: those after the prompts without the row, where ``asks_rows``.
        """
        plain = option_scores(options, own, self.normalise)
        if self.method == "none":
            return plain
        if self.prior is not None:
            return calibrated(plain, self.prior)
        found = [option_scores(options, scored, self.normalise) for scored in content_free]
        return calibrated(plain, prior(self.method, found))

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values; :func:`calibration_from_json` gives them back."""
        numbers: list[Value] | None = None if self.prior is None else list(self.prior)
        tried: list[Value] = [asdict(one) for one in self.tried]
        how: dict[str, Value] = {"normalise": self.normalise, "method": self.method, "premise": self.premise}
        return {**how, "prior": numbers, "tried": tried}


@dataclass(frozen=True)
class ScoredRow:
    """A validation row's log-probabilities after its own prompt, and after those without it.

    Attributes:
        options: what may be answered.
        gold: place of the right option.
        own: after the row's prompt.
        content_free: method to the responses that its prior is made of.
    """

    options: Sequence[Option]
    gold: int
    own: Scored
    content_free: Mapping[Method, Sequence[Scored]]


def calibrated(scores: Sequence[float], taken_off: Sequence[float]) -> tuple[float, ...]:
    """Return the scores less the prior.

    Raises:
        PredictorError: the prior, which may come from a folder, has another number of options.
    """
    if len(scores) != len(taken_off):
        raise PredictorError(f"calibration has a prior of {len(taken_off)} numbers for {len(scores)} options")
    return tuple(score - other for score, other in zip(scores, taken_off, strict=True))


def prior(method: Method, scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return what a method subtracts, one finite number an option.

    A service may say that an option is impossible after the premise; it then loses what the least likely of the others
    loses, for nothing is known of how unlikely it is.

    Args:
        method: any but ``none``.
        scores: plain scores: ``pmi``: after the premise, one list; ``contextual``: after each content-free input;
            ``batch``: of each row.
    """
    if method == "pmi":
        least = min((score for score in scores[0] if math.isfinite(score)), default=0.0)
        return tuple(max(score, least) for score in scores[0])
    found = [shares(one) for one in scores]
    means = [math.fsum(column) / len(found) for column in zip(*found, strict=True)]
    return tuple(math.log(max(mean, 1e-300)) for mean in means)


def content_free_rows(definition: TaskDefinition, row: Row, wording: int) -> tuple[Row, ...]:
    """Return the row with its texts replaced by each of :data:`CONTENT_FREE`; fields that name options stay."""
    from taskfit.tasks.template import names_in

    source = definition.wordings[wording].options
    kept = frozenset() if source is None else names_in(source)
    if source is not None and "row" in source:  # fields taken by row["..."] cannot be told: keep all but the input's
        kept = frozenset(row.fields) - names_in(definition.text)
    texts = [name for name, value in row.fields.items() if isinstance(value, str) and name not in kept]
    return tuple(Row(row.id, {**row.fields, **dict.fromkeys(texts, text)}) for text in CONTENT_FREE)


def premise(questions: Sequence[str]) -> str:
    """Return the last lines that all questions share; empty where their last lines differ, or they are one text."""
    lines = [question.split("\n") for question in dict.fromkeys(questions)]
    shared = 0
    while all(len(one) > shared + 1 and one[-1 - shared] == lines[0][-1 - shared] for one in lines):
        shared += 1
    return "\n".join(lines[0][-shared:]).strip() if shared and len(lines) > 1 else ""


def best_calibration(
    rows: Sequence[ScoredRow], units: Sequence[Unit], methods: Sequence[Method], is_shared: bool
) -> Calibration:
    """Return the way of scoring that fits validation rows, with the table of all.

    Ways are compared by their mean negative log-likelihood at the temperature that suits each best (units differ in
    scale, not in meaning), not by accuracy, which on some dozens of rows moves in steps larger than the differences.
    Of the ways that are not worse than the best by more than one standard error of the paired difference, the first is
    taken: the plain scores stay unless there is evidence against them (Breiman et al. 1984, section 3.4.3).

    Args:
        rows: at least :data:`LEAST_ROWS`, else the first way is taken.
        units: to be crossed with the methods, the plain one first.
        methods: the plain one first.
        is_shared: one prior serves all rows.
    """
    ways = [Calibration(unit, method) for method, unit in product(methods, units)]
    ways = [_with_prior(way, rows) if is_shared or way.method == "batch" else way for way in ways]
    losses, tried = [], []
    for way in ways:
        scores = [way.scores(row.options, row.own, row.content_free.get(way.method, ())) for row in rows]
        lost = _losses(scores, [row.gold for row in rows])
        right = sum(max(range(len(s)), key=s.__getitem__) == row.gold for s, row in zip(scores, rows, strict=True))
        losses.append(lost)
        tried.append(Tried(way.normalise, way.method, math.fsum(lost) / len(rows), right / len(rows)))
    chosen = ways[_simplest(losses)] if len(rows) >= LEAST_ROWS else ways[0]
    return replace(chosen, tried=tuple(tried))


def _with_prior(way: Calibration, rows: Sequence[ScoredRow]) -> Calibration:
    if way.method == "none":
        return way
    if way.method == "batch":
        scores = [option_scores(row.options, row.own, way.normalise) for row in rows]
    else:
        first = rows[0]
        scores = [option_scores(first.options, s, way.normalise) for s in first.content_free[way.method]]
    return replace(way, prior=prior(way.method, scores))


def _losses(scores: Sequence[Sequence[float]], golds: Sequence[int]) -> list[float]:
    """Return the loss of every row at the temperature with the least mean loss."""
    return min((_losses_at(scores, golds, temperature) for temperature in _TEMPERATURES), key=math.fsum)


def _losses_at(scores: Sequence[Sequence[float]], golds: Sequence[int], temperature: float) -> list[float]:
    found = []
    for row, gold in zip(scores, golds, strict=True):
        highest = max(row)
        total = math.fsum(math.exp((score - highest) / temperature) for score in row)
        found.append(math.log(total) - (row[gold] - highest) / temperature)
    return found


def _simplest(losses: Sequence[Sequence[float]]) -> int:
    best = min(losses, key=math.fsum)
    for place, one in enumerate(losses):
        gaps = [a - b for a, b in zip(one, best, strict=True)]
        mean = math.fsum(gaps) / len(gaps)
        variance = math.fsum((gap - mean) ** 2 for gap in gaps) / max(1, len(gaps) - 1)
        if mean <= math.sqrt(variance / len(gaps)):
            return place
    raise AssertionError("the best way is not worse than itself")


def calibration_from_json(values: object, faults: Faults) -> Calibration:
    """Build the calibration of a predictor folder, checked; what is wrong is noted."""
    if not isinstance(values, Mapping):
        faults.add(f"calibration must be an object (got {type(values).__name__})")
        return Calibration()
    unit, method, found = values.get("normalise"), values.get("method"), values.get("prior")
    if unit not in get_args(Unit) or method not in get_args(Method):
        faults.add(f"calibration must name a known normalise and method (got {unit!r} and {method!r})")
        return Calibration()
    if found is not None and not (isinstance(found, list) and all(_is_finite(value) for value in found)):
        faults.add("prior must be a list of finite numbers, or none")
        return Calibration()
    listed = values.get("tried")
    if not isinstance(listed, list):
        faults.add(f"tried must be a list (got {type(listed).__name__})")
        return Calibration()
    numbers = None if found is None else tuple(map(float, found))
    tried = tuple(_tried(one, faults) for one in listed)
    return Calibration(cast("Unit", unit), cast("Method", method), numbers, str(values.get("premise", "")), tried)


def _tried(values: object, faults: Faults) -> Tried:
    if isinstance(values, Mapping):
        unit, method, nll, accuracy = (values.get(name) for name in ("normalise", "calibrate", "nll", "accuracy"))
        if unit in get_args(Unit) and method in get_args(Method) and _is_finite(nll) and _is_finite(accuracy):
            return Tried(cast("Unit", unit), cast("Method", method), float(nll), float(accuracy))
    faults.add("every way that was tried must have normalise, calibrate, nll and accuracy")
    return Tried("sum", "none", 0.0, 0.0)


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
