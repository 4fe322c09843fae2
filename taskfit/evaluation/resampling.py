"""Seeded weights for resampling: how often each unit is drawn in each resample, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.metrics import metric, unit_columns
from taskfit.evaluation.outcomes import Outcomes

__all__ = ["jackknife", "resampled", "seed_weights", "unit_weights"]

FloatArray = NDArray[np.float64]

_BLOCK_VALUES = 4_000_000  # weights held at a time: 32 MB


def unit_weights(units: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks, shape (some resamples, units), of how often each unit is drawn; a row sums to ``units``.

    The draws depend on the seed alone, not on how they are cut into blocks.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    most = max(1, _BLOCK_VALUES // units)
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        drawn = generator.integers(0, units, size=(size, units))
        flat = (drawn + np.arange(size)[:, None] * units).ravel()
        yield np.bincount(flat, minlength=size * units).reshape(size, units).astype(np.float64)


def seed_weights(runs: int, resamples: int, seed: int) -> FloatArray:
    """Return the share of each run in each resample, shape (resamples, runs); a row sums to 1.

    Runs are drawn with replacement, one fewer than there are: with so few runs, drawing all of them would make the
    spread of their mean too small by the factor (runs - 1) / runs. Source: Rao and Wu 1988, section 2.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 2, runs]))
    draws = max(1, runs - 1)
    return generator.multinomial(draws, np.full(runs, 1 / runs), size=resamples).astype(np.float64) / draws


def resampled(name: str, runs: Sequence[Outcomes], resamples: int, seed: int) -> FloatArray:
    """Return the metric of each run on each resample of their common units, shape (resamples, runs)."""
    entry = metric(name)
    contributions: list[Any] = [unit_columns(name, run) for run in runs]
    blocks = [
        np.stack([entry.value(np.asarray(weights @ part)) for part in contributions], axis=1)
        for weights in unit_weights(runs[0].units, resamples, seed)
    ]
    return np.concatenate(blocks)


def jackknife(name: str, outcomes: Outcomes) -> FloatArray:
    """Return the metric with one unit left out, for every unit, shape (units,); of a single unit, of no rows: 0."""
    entry = metric(name)
    part = unit_columns(name, outcomes)
    total = np.asarray(part.sum(axis=0)).ravel()
    most = max(1, _BLOCK_VALUES // len(total))
    pieces = [entry.value(total - part[start : start + most].toarray()) for start in range(0, part.shape[0], most)]
    return np.concatenate(pieces)
