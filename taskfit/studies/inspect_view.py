"""What an inspection says in words: the same sentences for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.tuning.inspect import Inspection
    from taskfit.tuning.neighbours import Clusters
    from taskfit.tuning.spectrum import Spectrum

__all__ = ["Table", "findings", "tables"]

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""(title, headings, rows)."""

_IDLE = 0.5
"""Below this share of the rank, the rest is called idle."""


def findings(found: Inspection) -> list[str]:
    """Return what a reader should know first, in sentences."""
    said = [f"{found.strategy} on {found.base}, {found.values:,} values"]
    changed = sum(block.changed for block in found.blocks)
    if changed:
        most = max(found.blocks, key=lambda block: block.relative)
        said.append(
            f"{changed:,} values of the base are others ({changed / found.values:.2%}); relative to what was there, "
            f"{most.block} changed most, by {most.relative:.2%}"
        )
    if found.added:
        said.append(
            f"{sum(one.values for one in found.added):,} values stand beside the base, whose weights are as before"
        )
    if found.updates:
        said.append(_rank_line(found.updates))
    if found.clusters is not None:
        said += _cluster_lines(found.clusters, len(found.vectors))
    return said


def tables(found: Inspection) -> list[Table]:
    """Return what there is to see, as tables of texts; those without rows are left out."""
    blocks: list[tuple[str, ...]] = [
        (one.block, f"{one.values:,}", f"{one.changed / one.values:.1%}", f"{one.norm:.3g}", f"{one.relative:.2%}")
        for one in found.blocks
        if one.changed
    ]
    added: list[tuple[str, ...]] = [(one.where, f"{one.values:,}", f"{one.norm:.3g}") for one in found.added]
    updates = [_update_row(kind, members) for kind, members in _by_kind(found.updates).items()]
    vectors: list[tuple[str, ...]] = [
        (str(one.number), f"{one.norm:.3g}", f"{one.tightness:.2f}", _tokens(one.tokens, one.cosines))
        for one in found.vectors
    ]
    every: list[Table] = [
        ("Change of each block", ("block", "values", "changed", "norm", "relative"), blocks),
        ("Beside the base", ("where", "values", "norm"), added),
        (
            "Low-rank updates, mean over the layers of a kind",
            ("layers", "count", "rank", "effective rank", "for 90 %", "largest singular value"),
            updates,
        ),
        ("Vectors and their nearest tokens", ("vector", "norm", "tightness", "nearest tokens (cosine)"), vectors),
    ]
    return [one for one in every if one[2]]


def _rank_line(updates: Sequence[Spectrum]) -> str:
    used = fmean(one.effective / one.rank for one in updates)
    effective, rank = fmean(one.effective for one in updates), fmean(one.rank for one in updates)
    half = fmean(one.for_90_percent for one in updates)
    verdict = "the rank is used" if used >= _IDLE else "more than half of the rank stands idle: a smaller one may do"
    return (
        f"of rank {rank:.3g} the updates use {effective:.3g} on average (effective rank), and {half:.3g} directions "
        f"hold 90 % of the squared norm: {verdict}"
    )


def _cluster_lines(found: Clusters, count: int) -> list[str]:
    verdict = "cluster" if found.above_random > 0.5 * count else "cluster no more than those of random directions"
    if found.above_random <= 0.5 * count and found.above_random > 0.1 * count:
        verdict = "cluster for some vectors only"
    return [
        f"the nearest tokens of the vectors {verdict}: median tightness {found.vectors:.2f}, random directions "
        f"{found.random_directions:.2f}, tokens of the vocabulary {found.vocabulary:.2f}; {found.above_random} of "
        f"{count} vectors are tighter than 95 % of random directions",
        f"the vectors are {found.median_norm:.3g} long (median; tokens of the vocabulary "
        f"{found.vocabulary_norm:.3g}); mean cosine between them {found.mean_cosine:+.2f}",
    ]


def _by_kind(updates: Sequence[Spectrum]) -> dict[str, list[Spectrum]]:
    kinds: dict[str, list[Spectrum]] = {}
    for one in updates:
        kinds.setdefault(one.layer.rpartition(".")[2], []).append(one)
    return kinds


def _update_row(kind: str, members: Sequence[Spectrum]) -> tuple[str, ...]:
    return (
        kind,
        str(len(members)),
        f"{fmean(one.rank for one in members):.3g}",
        f"{fmean(one.effective for one in members):.3g}",
        f"{fmean(one.for_90_percent for one in members):.3g}",
        f"{max(one.values[0] for one in members):.3g}",
    )


def _tokens(tokens: Sequence[str], cosines: Sequence[float]) -> str:
    return ", ".join(f"{token!r} {cosine:.2f}" for token, cosine in zip(tokens, cosines, strict=True))
