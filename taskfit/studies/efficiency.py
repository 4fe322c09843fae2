"""What a predictor's rows take: seconds, tokens, operations, memory, money."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError
from taskfit.evaluation.sides import Figure, Side
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture
    from taskfit.costs.meter import Measured
    from taskfit.strategy.contract import Prediction, Predictor

__all__ = ["Timed", "efficiency_side"]


@dataclass(frozen=True)
class Timed:
    """One run over all rows.

    Attributes:
        measured: seconds and memory.
        before, after: the predictor's work before and after it.
        predictions: one a row.
    """

    measured: Measured
    before: Work
    after: Work
    predictions: Sequence[Prediction]

    @property
    def work(self) -> Work:
        """What went through the model in this run."""
        return Work(**{f.name: getattr(self.after, f.name) - getattr(self.before, f.name) for f in fields(Work)})


def efficiency_side(folder: Path, fitted: Predictor, runs: Sequence[Timed]) -> Side:
    """Return milliseconds a row as headline; tokens, operations, memory and money behind it.

    No money where nobody says what a service's tokens cost.

    Args:
        folder: the predictor's; its model's configuration counts operations.
        fitted: the predictor.
        runs: the rows as they are first, then changed; their seconds make the interval. At least one.
    """
    from taskfit.costs.flops import flops
    from taskfit.studies.costing import priced_machine, priced_service

    first, rows = runs[0], len(runs[0].predictions)
    times = [1000 * run.measured.wall_s / rows for run in runs]
    machine = priced_machine(None, None)
    figures = [
        Figure("tokens in, a row", fmean(p.tokens_in for p in first.predictions), None, None, rows),
        Figure("tokens out, a row", fmean(p.tokens_out for p in first.predictions), None, None, rows),
        Figure("peak memory, bytes", float(first.measured.peak_memory_bytes), None, None, rows),
    ]
    model = getattr(fitted, "model", None)
    architecture = None if model is None or model.architecture == "service" else _architecture(Path(model.folder))
    if model is None or architecture is not None:
        figures.append(Figure("operations (FLOPs), a row", flops(architecture, first.work) / rows, None, None, rows))
    try:
        service = priced_service(getattr(model, "name", None), None)
    except ConfigError as error:  # the rows are answered, and perhaps paid for: that is no reason to lose them
        return Side("efficiency", _mean_time(times, rows), tuple(figures), (f"no money: {error.message}",))
    usd = first.measured.wall_s / 3600 * machine.price_usd_per_hour
    if service is not None:
        usd += service.usd(first.work.service_prompt_tokens, first.work.service_answer_tokens)
    note = f"at the price of {machine.name}, {machine.date}"
    figures.append(Figure("USD for a thousand rows", 1000 * usd / rows, None, None, rows, note))
    return Side("efficiency", _mean_time(times, rows), tuple(figures))


def _mean_time(times: Sequence[float], rows: int) -> Figure:
    """Return the rows as they are, with Student's interval of the runs around it where there are some."""
    name = "milliseconds a row"
    if len(times) < 2:
        return Figure(name, times[0], None, None, rows, "a single run: nothing says how much it varies")
    from scipy.stats import t

    mean = fmean(times)
    half = float(t.isf(0.025, len(times) - 1)) * stdev(times) / math.sqrt(len(times))
    note = f"mean of {len(times)} runs over the rows, as they are and changed; on the clock of this machine"
    return Figure(name, mean, max(0.0, mean - half), mean + half, rows, note)


def _architecture(folder: Path) -> Architecture | None:
    from taskfit.studies.costing import architecture_of

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return architecture_of(values if isinstance(values, dict) else None)
