"""What a whole study may take: seconds on the clock, or money."""

from __future__ import annotations

import re
from dataclasses import dataclass

from taskfit.errors import ConfigError
from taskfit.studies.words import money, seconds

__all__ = ["StudyBudget", "read_budget", "seconds_of"]

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*"


@dataclass(frozen=True)
class StudyBudget:
    """A cap on all trials of a study together, over all runs into its folder; exactly one of the two is given.

    Attributes:
        seconds: on the clock, while trials run.
        usd: US dollars, for those seconds at the price of the machine, and for what services bill.
    """

    seconds: float | None = None
    usd: float | None = None

    @property
    def text(self) -> str:
        """The amount in words."""
        return seconds(self.seconds) if self.seconds is not None else money(self.usd or 0.0)


def read_budget(text: str) -> StudyBudget:
    """Read a budget such as ``90s``, ``30m``, ``2h`` or ``5usd``.

    Raises:
        ConfigError: it is none of these, is not above 0, or is in a currency that the price table does not know.
    """
    match = re.fullmatch(_NUMBER + r"([A-Za-z]{1,3})\s*", text, flags=re.ASCII)
    unit = "" if match is None else match[2].lower()
    if unit == "eur":
        raise ConfigError(
            f"a budget in euros needs a rate, and the price table knows US dollars alone (got {text!r})",
            "convert it, and give the amount in usd",
        )
    if match is None or unit not in (*_UNITS_S, "usd"):
        raise ConfigError(f"a budget is a number with s, m, h or usd behind it (got {text!r})", "such as 30m or 5usd")
    if float(match[1]) == 0:
        raise ConfigError(f"a budget must be above 0 (got {text!r})", "such as 30m or 5usd; leave it out for no cap")
    if unit == "usd":
        return StudyBudget(usd=float(match[1]))
    return StudyBudget(seconds=float(match[1]) * _UNITS_S[unit])


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as ``90s``, ``10m`` or ``1.5h``.

    Raises:
        ConfigError: it is none, or not above 0.
    """
    match = re.fullmatch(_NUMBER + r"([smh])\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"a time is a number above 0 with s, m or h behind it (got {text!r})", "such as 10m")
    return float(match[1]) * _UNITS_S[match[2]]
