"""Which strategy is the one to choose at other volumes: the break-even points, from the recommendation itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

from taskfit.studies.recommend import recommend
from taskfit.studies.volume_chart import volume_range
from taskfit.studies.volumes import break_even

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.spec import Limits

__all__ = ["Choice", "choices_by_volume"]


@dataclass(frozen=True)
class Choice:
    """What is recommended over a range of volumes.

    Attributes:
        first, last: the range, in rows to predict, both included.
        label: the candidate's; None where nothing is within the limits.
    """

    first: int
    last: int
    label: str | None


def choices_by_volume(comparison: Comparison, limits: Limits, volume: int) -> tuple[Choice, ...]:
    """Return the choice for every volume from 100 to 10 million rows (and the study's own), without gaps.

    The choice can change only where two total costs are equal or one meets the limit of money, so it is asked for once
    between any two such volumes.

    Args:
        comparison: what the study found.
        limits: that the choice respects.
        volume: the study's.
    """
    low, high = volume_range(volume)
    edges = sorted({at for at in _turns(comparison.candidates, limits) if low < at < high})
    bounds = [low, *(int(at) + 1 for at in edges), high + 1]
    found: list[Choice] = []
    for first, after in pairwise(bounds):
        if first == after:
            continue
        chosen = recommend(comparison, round(sqrt(first * (after - 1))), limits).chosen
        label = None if chosen is None else chosen.label
        if found and found[-1].label == label:
            found[-1] = Choice(found[-1].first, after - 1, label)
        else:
            found.append(Choice(first, after - 1, label))
    return tuple(found)


def _turns(candidates: tuple[Candidate, ...], limits: Limits) -> Iterator[float]:
    """Yield the volumes at which two candidates cost the same, or one costs as much as the limit allows."""
    able = [candidate for candidate in candidates if candidate.is_tied or limits != type(limits)()]
    for place, one in enumerate(able):
        if limits.usd is not None and one.cost.usd_per_row > 0:
            yield (limits.usd - one.cost.usd_once) / one.cost.usd_per_row
        for other in able[place + 1 :]:
            in_money, more_s = break_even(one.cost, other.cost), other.cost.latency_ms - one.cost.latency_ms
            if in_money is not None:
                yield in_money
            if more_s != 0:  # of equal amounts of money the seconds decide
                yield 1000 * (one.cost.fit_s - other.cost.fit_s) / more_s
