"""What the candidates of a study would cost on another machine of the price table, and which to choose there.

The work is that which the trials were measured to do; its seconds there are a forecast from the machine's rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from taskfit.costs.trial_cost import TrialCost
from taskfit.errors import ConfigError, TaskfitError
from taskfit.models.service import is_service_name
from taskfit.studies.costing import architecture_of, priced_machine
from taskfit.studies.forecast import method_of, trains
from taskfit.studies.needs import searched, usage
from taskfit.studies.ranking import looks_of, rank
from taskfit.studies.report_choices import Choice, choices_by_volume
from taskfit.studies.volumes import BreakEven, VolumeCosts, break_evens, costs_at_volumes

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.costs.accelerator import Accelerator
    from taskfit.costs.prices import Machine
    from taskfit.studies.candidate import Candidate, Cost
    from taskfit.studies.compare import Comparison

__all__ = ["Elsewhere", "There", "check_machines", "elsewhere"]

_PROCESS_BYTES = 530e6  # of a trial's process on a processor, before a model: not on a GPU


@dataclass(frozen=True)
class There:
    """A candidate on the other machine.

    Attributes:
        label: the candidate's.
        fit_s, latency_ms: forecasts; those of a service, and without a language model, as measured.
        basis: how they were found.
        costs: in US dollars.
        is_too_large: it was measured to take more memory than the machine has.
    """

    label: str
    fit_s: float
    latency_ms: float
    basis: str
    costs: VolumeCosts
    is_too_large: bool


@dataclass(frozen=True)
class Elsewhere:
    """A machine, with what the study would cost and recommend there. All of it is a forecast.

    Attributes:
        machine: its name in the price table.
        usd_per_hour, date: its price, and of when.
        candidates: that can be foreseen there, in the order of the study's table.
        unknown: those that cannot, with the reason.
        choices: what is recommended there, by volume.
        break_evens: where the cheapest of those that cannot be told apart changes.
    """

    machine: str
    usd_per_hour: float
    date: str
    candidates: tuple[There, ...]
    unknown: tuple[tuple[str, str], ...]
    choices: tuple[Choice, ...]
    break_evens: tuple[BreakEven, ...]


def check_machines(names: Sequence[str], prices: Path | None) -> None:
    """Check that each is a machine of the price table whose rates are known.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        _device(priced_machine(name, prices), prices)


def elsewhere(comparison: Comparison, name: str, prices: Path | None = None) -> Elsewhere:
    """Forecast a study's costs on a machine.

    Args:
        comparison: of the study.
        name: of the machine in the price table.
        prices: the user's own table; None: the shipped one alone.

    Raises:
        ConfigError: the machine is unknown, or nobody knows its rates.
    """
    config = comparison.study.plan.config
    machine = priced_machine(name, prices)
    device = _device(machine, prices)
    found: list[tuple[Candidate, There]] = []
    unknown: list[tuple[str, str]] = []
    for candidate in comparison.candidates:
        try:
            seconds = _seconds(candidate, comparison, device)
        except TaskfitError as error:
            unknown.append((candidate.label, error.message))
            continue
        cost = _cost_there(candidate, *seconds[:2], comparison, machine)
        moved = replace(candidate, cost=cost)
        (costs,) = costs_at_volumes([moved])
        needed = max(cost.fit_memory_bytes, cost.predict_memory_bytes)
        too_large = needed - (_PROCESS_BYTES if machine.gpu else 0) > device.memory_bytes
        found.append((moved, There(moved.label, seconds[0], 1000 * seconds[1], seconds[2], costs, too_large)))
    fitting = tuple(moved for moved, there in found if not there.is_too_large)
    if len(fitting) < len(comparison.candidates):  # others may be the best of those that are left
        fitting = tuple(rank(fitting, comparison.metric, looks_of(comparison.study.plan)))
    there = replace(comparison, candidates=fitting)
    is_ranked = bool(fitting) and comparison.has_enough_rows
    return Elsewhere(
        machine=machine.name,
        usd_per_hour=machine.price_usd_per_hour,
        date=machine.date.isoformat(),
        candidates=tuple(there for _, there in found),
        unknown=tuple(unknown),
        choices=choices_by_volume(there, config.limits, config.volume) if is_ranked else (),
        break_evens=break_evens([one for one in there.candidates if one.is_tied]) if is_ranked else (),
    )


def _device(machine: Machine, prices: Path | None) -> Accelerator:
    from taskfit.costs.device import find_device
    from taskfit.costs.prices import load_prices

    return find_device(machine.name, load_prices(prices)).accelerator


def _seconds(candidate: Candidate, comparison: Comparison, device: Accelerator) -> tuple[float, float, str]:
    """Return the seconds of a fit and of a row there, means over seeds, and how they were found.

    Raises:
        ConfigError: the model's family cannot be counted.
    """
    from taskfit.costs.elsewhere import seconds_on
    from taskfit.strategy.grammar import parse

    costs = [TrialCost.from_json(result.cost) for result in candidate.results]
    if candidate.model is None or is_service_name(candidate.model):
        why = "no language model" if candidate.model is None else "a service"
        return candidate.cost.fit_s, candidate.cost.latency_ms / 1000, f"{why}: seconds as measured here"
    config = next(facts.config for facts in comparison.study.plan.models if facts.name == candidate.model)
    architecture = architecture_of(config)
    if architecture is None:
        raise ConfigError("the model's family cannot be counted")
    strategy = searched(parse(candidate.strategy))
    asked = usage(strategy, comparison.definition, 0)
    is_generated = asked.is_generated or asked.generated_tokens > 0 or comparison.definition.kind == "generation"
    pairs = [
        seconds_on(
            device,
            architecture,
            cost.fit_work,
            cost.predict_work,
            rows=cost.rows_predicted,
            is_generated=is_generated,
            trains=trains(strategy),
            method=method_of(strategy),
        )
        for cost in costs
    ]
    row_s = fmean(predict_s / cost.rows_predicted for (_, predict_s), cost in zip(pairs, costs, strict=True))
    return fmean(fit_s for fit_s, _ in pairs), row_s, "forecast from the measured work"


def _cost_there(candidate: Candidate, fit_s: float, row_s: float, comparison: Comparison, machine: Machine) -> Cost:
    """Return the candidate's cost with the other machine's seconds and price; what services bill stays."""
    costs = [TrialCost.from_json(result.cost) for result in candidate.results]
    rows = fmean(max(1, result.counts["rows"]) for result in candidate.results)
    usd_per_s = machine.price_usd_per_hour / 3600
    usd_per_row = usd_per_s * row_s + fmean(cost.usd_service_predict / cost.rows_predicted for cost in costs)
    return replace(
        candidate.cost,
        usd_fit=usd_per_s * fit_s + fmean(cost.usd_service_fit for cost in costs),
        usd_per_row=usd_per_row,
        usd_evaluate=usd_per_row * rows,
        fit_s=fit_s,
        latency_ms=1000 * row_s,
    )
