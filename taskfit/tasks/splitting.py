"""Cut validation and test rows from others: stratified, by hash, never through a group or between equal texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from taskfit.tasks.task import Split

__all__ = ["cut_splits", "nested_order"]


@dataclass(frozen=True)
class _Unit:
    """Rows that must stay together."""

    members: tuple[int, ...]
    stratum: str
    rank: str


def cut_splits(
    texts: Sequence[str],
    strata: Sequence[str],
    groups: Sequence[str] | None,
    shares: Mapping[Split, float],
    seed: int,
) -> list[Split]:
    """Return the split of each row: one of those in ``shares``, or ``train``.

    Rows of equal text, and rows of one group, go to the same split. The choice hangs on a hash of seed and text (or
    group), so the order of rows does not matter and further rows move few others. Within each stratum every split
    gets its share of the rows, to the nearest whole number where units are single rows; train keeps at least one unit
    of each stratum.

    Args:
        texts: the input text of each row.
        strata: what to balance, such as the label of each row.
        groups: the group of each row, or None.
        shares: split to share of the rows, in the order in which they are cut.
        seed: another seed cuts otherwise.
    """
    units = _units(texts, strata, groups, seed)
    by_stratum: dict[str, list[_Unit]] = defaultdict(list)
    for unit in sorted(units, key=lambda unit: unit.rank):
        by_stratum[unit.stratum].append(unit)
    row_counts = {stratum: sum(len(unit.members) for unit in members) for stratum, members in by_stratum.items()}
    splits: list[Split] = ["train"] * len(texts)
    for split, share in shares.items():
        quotas = _quotas(row_counts, share, seed)
        taken = [unit for stratum in sorted(by_stratum) for unit in _take(by_stratum[stratum], quotas[stratum])]
        for unit in taken or _one_unit(by_stratum):
            by_stratum[unit.stratum].remove(unit)
            for member in unit.members:
                splits[member] = split
    return splits


def nested_order(ids: Sequence[str], strata: Sequence[str], seed: int) -> list[int]:
    """Return all positions in an order whose every beginning is a stratified sample.

    The first rows are one of each stratum, the largest stratum first; after that each stratum is spread evenly, so a
    beginning holds every stratum in proportion. Equal seeds give equal orders, so smaller samples lie in larger ones.
    """
    by_stratum: dict[str, list[int]] = defaultdict(list)
    for position, stratum in enumerate(strata):
        by_stratum[stratum].append(position)
    keys: dict[int, tuple[int, float, str]] = {}
    for members in by_stratum.values():
        members.sort(key=lambda position: _hash(seed, ids[position]))
        for rank, position in enumerate(members):
            spread = -len(members) if rank == 0 else (rank + 0.5) / len(members)
            keys[position] = (min(rank, 1), spread, _hash(seed, ids[position]))
    return sorted(keys, key=lambda position: keys[position])


def _units(texts: Sequence[str], strata: Sequence[str], groups: Sequence[str] | None, seed: int) -> list[_Unit]:
    """Join rows that share a text or a group, and all that hangs together through them."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    for position, text in enumerate(texts):
        first = root(f"text {text}")
        if groups is not None:
            parents[first] = root(f"group {groups[position]}")
    members: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        members[root(f"text {text}")].append(position)
    names = groups if groups is not None else texts
    return [
        _unit(positions, strata, min(names[position] for position in positions), seed) for positions in members.values()
    ]


def _unit(positions: list[int], strata: Sequence[str], name: str, seed: int) -> _Unit:
    counts = Counter(strata[position] for position in positions)
    stratum = min(counts, key=lambda stratum: (-counts[stratum], stratum))
    return _Unit(tuple(positions), stratum, _hash(seed, name))


def _quotas(row_counts: Mapping[str, int], share: float, seed: int) -> dict[str, int]:
    """Divide ``share`` of all rows among the strata by the largest remainders."""
    total = max(1, round(share * sum(row_counts.values())))
    quotas = {stratum: int(share * count) for stratum, count in row_counts.items()}
    by_remainder = sorted(row_counts, key=lambda stratum: (-(share * row_counts[stratum] % 1), _hash(seed, stratum)))
    for stratum in by_remainder[: max(0, total - sum(quotas.values()))]:
        quotas[stratum] += 1
    return quotas


def _take(units: Sequence[_Unit], quota: int) -> list[_Unit]:
    """Take units in order while they bring the number of rows nearer to ``quota``; leave one."""
    taken: list[_Unit] = []
    rows = 0
    for unit in units:
        if len(taken) + 1 == len(units) or rows >= quota:
            break
        if rows + len(unit.members) / 2 <= quota:
            taken.append(unit)
            rows += len(unit.members)
    return taken


def _one_unit(by_stratum: Mapping[str, Sequence[_Unit]]) -> list[_Unit]:
    """Return the first unit that can be spared, so that a split is not empty for want of a fitting one."""
    units = sorted((unit for members in by_stratum.values() for unit in members), key=lambda unit: unit.rank)
    return units[:1] if len(units) > 1 else []


def _hash(seed: int, text: str) -> str:
    return sha256(f"{seed}\0{text}".encode()).hexdigest()
