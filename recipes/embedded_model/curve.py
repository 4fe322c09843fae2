"""The loss as a function of a model's weights and the tokens it reads, fitted to a few trainings.

``L(N, D) = E + A / N^a + B / D^b`` with weights N and tokens D (Hoffmann et al. 2022, section 3.3). Three sizes and a
few token counts do not tell five numbers apart well, so ``a = b`` is taken, which leaves four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from network import SHAPES, SHIPPED_WEIGHTS

from taskfit.errors import DataError

__all__ = ["POWERS", "Curve", "Point", "best_point", "fit_curve"]

POWERS = (0.05, 1.0)
"""Range of the power; Hoffmann et al. 2022 found 0.28 and 0.34. At an end of it the trainings tell no curve."""


@dataclass(frozen=True)
class Point:
    """One training: weights (tied ones once), tokens read, loss in nats a token."""

    weights: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """The fitted loss: ``floor + a (weights / 1e6)^-power + b (tokens / 1e6)^-power``."""

    floor: float
    a: float
    b: float
    power: float

    def loss(self, weights: float, tokens: float) -> float:
        """Return the loss in nats a token."""
        return float(self.floor + self.a * (weights / 1e6) ** -self.power + self.b * (tokens / 1e6) ** -self.power)


def fit_curve(points: Sequence[Point]) -> Curve:
    """Return the curve nearest to the points: least squares of the logarithms, Huber's way with large misses.

    Raises:
        DataError: fewer than four points, or all of one size or of one number of tokens.
    """
    from scipy.optimize import least_squares

    if len(points) < 4 or len({p.weights for p in points}) < 2 or len({p.tokens for p in points}) < 2:
        raise DataError(f"a curve needs at least 4 trainings of 2 sizes and 2 lengths, got {len(points)}")
    logs = np.log([point.loss for point in points])

    def misses(values: Any) -> Any:
        curve = Curve(*np.exp(values))
        return np.log([curve.loss(point.weights, point.tokens) for point in points]) - logs

    lowest = min(point.loss for point in points)
    starts = [(np.log(lowest * share), 0.0, 0.0, np.log(power)) for share in (0.2, 0.5, 0.8) for power in (0.2, 0.4)]
    bounds = tuple([limit, limit, limit, np.log(power)] for limit, power in zip((-np.inf, np.inf), POWERS, strict=True))
    found = [least_squares(misses, start, bounds=bounds, loss="huber", f_scale=1e-3) for start in starts]
    return Curve(*(float(value) for value in np.exp(min(found, key=lambda one: float(one.cost)).x)))


def best_point(curve: Curve, flops: float, vocabulary: int) -> tuple[str, int, float]:
    """Return the size that may be shipped with the lowest loss for so much work, its tokens, and the loss."""
    found = []
    for name, shape in SHAPES.items():
        if shape.parameters(vocabulary) > SHIPPED_WEIGHTS:
            continue
        tokens = flops / shape.flops_per_token(vocabulary, 512)
        found.append((name, int(tokens), curve.loss(shape.parameters(vocabulary), tokens)))
    return min(found, key=lambda one: one[2])
