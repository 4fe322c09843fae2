"""Looking at growing evidence several times: what a p-value is worth when one stops at the first small one.

Seeds are added to two strategies until they can be told apart. Whoever tests after each seed as if it were the only
test finds differences that are not there. Here a p-value becomes the chance that *any* of the looks would have been as
extreme, were there no difference; so it can be held against the usual level at every look.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np

from taskfit.errors import ConfigError

__all__ = ["over_looks", "single_look_level"]

_STEPS = 401  # grid points of the density that is carried from look to look


@lru_cache(maxsize=4096)
def over_looks(p_value: float, sizes: tuple[int, ...]) -> float:
    """Return the chance that at least one of several looks gives a two-sided p-value this small.

    Args:
        p_value: of a single look, two-sided.
        sizes: how many seeds there are at each planned look, growing. The looks are taken to be as little alike as
            they can be, as if all uncertainty came from seeds; rows, which all looks share, make them more alike, and
            the true chance smaller.

    Returns:
        ``p_value`` itself for a single look; never less.

    Raises:
        ConfigError: a p-value outside 0 to 1, or sizes that do not grow.
    Source: Armitage, McPherson and Rowe 1969 (repeated tests on accumulating data, by integration over the looks).
    """
    if not 0 <= p_value <= 1 or not sizes or any(b <= a for a, b in zip((0, *sizes), sizes, strict=False)):
        raise ConfigError(f"expected a p-value from 0 to 1 and growing sizes above 0 (got {p_value}, {sizes})")
    if len(sizes) == 1 or p_value in (0.0, 1.0):
        return p_value
    from scipy.stats import norm

    z = float(norm.isf(p_value / 2))
    if z < 1e-6:
        return 1.0
    points = np.linspace(-1.0, 1.0, _STEPS)
    at = points * z * math.sqrt(sizes[0])
    mass = norm.pdf(at, scale=math.sqrt(sizes[0])) * _simpson(at)
    for before, size in itertools.pairwise(sizes):
        onto = points * z * math.sqrt(size)
        moved = norm.pdf(onto[:, None] - at[None, :], scale=math.sqrt(size - before)) @ mass
        at, mass = onto, moved * _simpson(onto)
    return min(1.0, max(p_value, 1.0 - float(mass.sum())))


@lru_cache(maxsize=64)
def single_look_level(level: float, sizes: tuple[int, ...]) -> float:
    """Return the level for each look that gives ``level`` over all of them; the inverse of :func:`over_looks`.

    Raises:
        ConfigError: a level not between 0 and 1, or sizes that do not grow.
    """
    from scipy.optimize import brentq

    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1 (got {level}); 0.05 is usual")
    if len(sizes) == 1:
        return level
    found = brentq(lambda p: over_looks(float(p), sizes) - level, level / len(sizes) / 2, level, xtol=1e-8)
    return float(found)


def _simpson(at: np.ndarray) -> np.ndarray:
    """Return Simpson's weights for evenly spaced points, an odd number of them."""
    weights = np.ones(len(at))
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    scaled: np.ndarray = weights * (at[1] - at[0]) / 3
    return scaled
