"""What the runs of a task's wordings show: figures, differences, mix-ups, rows won and lost, length and price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from taskfit.studies.compare import FEWEST_ROWS, Versus, against_best
from taskfit.studies.prompt_workshop_rows import (
    Favourite,
    FloatArray,
    MixUp,
    OddRows,
    answers_given,
    favourite,
    mix_ups,
    odd_rows,
    prompt_shown,
    row_values,
)

if TYPE_CHECKING:
    from taskfit.evaluation.intervals import Interval
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.studies.prompt_workshop_runs import WordingRun
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task

__all__ = ["Spread", "Variant", "find", "spread"]


@dataclass(frozen=True)
class Spread:
    """How far several figures lie apart; ``sd`` is their standard deviation."""

    low: float
    high: float
    sd: float


@dataclass(frozen=True)
class Variant:
    """One wording over its draws; or, for a task with a single wording, one draw.

    Attributes:
        name: of the wording, or of the draw.
        wording: number of the wording.
        strategy: the name that runs it.
        draws: seed of each draw to the deciding metric.
        metrics: each metric of the task with its 95 % interval.
        versus: the comparison with the best; None for the best itself, and where there are too few rows to compare.
        unparsed: answers that were no valid ones, over all draws; they count as wrong.
        mix_ups: the most frequent ones; empty for generated text.
        favourite: the answer given most often; None for generated text.
        odd: rows on which this one does clearly worse than the best of the others, or clearly better than all.
        tokens_mean, tokens_longest: prompt tokens a row.
        tokens_out_mean: tokens generated or scored a row.
        cut_rows: rows whose question was cut to the model's context, over all draws.
        dropped_shots: worked examples left out for the same reason, over all rows and draws.
        s_per_row: seconds on the clock a row, many rows in one go.
        usd_per_thousand_rows: these seconds at the machine's price, and a service's tokens.
        example: the prompt of the first row, in readable form.
        runs: the outcomes of each draw.
    """

    name: str
    wording: int
    strategy: str
    draws: Mapping[int, float]
    metrics: Mapping[str, Interval]
    versus: Versus | None
    unparsed: int
    mix_ups: tuple[MixUp, ...]
    favourite: Favourite | None
    odd: OddRows
    tokens_mean: float
    tokens_longest: int
    tokens_out_mean: float
    cut_rows: int
    dropped_shots: int
    s_per_row: float
    usd_per_thousand_rows: float
    example: str
    runs: tuple[Outcomes, ...]


def spread(values: Sequence[float]) -> Spread:
    """Return lowest, highest and standard deviation (of these very values, not an estimate for others)."""
    return Spread(min(values), max(values), pstdev(values))


def find(task: Task, rows: Sequence[Row], runs: Sequence[WordingRun], usd_per_hour: float) -> tuple[Variant, ...]:
    """Gather what the runs show; the best variant on the deciding metric first, of equal ones the shorter prompt.

    Variants are the wordings, or the draws where the task has a single wording.

    Args:
        task: its first metric decides.
        rows: what was predicted.
        runs: every wording with the same draws.
        usd_per_hour: price of the machine.
    """
    from taskfit.evaluation.outcomes import outcomes_of

    definition, metric = task.definition, task.definition.metrics[0]
    outcomes = {id(run): outcomes_of(definition, rows, run.predictions) for run in runs}
    groups = _grouped(definition, runs)
    values = {name: row_values(metric, [outcomes[id(run)] for run in group]) for name, group in groups.items()}
    found = [
        _variant(name, group, tuple(outcomes[id(run)] for run in group), groups, values, rows, definition, usd_per_hour)
        for name, group in groups.items()
    ]
    found.sort(key=lambda variant: (-variant.metrics[metric].value, variant.tokens_mean, variant.wording))
    return tuple(_compared(found, metric, len(rows)))


def _grouped(definition: TaskDefinition, runs: Sequence[WordingRun]) -> dict[str, list[WordingRun]]:
    wordings = definition.wordings
    draws = len(runs) // len(wordings)
    groups: dict[str, list[WordingRun]] = {}
    for run in runs:
        is_by_draw = len(wordings) == 1 and draws > 1
        groups.setdefault(f"draw {run.draw}" if is_by_draw else wordings[run.wording].name, []).append(run)
    return groups


def _compared(variants: Sequence[Variant], metric: str, rows: int) -> list[Variant]:
    if rows < FEWEST_ROWS or len(variants) < 2:
        return list(variants)
    compared = against_best(metric, [variant.runs for variant in variants])
    rest = [replace(variant, versus=versus) for variant, versus in zip(variants[1:], compared, strict=True)]
    return [variants[0], *rest]


def _variant(
    name: str,
    group: Sequence[WordingRun],
    outcomes: tuple[Outcomes, ...],
    groups: Mapping[str, Sequence[WordingRun]],
    values: Mapping[str, FloatArray],
    rows: Sequence[Row],
    definition: TaskDefinition,
    usd_per_hour: float,
) -> Variant:
    from taskfit.evaluation.intervals import metric_interval
    from taskfit.evaluation.metrics import score

    metric = definition.metrics[0]
    predictions = [prediction for run in group for prediction in run.predictions]
    s_per_row = sum(run.measured.wall_s for run in group) / len(predictions)
    usd_tokens = sum(run.usd_tokens for run in group)
    given = answers_given(definition, rows, group)
    first = group[0]
    return Variant(
        name=name,
        wording=first.wording,
        strategy=first.predictor.strategy,
        draws={run.draw: score(metric, found) for run, found in zip(group, outcomes, strict=True)},
        metrics={each: metric_interval(each, outcomes) for each in definition.metrics},
        versus=None,
        unparsed=sum(not prediction.is_parsed for prediction in predictions),
        mix_ups=mix_ups(given),
        favourite=favourite(given),
        odd=odd_rows(name, groups, values, rows, definition),
        tokens_mean=fmean(prediction.tokens_in for prediction in predictions),
        tokens_longest=max(prediction.tokens_in for prediction in predictions),
        tokens_out_mean=fmean(prediction.tokens_out for prediction in predictions),
        cut_rows=sum(prediction.cut_tokens > 0 for prediction in predictions),
        dropped_shots=sum(run.dropped_shots for run in group),
        s_per_row=s_per_row,
        usd_per_thousand_rows=1000 * (usd_per_hour * s_per_row / 3600 + usd_tokens / len(predictions)),
        example=prompt_shown(first, definition, rows[0]),
        runs=outcomes,
    )
