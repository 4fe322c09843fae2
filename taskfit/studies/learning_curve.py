"""Figure by number of training rows: a power law through the measured sizes, with the range its points leave open.

Errors of learnt models mostly fall as ``floor + scale * rows ** -rate`` (Hestness et al. 2017; Viering and Loog 2023,
section 3, for when they do not). With few sizes the three are known badly: so the law is fitted to many redrawn
versions of the points, within their own uncertainty, and the range over those is what is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taskfit.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from taskfit.studies.candidate import Candidate

__all__ = ["CurvePoint", "LearningCurve", "curves_of", "fit_curve", "overtakes_at"]

_DRAWS = 200
_FEWEST = 3  # sizes; a law of three unknowns says nothing about fewer
_Z = 1.96
_PLACES = 25  # of a drawn curve


@dataclass(frozen=True)
class CurvePoint:
    """A figure at a number of training rows, with its 95 % interval."""

    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """A strategy's figure by number of training rows.

    Attributes:
        label: strategy and model.
        points: as measured, the smallest first.
        floor, scale, rate: of the law ``figure = best - floor - scale * rows ** -rate``; None with fewer than three
            sizes, which no law can be fitted to.
        doubled: the figure expected with twice the largest number of rows, with the range of 95 % of the redrawn laws.
        fitted: the law from the smallest size to twice the largest, with the same range; empty without a law.
    """

    label: str
    points: tuple[CurvePoint, ...]
    floor: float | None = None
    scale: float | None = None
    rate: float | None = None
    doubled: CurvePoint | None = None
    fitted: tuple[CurvePoint, ...] = ()

    @property
    def text(self) -> str:
        """What twice the labels would buy, in a sentence."""
        last = self.points[-1]
        if self.doubled is None:
            return (
                f"{self.label}: {len(self.points)} sizes are too few to say what more rows would buy; three are needed."
            )
        gain = self.doubled.value - last.value
        low, high = self.doubled.low - last.value, self.doubled.high - last.value
        return (
            f"{self.label}: {self.doubled.rows:,} instead of {last.rows:,} training rows would change the figure by "
            f"about {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})."
        )


def fit_curve(
    label: str, points: Sequence[CurvePoint], *, highest: float = 1.0, lowest: float = 0.0, seed: int = 0
) -> LearningCurve:
    """Fit the law to the points, each weighted by its interval.

    Args:
        label: strategy and model.
        points: at least one; two of one size are an error.
        highest: the metric's highest value.
        lowest: its lowest; no law is followed below it.
        seed: of the redrawn points.

    Raises:
        ConfigError: no points, a size below 1, two points of one size, or a metric without a highest value.
    """
    ordered = tuple(sorted(points, key=lambda point: point.rows))
    sizes = [point.rows for point in ordered]
    if not sizes or sizes[0] < 1 or len(set(sizes)) < len(sizes) or not math.isfinite(highest):
        raise ConfigError(f"expected points of different sizes, each at least 1, below a highest value (got {sizes})")
    if len(ordered) < _FEWEST:
        return LearningCurve(label, ordered)
    rows = np.array(sizes, float)
    errors = highest - np.array([point.value for point in ordered])
    spread = np.array([max(point.high - point.low, 1e-6) / (2 * _Z) for point in ordered])
    floor, scale, rate = _fit(rows, errors, spread)
    generator = np.random.default_rng(seed)
    places = np.unique(np.geomspace(sizes[0], 2 * sizes[-1], _PLACES).round()).astype(int)
    drawn = [np.clip(errors + generator.normal(0, spread), 0, highest - lowest) for _ in range(_DRAWS)]
    laws = np.array([highest - _law(places.astype(float), *_fit(rows, one, spread)) for one in drawn])
    values = np.maximum(highest - _law(places.astype(float), floor, scale, rate), lowest)
    ends = np.maximum(np.quantile(laws, [0.025, 0.975], axis=0), lowest)
    fitted = tuple(
        CurvePoint(int(size), float(value), min(float(low), float(value)), max(float(high), float(value)))
        for size, value, low, high in zip(places, values, *ends, strict=True)
    )
    return LearningCurve(label, ordered, floor, scale, rate, fitted[-1], fitted)


def curves_of(candidates: Sequence[Candidate], metric: str, all_rows: int) -> tuple[LearningCurve, ...]:
    """Return the curve of each strategy on each model that ran with several numbers of training rows.

    Args:
        candidates: of a study.
        metric: the one that decides.
        all_rows: what a size of None stands for.
    """
    from taskfit.evaluation.metrics import metric as entry_of

    highest, lowest = entry_of(metric).highest, entry_of(metric).lowest
    members: dict[tuple[str, str | None], list[Candidate]] = {}
    for one in candidates:
        members.setdefault(one.key[:2], []).append(one)
    curves = []
    for same in members.values():
        if len(same) < 2 or not math.isfinite(highest):
            continue
        points = [
            CurvePoint(all_rows if one.train_rows is None else one.train_rows, found.value, found.low, found.high)
            for one in same
            for found in [one.metrics[metric]]
        ]
        model = "" if same[0].model_shown is None else f" on {same[0].model_shown}"
        curves.append(fit_curve(f"{same[0].strategy}{model}", points, highest=highest, lowest=lowest))
    return tuple(sorted(curves, key=lambda curve: curve.label))


def overtakes_at(curve: LearningCurve, figure: float, *, highest: float = 1.0) -> float | None:
    """Return the number of training rows from which the fitted curve lies above a figure (that of a prompt, say).

    None where it never does, or no law is fitted; 1 where it does from the first row.
    """
    if curve.floor is None or curve.scale is None or curve.rate is None:
        return None
    room = highest - figure - curve.floor
    if room <= 0:
        return None
    if curve.scale <= room:
        return 1.0
    at = (curve.scale / room) ** (1 / curve.rate) if curve.rate > 0 else math.inf
    return at if math.isfinite(at) and at < 1e12 else None


def _law(rows: NDArray[np.float64], floor: float, scale: float, rate: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = floor + scale * rows**-rate
    return found


def _fit(
    rows: NDArray[np.float64], errors: NDArray[np.float64], spread: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return floor, scale (both at least 0) and rate (0.01 to 2) of least weighted squares."""
    from scipy.optimize import nnls

    best = (math.inf, 0.0, 0.0, 0.0)
    for rate in np.geomspace(0.01, 2.0, 60):
        table = np.stack([np.ones_like(rows), rows**-rate], axis=1) / spread[:, None]
        (floor, scale), rest = nnls(table, errors / spread)
        best = min(best, (float(rest), float(floor), float(scale), float(rate)))
    return best[1:]
