"""What a trial cost: measured seconds and bytes, counted work, the price of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import TaskfitError

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture
    from taskfit.costs.prices import Machine, ServicePrice

__all__ = ["architecture_of", "priced_machine", "priced_service"]


def priced_machine(hardware: str | None, prices: Path | None) -> Machine:
    """Return the machine whose price counts.

    Args:
        hardware: its name in the price table; None: the table's default.
        prices: the user's own table; None: the shipped one alone.

    Raises:
        ConfigError: unknown machine, or a faulty table.
    """
    from taskfit.costs.prices import DEFAULT_MACHINE, load_prices, machine

    return machine(load_prices(prices), hardware or DEFAULT_MACHINE)


def priced_service(model: str | None, prices: Path | None) -> ServicePrice | None:
    """Return what a service's tokens cost; None where the model is none of a service.

    Args:
        model: its name.
        prices: the user's own table; None: the shipped one alone.

    Raises:
        ConfigError: nobody says what they cost, or a faulty table.
    """
    from taskfit.costs.prices import load_prices
    from taskfit.costs.service_prices import service_price
    from taskfit.models.service import is_service_name, read_service_name

    if model is None or not is_service_name(model):
        return None
    return service_price(read_service_name(model), load_prices(prices))


def architecture_of(config: Mapping[str, Any] | None) -> Architecture | None:
    """Return what a model computes, from its configuration; None where its family cannot be counted."""
    from taskfit.costs.architecture import Architecture

    if not config:
        return None
    try:
        return Architecture.from_config(config)
    except TaskfitError:
        return None
