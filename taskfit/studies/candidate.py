"""One way to solve the task, over all its seeds: strategy, model, training size, with what it reaches and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from taskfit.costs.trial_cost import TrialCost

if TYPE_CHECKING:
    from taskfit.evaluation.intervals import Interval
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.evaluation.paired import PairedComparison
    from taskfit.studies.result import TrialResult

__all__ = ["Candidate", "Cost", "Key", "mean_cost"]

Key = tuple[str, str | None, int | None]
"""Strategy, model and training size: what the seeds of a candidate share."""


@dataclass(frozen=True)
class Cost:
    """What one fit and one predicted row cost, on average over seeds.

    Attributes:
        labels: labelled rows that it learns and chooses from.
        usd_labels: their price.
        usd_fit: of one fit, with whatever was tried on the way.
        usd_evaluate: of predicting the test rows once.
        usd_per_row: of one predicted row.
        fit_s: seconds on the clock of one fit.
        latency_ms: milliseconds on the clock per row, many rows predicted in one go.
        fit_memory_bytes, predict_memory_bytes: most resident memory, the highest of all seeds; GPU memory included.
        tokens_in_per_row, tokens_out_per_row: as a service would bill them; 0 without a language model.
        flops_fit, flops_per_row: operations; None where they cannot be counted.
        artefact_bytes: size of the predictor folder.
    """

    usd_fit: float
    usd_per_row: float
    fit_s: float
    latency_ms: float
    fit_memory_bytes: int
    predict_memory_bytes: int
    tokens_in_per_row: float
    tokens_out_per_row: float
    flops_fit: float | None
    flops_per_row: float | None
    artefact_bytes: int
    labels: int = 0
    usd_labels: float = 0.0
    usd_evaluate: float = 0.0

    @property
    def usd_once(self) -> float:
        """US dollars before the first row is predicted: labels, fit and evaluation."""
        return self.usd_labels + self.usd_fit + self.usd_evaluate

    def total_usd(self, volume: float) -> float:
        """US dollars for labels, one fit, its evaluation, and ``volume`` predicted rows."""
        return self.usd_once + volume * self.usd_per_row

    def total_s(self, volume: int) -> float:
        """Seconds on the clock to fit once and predict ``volume`` rows; what decides on a machine without a price."""
        return self.fit_s + volume * self.latency_ms / 1000

    def total(self, volume: int) -> tuple[float, float]:
        """What "cheapest" goes by: money, and of equal amounts the seconds."""
        return self.total_usd(volume), self.total_s(volume)


@dataclass(frozen=True)
class Candidate:
    """A strategy with a model and a training size.

    Attributes:
        train_rows: None: all rows.
        model_shown: the model's name as short as tells it apart; None without a model.
        results: its finished trials, one a seed.
        failed: number of its trials that did not finish.
        has_luck: whether its result hangs on the seed, even where there is only one.
        stopped: why it did not get all its seeds, in words; empty where it did, or still may.
        metrics: each metric of the task with its 95 % interval.
        cost: mean over seeds.
        runs: the outcomes of each finished trial, for further tests.
        versus_best: this one minus the best on the first metric; None for the best itself.
        p_value: of that difference, adjusted by Holm for all comparisons made; None for the best.
        is_tied: true when it cannot be told apart from the best (the best is tied with itself).
        is_pareto: no other has a higher figure at no higher total cost.
    """

    strategy: str
    model: str | None
    train_rows: int | None
    model_shown: str | None
    results: tuple[TrialResult, ...]
    failed: int
    metrics: Mapping[str, Interval]
    cost: Cost
    runs: tuple[Outcomes, ...]
    has_luck: bool = False
    stopped: str = ""
    versus_best: PairedComparison | None = None
    p_value: float | None = None
    is_tied: bool = True
    is_pareto: bool = False

    @property
    def key(self) -> Key:
        """What tells it from the other candidates of a study."""
        return self.strategy, self.model, self.train_rows

    @property
    def label(self) -> str:
        """A short name: strategy, model and training size."""
        size = "" if self.train_rows is None else f", {self.train_rows} rows"
        return f"{self.name}{size}"

    @property
    def name(self) -> str:
        """Strategy and model, whatever the training size."""
        return self.strategy if self.model_shown is None else f"{self.strategy} on {self.model_shown}"


def mean_cost(results: Sequence[TrialResult], usd_per_hour: float, usd_per_label: float = 0.0) -> Cost:
    """Average the costs of a candidate's finished trials; memory is the highest of them.

    Args:
        results: finished trials, at least one.
        usd_per_hour: of the machine; trials that ran when another price held are told at this one.
        usd_per_label: of a labelled row.

    Raises:
        StudyError: a result holds no valid cost.
    """
    costs = [TrialCost.from_json(result.cost) for result in results]
    fit_flops = [cost.fit_flops for cost in costs if cost.fit_flops is not None]
    row_flops = [cost.predict_flops / cost.rows_predicted for cost in costs if cost.predict_flops is not None]
    rows = [max(1, result.counts["rows"]) for result in results]
    usd_per_row = fmean(
        usd_per_hour * cost.charged_s_per_row / 3600 + cost.usd_service_predict / cost.rows_predicted for cost in costs
    )
    labels = max(result.spec.labels for result in results)
    return Cost(
        labels=labels,
        usd_labels=labels * usd_per_label,
        usd_evaluate=usd_per_row * fmean(rows),
        usd_fit=fmean(usd_per_hour * cost.charged_fit_s / 3600 + cost.usd_service_fit for cost in costs),
        usd_per_row=usd_per_row,
        fit_s=fmean(cost.fit.wall_s for cost in costs),
        latency_ms=fmean(1000 * cost.s_per_row for cost in costs),
        fit_memory_bytes=max(cost.fit.peak_memory_bytes + cost.fit.peak_gpu_bytes for cost in costs),
        predict_memory_bytes=max(cost.predict.peak_memory_bytes + cost.predict.peak_gpu_bytes for cost in costs),
        tokens_in_per_row=fmean(r.counts["tokens_in"] / n for r, n in zip(results, rows, strict=True)),
        tokens_out_per_row=fmean(r.counts["tokens_out"] / n for r, n in zip(results, rows, strict=True)),
        flops_fit=fmean(fit_flops) if len(fit_flops) == len(costs) else None,
        flops_per_row=fmean(row_flops) if len(row_flops) == len(costs) else None,
        artefact_bytes=round(fmean(cost.artefact_bytes for cost in costs)),
    )
