"""What a user can bear, and who exceeds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskfit.studies.words import count, money

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.spec import Limits

__all__ = ["over_limits"]


def over_limits(candidate: Candidate, volume: int, limits: Limits) -> list[str]:
    """Return what the candidate exceeds, in words; empty when it is within all limits."""
    cost, over = candidate.cost, []
    if limits.usd is not None and cost.total_usd(volume) > limits.usd:
        over.append(f"{money(cost.total_usd(volume))} in total, more than {money(limits.usd)}")
    if limits.latency_ms is not None and cost.latency_ms > limits.latency_ms:
        over.append(f"{cost.latency_ms:.3g} ms a row, more than {limits.latency_ms:g} ms")
    if limits.memory_gb is not None and cost.predict_memory_bytes > limits.memory_gb * 1e9:
        over.append(f"{cost.predict_memory_bytes / 1e9:.2g} GB of memory, more than {limits.memory_gb:g} GB")
    if limits.labels is not None and cost.labels > limits.labels:
        over.append(f"{count(cost.labels, 'label')}, more than {limits.labels:,}")
    if limits.forgetting is not None:
        over += _forgotten(candidate, limits.forgetting)
    return over


def _forgotten(candidate: Candidate, most: float) -> list[str]:
    """Return what it has lost, where that is too much or not known."""
    from taskfit.studies.memory import worst_forgetting

    found = worst_forgetting(candidate.results)
    if found is None or found.loss is None:
        why = "" if found is None or not found.reason else f" ({found.reason})"
        return [f"what it forgets was not measured{why}"]
    if found.loss <= most:
        return []
    return [f"{found.loss:.1%} forgotten ({found.worst}), more than {most:.1%}"]
