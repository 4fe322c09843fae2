"""What a service's tokens cost: what the user says in its name, else the price table, else nothing on this machine."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from taskfit.costs.prices import ServicePrice, age_in_days
from taskfit.errors import ConfigError

if TYPE_CHECKING:
    from taskfit.costs.prices import PriceTable
    from taskfit.models.service import Service

__all__ = ["find_service_price", "service_note", "service_price"]


def find_service_price(service: Service, table: PriceTable) -> ServicePrice | None:
    """Return what a million tokens cost; None where nobody says.

    The name's own ``usd_in`` and ``usd_out`` go first (one alone leaves the other at 0), then the table's entry
    ``host/model``, then its entry ``host``; a service on this machine of which nothing is said costs nothing.
    """
    if service.usd_in is not None or service.usd_out is not None:
        said = datetime.date.today()
        return ServicePrice(service.host, service.usd_in or 0.0, service.usd_out or 0.0, "the model's name", said)
    for name in (f"{service.host}/{service.model}", service.host):
        if name in table.services:
            return table.services[name]
    if service.is_local:
        return ServicePrice(service.host, 0.0, 0.0, "nothing said, and on this machine", datetime.date.today())
    return None


def service_price(service: Service, table: PriceTable) -> ServicePrice:
    """Return what a million tokens cost.

    Raises:
        ConfigError: nobody says, and the service is not on this machine: compared at a price of 0 it would always win.
    """
    found = find_service_price(service, table)
    if found is None:
        raise ConfigError(
            f"no price for the tokens of {service.host}",
            f"Give usd_in and usd_out in the model's name, or an entry {service.host}/{service.model} under services "
            "in a price file (--prices FILE), in US dollars per million tokens.",
        )
    return found


def service_note(service: Service, price: ServicePrice) -> str:
    """Return a sentence that says what is reckoned with, and warns of an old price."""
    age = age_in_days(price.date)
    old = f"; that is {age} days ago, check it" if age is not None else ""
    return (
        f"tokens of {service.model} at {service.host}: {price.usd_per_mtok_in:g} USD per million in, "
        f"{price.usd_per_mtok_out:g} out ({price.source}, {price.date}){old}; before a trial, four characters count as "
        "a token"
    )
