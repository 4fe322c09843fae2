"""What of a plan fits into its budget, told before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskfit.errors import ConfigError
from taskfit.models.service import is_service_name
from taskfit.studies.expected import expected_s
from taskfit.studies.left_out import cheapest_first, in_words, planned_to_fit
from taskfit.studies.result import TrialResult, read_result
from taskfit.studies.spec import Plan, TrialSpec
from taskfit.studies.spent import Spent, read_spent
from taskfit.studies.words import count, money, seconds

__all__ = ["budget_lines"]


def budget_lines(plan: Plan, folder: Path) -> tuple[str, ...]:
    """Return sentences on what fits into what is left of the budget; none without a budget.

    Trials of strategies that will be stopped are counted too, so more may fit than is told.

    Raises:
        ConfigError: nothing has run yet, and not even the cheapest trial is expected to fit.
    """
    budget = plan.config.budget
    if budget is None:
        return ()
    spent = read_spent(folder) if folder.exists() else Spent()
    ended = [found for spec in plan.trials if (found := read_result(folder, spec)) is not None]
    done = {result.spec.id for result in ended}
    waiting = [spec for spec in plan.trials if spec.id not in done]
    waiting = cheapest_first(waiting, {spec.id: expected_s(spec, ended) for spec in waiting})
    costs = {spec.id: _cost(plan, spec, ended) for spec in waiting}
    left = budget.seconds - spent.wall_s if budget.seconds is not None else _left_usd(plan, spent)
    fitting, rest = planned_to_fit(waiting, costs, left)
    shown = seconds if budget.seconds is not None else money
    if not fitting and not ended and waiting:
        least = min(costs[spec.id] or 0.0 for spec in waiting)
        raise ConfigError(
            f"the budget of {budget.text} is less than any trial is expected to take: the cheapest, "
            f"{waiting[0].label}, needs about {shown(least)}",
            "give a larger --budget, or cheaper strategies",
        )
    told = sum(costs[spec.id] or 0.0 for spec in fitting)
    before = "" if not ended and spent == Spent() else f", of which {shown(max(0.0, left))} are left"
    lines = [
        f"budget of {budget.text}{before}: {len(fitting)} of {count(len(waiting), 'trial')} to run are expected to "
        f"fit, about {shown(told)}"
    ]
    why = {spec.id: f"needs about {shown(costs[spec.id] or 0.0)}" for spec in rest}
    return (*lines, *(f"no room expected for {line}" for line in in_words(plan, why)), *_unknown(fitting, costs))


def _cost(plan: Plan, spec: TrialSpec, ended: Sequence[TrialResult]) -> float | None:
    """What a trial is expected to take of the budget, in its unit; None: unknown."""
    wall_s, budget = expected_s(spec, ended), plan.config.budget
    if budget is None or budget.usd is None:
        return None if wall_s is None else wall_s / plan.jobs
    of_services = spec.forecast_usd if spec.model is not None and is_service_name(spec.model) else 0.0
    if wall_s is None and not of_services:
        return None
    return (wall_s or 0.0) / 3600 * plan.price.usd_per_hour / plan.jobs + (of_services or 0.0)


def _left_usd(plan: Plan, spent: Spent) -> float:
    budget = plan.config.budget
    return 0.0 if budget is None else (budget.usd or 0.0) - spent.usd(plan.price.usd_per_hour)


def _unknown(specs: Sequence[TrialSpec], costs: dict[str, float | None]) -> list[str]:
    unknown = list(dict.fromkeys(spec.strategy for spec in specs if costs[spec.id] is None))
    if not unknown:
        return []
    return [f"nobody knows how long {', '.join(unknown)} will take: counted as nothing, run last, stopped at the cap"]
