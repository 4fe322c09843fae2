"""What a model forgot: the same texts and rows before and after a change of its weights, paired.

All changes are told in one unit, *loss*, above 0 where something was forgotten: the share by which a text's
perplexity rose, or what a task lost of its metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from taskfit.errors import DataError
from taskfit.evaluation.metrics import metric, score
from taskfit.evaluation.outcomes import Outcomes, outcomes
from taskfit.evaluation.paired import compare_paired
from taskfit.evaluation.retained import Retained, RetainedAnswers, RetainedTask, RetainedText

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["Forgetting", "Look", "PartLoss", "forgotten", "look", "nothing_changed", "unmeasured"]

_LEVEL = 0.95
_MOST_NATS = 100.0  # perplexity times 10**43: whatever lies above cannot be told apart, and must not overflow


@dataclass(frozen=True, eq=False)
class Look:
    """What a model made of one part, unit by unit.

    Attributes:
        nats, tokens: shape (units,), of texts and answers; None for a task.
        outcomes: of a task; None for texts and answers.
    """

    nats: NDArray[np.float64] | None = None
    tokens: NDArray[np.float64] | None = None
    outcomes: Outcomes | None = None


@dataclass(frozen=True)
class PartLoss:
    """What was forgotten of one part.

    Attributes:
        kind: ``text``, ``answers`` or ``task``.
        metric: what ``before``, ``after`` and ``change`` are in: ``nats_per_token``, or the task's metric.
        units: number of documents, answers or rows, which ``of`` names; they are paired.
        change: after less before, with its interval; in the metric's own unit and direction.
        loss: the change in the common unit, above 0 where it was forgotten, with its interval.
        fingerprint: of what was looked at; losses can be compared only where it is the same.
        note: what a reader must know, or "".
    """

    name: str
    kind: Literal["text", "answers", "task"]
    metric: str
    units: int
    of: str
    before: float
    after: float
    change: float
    change_low: float
    change_high: float
    loss: float
    low: float
    high: float
    fingerprint: str
    note: str = ""


@dataclass(frozen=True)
class Forgetting:
    """What a change of weights made a model forget.

    Attributes:
        status: ``measured``; ``none``: no weight was changed; ``unmeasured``: see ``reason``.
        is_reversible: the base's weights are whole and the change can be taken off: then nothing is lost at all.
        loss, low, high: of the part that lost most, which ``worst`` names, with its interval; above 0 is forgotten;
            None where nothing was measured.
        level: of all intervals.
    """

    status: Literal["measured", "none", "unmeasured"]
    is_reversible: bool
    loss: float | None
    low: float | None
    high: float | None
    worst: str = ""
    reason: str = ""
    parts: tuple[PartLoss, ...] = ()
    level: float = _LEVEL

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, of the shape in docs/design.md; ``from_json`` gives the record back."""
        return {"format": 1, **asdict(self), "parts": [asdict(part) for part in self.parts]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Forgetting:
        """Build the record from what ``to_json`` gave.

        Raises:
            DataError: another format, or values that are missing or unknown.
        """
        try:
            if values["format"] != 1 or values["status"] not in ("measured", "none", "unmeasured"):
                raise ValueError(f"format {values['format']!r}, status {values['status']!r}")
            parts = tuple(PartLoss(**part) for part in values["parts"])
            return cls(**{key: value for key, value in values.items() if key not in ("format", "parts")}, parts=parts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a record of forgetting is damaged ({type(error).__name__}: {error})") from error

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in words: one sentence a part, and what taking the change off would give."""
        if self.status == "none":
            return (f"Nothing was forgotten: {self.reason}.",)
        if self.status == "unmeasured":
            return (f"What was forgotten was not measured: {self.reason}.",)
        off = (
            "With the change taken off, the base is as it was: nothing is lost."
            if self.is_reversible
            else "The base's weights are overwritten: this cannot be taken off."
        )
        return (*map(_sentence, self.parts), off)


def nothing_changed(reason: str) -> Forgetting:
    """Return what a strategy that changes no weight forgets: exactly nothing."""
    return Forgetting("none", True, 0.0, 0.0, 0.0, reason=reason)


def unmeasured(reason: str, *, is_reversible: bool = False) -> Forgetting:
    """Return the record of a change that could not be measured, and why; it is never the same as no loss."""
    return Forgetting("unmeasured", is_reversible, None, None, None, reason=reason)


def look(model: LanguageModel, parts: Sequence[Retained]) -> tuple[Look, ...]:
    """Ask a model for everything that is to be retained.

    Args:
        model: tuned or not; texts need a decoder, answers and tasks a model that generates.
        parts: what to ask.

    Raises:
        EngineError: the model cannot be asked this.
    """
    return tuple(_look(model, part) for part in parts)


def forgotten(
    parts: Sequence[Retained], before: Sequence[Look], after: Sequence[Look], *, is_reversible: bool
) -> Forgetting:
    """Compare two looks at the same parts.

    Args:
        parts: what was asked, at least one.
        before: of the base model.
        after: of the changed one.
        is_reversible: whether the change can be taken off.
    """
    losses = tuple(_part_loss(part, *looks) for part, *looks in zip(parts, before, after, strict=True))
    worst = max(losses, key=lambda part: part.loss)
    return Forgetting("measured", is_reversible, worst.loss, worst.low, worst.high, worst=worst.name, parts=losses)


def _look(model: LanguageModel, part: Retained) -> Look:
    if isinstance(part, RetainedTask):
        return Look(outcomes=_answered(model, part))
    losses = _text_losses(model, part) if isinstance(part, RetainedText) else _answer_losses(model, part)
    nats, tokens = np.array(losses, dtype=np.float64).T
    return Look(nats, tokens)


def _text_losses(model: LanguageModel, part: RetainedText) -> list[tuple[float, int]]:
    from taskfit.inference.text_loss import text_losses

    return [(found.nats, found.tokens) for found in text_losses(model, part.texts)]


def _answer_losses(model: LanguageModel, part: RetainedAnswers) -> list[tuple[float, int]]:
    from taskfit.inference.requests import Score, Scored
    from taskfit.inference.torch_engine import TorchEngine
    from taskfit.tasks.prompt import Prompt

    responses = TorchEngine(model).run([Score(Prompt(question), (answer,)) for question, answer in part.pairs])
    return [(-found.logprobs[0], found.tokens[0]) for found in responses if isinstance(found, Scored)]


def _answered(model: LanguageModel, part: RetainedTask) -> Outcomes:
    """Ask the task's first wording, without examples."""
    from taskfit.inference.torch_engine import TorchEngine
    from taskfit.strategy.composed import default_program
    from taskfit.strategy.run_program import run_programs
    from taskfit.tasks.task import DataReport, Task

    task = Task(part.definition, {"train": (), "validation": (), "test": part.rows}, part.fingerprint, DataReport())
    prepared = default_program().prepare(task, seed=0)
    answers = [found.answer for found in run_programs(part.definition, prepared, part.rows, TorchEngine(model))]
    return outcomes(
        part.definition.kind,
        [row.id for row in part.rows],
        [part.definition.gold(row) for row in part.rows],
        [answer.answer for answer in answers],
        labels=part.definition.labels,
        is_parsed=[answer.is_parsed for answer in answers],
    )


def _part_loss(part: Retained, before: Look, after: Look) -> PartLoss:
    if isinstance(part, RetainedTask):
        assert before.outcomes is not None and after.outcomes is not None
        return _task_loss(part, before.outcomes, after.outcomes)
    assert before.nats is not None and after.nats is not None and before.tokens is not None
    return _text_loss(part, before.nats, after.nats, before.tokens)


def _text_loss(
    part: RetainedText | RetainedAnswers,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    tokens: NDArray[np.float64],
) -> PartLoss:
    """Compare nats a token, documents being drawn and every token counting alike.

    The interval is Student's, of the ratio of sums, linearised (Cochran 1977, section 6.4); on the perplexity's
    logarithm, so that a loss never falls below -1.
    """
    from scipy.stats import t

    gaps, total, units = after - before, float(tokens.sum()), len(tokens)
    change = float(gaps.sum()) / total
    rest = gaps - change * tokens
    error = math.sqrt(units / (units - 1) * float((rest**2).sum())) / total
    reach = float(t.isf((1 - _LEVEL) / 2, units - 1)) * error
    ends = (change, change - reach, change + reach)
    loss, low, high = (math.expm1(min(_MOST_NATS, end)) for end in ends)
    is_text = isinstance(part, RetainedText)
    return PartLoss(
        name=part.name,
        kind="text" if is_text else "answers",
        metric="nats_per_token",
        units=units,
        of="documents" if is_text else "answers",
        before=float(before.sum()) / total,
        after=float(after.sum()) / total,
        change=ends[0],
        change_low=ends[1],
        change_high=ends[2],
        loss=loss,
        low=low,
        high=high,
        fingerprint=part.fingerprint,
        note=part.note,
    )


def _task_loss(part: RetainedTask, before: Outcomes, after: Outcomes) -> PartLoss:
    name = part.definition.metrics[0]
    found = compare_paired(name, [after], [before], permutations=100)
    sign = -1.0 if metric(name).higher_is_better else 1.0
    low, high = sorted((sign * found.low, sign * found.high))
    chance = _by_one_answer(name, before)
    notes = [part.note] if part.note else []
    if chance is not None and found.value_b <= chance:
        notes.append(f"before, it was no better than always one answer ({chance:.3f}): little was there to forget")
    return PartLoss(
        name=part.name,
        kind="task",
        metric=name,
        units=len(before),
        of="rows",
        before=found.value_b,
        after=found.value_a,
        change=found.difference,
        change_low=found.low,
        change_high=found.high,
        loss=sign * found.difference + 0.0,
        low=low,
        high=high,
        fingerprint=part.fingerprint,
        note="; ".join(notes),
    )


def _by_one_answer(name: str, run: Outcomes) -> float | None:
    """Return the best figure that always the same label gets; None where there are no labels."""
    if run.kind != "classification":
        return None
    parsed = np.ones(len(run), dtype=np.bool_)
    alike = (replace(run, answers=(label,) * len(run), is_parsed=parsed, _memo={}) for label in run.labels)
    return max(score(name, one) for one in alike)


def _sentence(part: PartLoss) -> str:
    note = f"; {part.note}" if part.note else ""
    what = f"over {part.units} {part.of}{note}"
    if part.kind == "task":
        moved = f"{_signed(-part.loss * 100)} points ({_signed(-part.high * 100)} to {_signed(-part.low * 100)})"
        return f"{part.name}: {part.metric} {part.before:.3f} before, {part.after:.3f} after, {moved}, {what}."
    moved = f"{_signed(part.loss * 100)} % ({_signed(part.low * 100)} to {_signed(part.high * 100)})"
    before, after = math.exp(min(part.before, _MOST_NATS)), math.exp(min(part.after, _MOST_NATS))
    return f"{part.name}: perplexity {before:.4g} before, {after:.4g} after, {moved}, {what}."


def _signed(value: float) -> str:
    shown = f"{value:+.1f}" if abs(value) < 1000 else f"{value:+.2g}"
    return "0" if float(shown) == 0 else shown
