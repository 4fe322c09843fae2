"""Which trials to run next: seeds are spent where the decision is open.

1. Everything runs with its first seed.
2. Whoever can no longer win is stopped: it is behind the best by more than rows *and* the luck of seeds can explain,
   or far over a limit. All others get their seeds.
3. While the cheapest strategy that cannot be told apart from the best is not the best itself, both get one seed more,
   up to ``max_seeds``; unless the rows alone leave the two open, for then no seed can close it.

Each decision depends on finished trials alone and is made when all trials of the step before have ended, so a study
that was killed and started again, or runs several trials at a time, decides the same. Looking at the difference after
each further seed would find differences that are not there; :func:`looks_of` says how often it may be looked at, and
p-values are adjusted for that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.studies.candidate import Candidate, Key
from taskfit.studies.candidates import candidates_of, key_of
from taskfit.studies.limits import over_limits
from taskfit.studies.ranking import FEWEST_ROWS, open_pair
from taskfit.studies.spec import Limits, Plan, TrialSpec
from taskfit.studies.words import count, points
from taskfit.tasks.definition import TaskDefinition

if TYPE_CHECKING:
    from taskfit.studies.result import TrialResult

__all__ = ["LUCK_BOUND", "Schedule", "is_hopeless", "next_trials"]

LUCK_BOUND = 0.3
"""What the luck of two seeds together may explain, as a share of the metric's range.

Three standard deviations of a difference where each seed's is 0.07; fine-tuning on small data mostly stays below 0.05
(Dodge et al. 2020, figure 3; Mosbach et al. 2021, table 2)."""

_LEVEL = 0.99
_SLACK = 1.25  # costs of one seed are rough: only who is over a limit by so much is stopped for it


@dataclass(frozen=True)
class Schedule:
    """What to run now, and what is decided so far.

    Attributes:
        waiting: trials to run now; empty when the study is done.
        stopped: why a candidate does not get all its seeds.
        open_trials: how many trials of the plan may still run: those waiting, and those that may follow them.
    """

    waiting: tuple[TrialSpec, ...]
    stopped: Mapping[Key, str] = field(default_factory=dict)
    open_trials: int = 0


def next_trials(
    plan: Plan, folder: Path, results: Mapping[str, TrialResult], left_out: Collection[str] = ()
) -> Schedule:
    """Decide what runs next.

    Args:
        plan: of the study.
        folder: the study's, which holds the predictions of finished trials.
        results: by trial id, of all trials that need not run (again).
        left_out: ids of trials for which the budget has no room; a strategy without its first seed gets no other.
    """
    whole, plan = plan, _without(plan, left_out) if left_out else plan
    first = [spec for spec in plan.trials if spec.seed == 0]
    if missing := _missing(first, results):
        return Schedule(missing, open_trials=len(_missing(plan.trials, results)))
    further = [spec for spec in plan.trials if spec.seed > 0]
    if not _missing(further, results) and not plan.extra_trials:
        return Schedule(())
    stopped = _stopped(plan, folder, [results[spec.id] for spec in first], {key_of(spec) for spec in further})
    stopped = {key: why for key, why in stopped.items() if _missing([s for s in further if key_of(s) == key], results)}
    if missing := _missing([spec for spec in further if key_of(spec) not in stopped], results):
        return Schedule(missing, stopped, len(missing))
    extra = _extra(whole, folder, results, left_out)
    return Schedule(extra, stopped, len(extra))


def _without(plan: Plan, left_out: Collection[str]) -> Plan:
    lost = {key_of(spec) for spec in plan.trials if spec.seed == 0 and spec.id in left_out}
    kept = tuple(spec for spec in plan.trials if spec.id not in left_out and key_of(spec) not in lost)
    return replace(plan, trials=kept)


def is_hopeless(metric: str, one: Candidate, best: Candidate) -> bool:
    """Say whether a candidate is so far behind that neither rows nor the luck of seeds explain it.

    Both are taken by their first run. Rows explain what a 99 % interval of their paired difference holds; the luck of
    seeds explains ``LUCK_BOUND``; both together the sum.
    """
    from taskfit.evaluation.metrics import metric as entry_of
    from taskfit.evaluation.metrics import score
    from taskfit.evaluation.uncertainty import of_difference, reach

    if one.runs[0].units < 2:
        return False
    entry = entry_of(metric)
    ways = of_difference(metric, one.runs[:1], best.runs[:1])
    gap = score(metric, best.runs[0]) - score(metric, one.runs[0])
    return gap > reach(ways, (1 - _LEVEL) / 2) + LUCK_BOUND * (entry.highest - entry.lowest)


def _missing(specs: Sequence[TrialSpec], results: Mapping[str, TrialResult]) -> tuple[TrialSpec, ...]:
    return tuple(spec for spec in specs if spec.id not in results)


def _stopped(plan: Plan, folder: Path, first: Sequence[TrialResult], repeated: set[Key]) -> dict[Key, str]:
    """Return who needs no second seed, and why, judged by the first seed of each."""
    config = plan.config
    candidates = candidates_of(folder, plan, first)
    if config.runs_all_seeds or not repeated or not candidates or len(candidates[0].runs[0]) < FEWEST_ROWS:
        return {}
    metric = _metric(plan)
    over = {c.key: what for c in candidates if (what := _far_over(c, config.volume, config.limits))}
    allowed = [c for c in candidates if c.key not in over]
    stopped = {key: f"{_of_seeds(plan)}: {what}" for key, what in over.items()}
    if allowed:
        best = max(allowed, key=lambda c: c.metrics[metric].value)
        for one in _largest(allowed):
            if is_hopeless(metric, one, best):
                behind = points(best.metrics[metric].value - one.metrics[metric].value)
                alike = [c.key for c in allowed if c.key[:2] == one.key[:2]]
                stopped |= dict.fromkeys(alike, f"{_of_seeds(plan)}: {behind} behind")
    return {key: why for key, why in stopped.items() if key in repeated}


def _largest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return of each strategy on each model the one with most training rows: with few rows anybody is behind."""
    found: dict[tuple[str, str | None], Candidate] = {}
    for one in candidates:
        other = found.get(one.key[:2])
        if other is None or _rows(one) > _rows(other):
            found[one.key[:2]] = one
    return list(found.values())


def _rows(candidate: Candidate) -> float:
    return float("inf") if candidate.train_rows is None else candidate.train_rows


def _of_seeds(plan: Plan) -> str:
    return f"stopped after 1 of {count(plan.config.seeds, 'seed')}"


def _far_over(candidate: Candidate, volume: int, limits: Limits) -> str:
    return " and ".join(over_limits(candidate, volume, limits.looser(_SLACK)))


def _extra(
    plan: Plan, folder: Path, results: Mapping[str, TrialResult], left_out: Collection[str]
) -> tuple[TrialSpec, ...]:
    """Return one seed more for each of the two between whom the decision is open, if seeds can close it."""
    if not plan.extra_trials:
        return ()
    candidates = candidates_of(folder, plan, results.values())
    if not candidates or len(candidates[0].runs[0]) < FEWEST_ROWS:
        return ()
    specs: list[TrialSpec] = []
    for candidate in open_pair(plan, candidates, _metric(plan)):
        left = [s for s in plan.extra_trials if key_of(s) == candidate.key and s.id not in results]
        specs += [spec for spec in left[:1] if spec.id not in left_out]
    return tuple(specs)


def _metric(plan: Plan) -> str:
    return TaskDefinition.from_json(plan.definition).metrics[0]
