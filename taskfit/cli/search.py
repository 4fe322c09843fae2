"""What ``--tries`` and ``--tuning-budget`` mean, for every command that fits."""

from __future__ import annotations

import re

from taskfit.errors import ConfigError

__all__ = ["BUDGET_HELP", "TRIES_HELP", "searched", "seconds_of"]

TRIES_HELP = "Points tried on validation for each strategy that has parameters to search, its defaults among them."
BUDGET_HELP = "Instead of --tries: about how long to search for each strategy, such as 90s, 10m or 2h."

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def searched(strategy: str, tries: int | None, tuning_budget: str | None) -> str:
    """Return the strategy's name with a search around it, where one is asked for and there is something to search.

    Raises:
        ConfigError: both are given, or one is out of range.
    """
    from taskfit.studies.search import with_search

    seconds = None if tuning_budget is None else seconds_of(tuning_budget)
    return with_search(strategy, tries=tries, seconds=seconds)


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as ``90s``, ``10m`` or ``1.5h``.

    Raises:
        ConfigError: it is none, or not above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"a time is a number above 0 with s, m or h behind it (got {text!r})", "such as 10m")
    return float(match[1]) * _SECONDS[match[2]]
