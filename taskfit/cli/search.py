"""What ``--tries`` and ``--tuning-budget`` mean, for every command that fits."""

from __future__ import annotations

from taskfit.studies.budget import seconds_of

__all__ = ["BUDGET_HELP", "TRIES_HELP", "searched"]

TRIES_HELP = "Points tried on validation for each strategy that has parameters to search, its defaults among them."
BUDGET_HELP = "Instead of --tries: about how long to search for each strategy, such as 90s, 10m or 2h."


def searched(strategy: str, tries: int | None, tuning_budget: str | None) -> str:
    """Return the strategy's name with a search around it, where one is asked for and there is something to search.

    Raises:
        ConfigError: both are given, or one is out of range.
    """
    from taskfit.studies.search import with_search

    seconds = None if tuning_budget is None else seconds_of(tuning_budget)
    return with_search(strategy, tries=tries, seconds=seconds)
