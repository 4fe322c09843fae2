"""The records of a study: what is asked, what is planned, what one trial is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from taskfit.studies.budget import StudyBudget

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.models.language_model import Architecture
    from taskfit.tasks.task import Value

__all__ = [
    "FORMAT",
    "Limits",
    "ModelFacts",
    "Plan",
    "Price",
    "Skipped",
    "StudyConfig",
    "TrialSpec",
    "short_names",
    "trial_id",
]

FORMAT = 2
"""Version of study and trial folders; it is part of every trial's id."""


@dataclass(frozen=True)
class Limits:
    """What the user can bear; None: no limit.

    Attributes:
        usd: most money for labels, fitting, evaluating and predicting the whole volume, in US dollars.
        latency_ms: most milliseconds per predicted row (mean).
        memory_gb: most memory while predicting, in gigabytes (10**9 bytes).
        labels: most labelled rows that it learns and chooses from.
        forgetting: most that a changed model may have lost of what it retains, as a share: by how much the perplexity
            of texts may rise, or the metric of other tasks fall. What was not measured is over every limit.
    """

    usd: float | None = None
    latency_ms: float | None = None
    memory_gb: float | None = None
    labels: int | None = None
    forgetting: float | None = None

    def looser(self, factor: float) -> Limits:
        """Return limits that are so many times as wide; those of labels and of what is lost stay as they are."""

        def times(limit: float | None) -> float | None:
            return None if limit is None else factor * limit

        return replace(self, usd=times(self.usd), latency_ms=times(self.latency_ms), memory_gb=times(self.memory_gb))


@dataclass(frozen=True)
class StudyConfig:
    """What to compare, and how far.

    Attributes:
        strategies: names as the grammar of strategies reads them.
        models: names or folders; strategies that need no model run without.
        seeds: number of seeds; they are 0, 1, ... . A strategy without chance in it runs once, and one that can no
            longer win after its first is stopped.
        max_seeds: most seeds of the two between whom the decision is still open; None: two more than ``seeds`` where
            that is above 1.
        runs_all_seeds: give every strategy all seeds, also those that can no longer win.
        train_sizes: numbers of training rows for a learning curve; None stands for all rows.
        volume: rows that will ever be predicted; decides what "cheapest" means.
        limits: what a recommended strategy may cost.
        usd_per_label: price of a labelled row, in US dollars; part of what a strategy costs.
        timeout_s: seconds after which a trial is stopped; None: never.
        jobs: most trials that run at the same time; None: as many as the machine is made for, see
            ``taskfit.studies.jobs``. No figure hangs on it; seconds of trials that ran side by side do.
        budget: most that all trials together may take, over all runs; None: no cap.
        hardware: name in the hardware price table; None: the table's default.
        machines: names in the price table; what the study would cost there is forecast in the report.
        prices: the user's own price table, which goes before the shipped one.
        is_retrying_failed: run failed and timed-out trials again. Killed ones are always run again.
        retain: files that forgetting is measured on, or ``none``; empty: the task file's, or the shipped suite.
    """

    strategies: tuple[str, ...] = ("majority", "linear", "zero-shot", "few-shot", "lora", "full", "encoder")
    models: tuple[str, ...] = ()
    seeds: int = 3
    max_seeds: int | None = None
    runs_all_seeds: bool = False
    train_sizes: tuple[int | None, ...] = (None,)
    volume: int = 100_000
    limits: Limits = Limits()
    usd_per_label: float = 0.0
    timeout_s: float | None = None
    jobs: int | None = None
    budget: StudyBudget | None = None
    hardware: str | None = None
    machines: tuple[str, ...] = ()
    prices: Path | None = None
    is_retrying_failed: bool = False
    retain: tuple[str, ...] = ()

    @property
    def most_seeds(self) -> int:
        """Most seeds that any strategy gets."""
        if self.max_seeds is not None:
            return self.max_seeds
        return self.seeds + 2 if self.seeds > 1 else self.seeds


@dataclass(frozen=True)
class ModelFacts:
    """What planning needs to know of a model, without keeping it in memory.

    Attributes:
        name: as the user gave it.
        fingerprint: hash of its files.
        context: most tokens that it reads.
        weight_bytes: size of its weights as stored.
        config: its configuration as plain values, for the cost forecast.
    """

    name: str
    architecture: Architecture
    fingerprint: str
    context: int
    weight_bytes: int
    config: Mapping[str, Value] = field(default_factory=dict)

    @property
    def has_masked_head(self) -> bool:
        """Whether this is an encoder that can fill masks: it is saved with its masked-token head."""
        saved_as = self.config.get("architectures")
        is_masked = isinstance(saved_as, list) and bool(saved_as) and str(saved_as[0]).endswith("ForMaskedLM")
        return self.architecture == "encoder" and is_masked


@dataclass(frozen=True)
class TrialSpec:
    """One strategy, one model, one seed, one training size.

    Attributes:
        id: hash of everything that decides the result, and of the task.
        strategy: canonical name.
        model: the model's name; None when the strategy needs none.
        model_fingerprint: None when the strategy needs no model.
        train_rows: size of the training subset; None: all rows.
        forecast_s: seconds it is expected to take; None: unknown.
        forecast_usd: money it is expected to cost; None: unknown.
        forecast_fit_s: of ``forecast_s``, those of fitting.
        forecast_memory_bytes: peak it is expected to take; None: unknown.
        forecast_factors_at: when the factors of the forecast had been set (``Calibration.at``); 0: there were none.
        labels: labelled rows that it learns and chooses from.
    """

    id: str
    strategy: str
    model: str | None
    model_fingerprint: str | None
    seed: int
    train_rows: int | None
    forecast_s: float | None = None
    forecast_usd: float | None = None
    forecast_fit_s: float | None = None
    forecast_memory_bytes: int | None = None
    forecast_factors_at: float = 0.0
    labels: int = 0

    @property
    def label(self) -> str:
        """A short name for progress lines: strategy, model, training size, seed."""
        parts = [self.strategy]
        if self.model is not None:
            parts.append(f"on {short_names([self.model])[self.model]}")
        if self.train_rows is not None:
            parts.append(f"with {self.train_rows} rows")
        return f"{' '.join(parts)}, seed {self.seed}"

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Skipped:
    """A combination that the plan leaves out, and why."""

    strategy: str
    model: str | None
    reason: str


@dataclass(frozen=True)
class Price:
    """What an hour of the machine costs; every cost of a study is told at this price.

    Attributes:
        machine: its name in the price table.
        usd_per_hour: of the whole machine.
        date: of the price, as YYYY-MM-DD.
    """

    machine: str
    usd_per_hour: float
    date: str


@dataclass(frozen=True)
class Plan:
    """Everything that a study is going to run.

    Attributes:
        task_path: the task file.
        task_fingerprint: of definition and rows; a trial refuses to run on other data.
        definition: the task's definition as JSON values.
        data: what reading the data showed, as JSON values, with the number of rows of each split.
        trials: in the order in which they run: first seed of everything first. Not all of them need run: see
            ``taskfit.studies.schedule``.
        extra_trials: further seeds, which run only where the decision is still open.
        detectable_difference: smallest difference in accuracy that the test set can show with 80 % power;
            None where it is not known.
        notes: sentences for the user.
        threads: that each trial computes with; 0: all cores, in studies of earlier versions.
        jobs: most trials at the same time.
    """

    task_path: Path
    task_fingerprint: str
    definition: Mapping[str, Value]
    data: Mapping[str, Value]
    config: StudyConfig
    models: tuple[ModelFacts, ...]
    trials: tuple[TrialSpec, ...]
    skipped: tuple[Skipped, ...]
    price: Price
    detectable_difference: float | None = None
    notes: tuple[str, ...] = ()
    extra_trials: tuple[TrialSpec, ...] = ()
    threads: int = 0
    jobs: int = 1


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each model's name what to show: folders by as few of their last parts as tell them apart.

    >>> short_names(["minilm", "/home/me/runs/one/model", "/home/me/runs/two/model"])["/home/me/runs/one/model"]
    'one/model'
    """
    listed = list(dict.fromkeys(names))
    shown = {}
    for name in listed:
        parts = PurePath(name).parts
        lengths = range(1, len(parts) + 1) if PurePath(name).is_absolute() or name.startswith(".") else ()
        others = [PurePath(other).parts for other in listed if other != name]
        unique = (length for length in lengths if all(other[-length:] != parts[-length:] for other in others))
        length = next(unique, None)
        shown[name] = name if length is None else "/".join(parts[-length:])
    return shown


def trial_id(
    task_fingerprint: str,
    strategy: str,
    model: str | None,
    model_fingerprint: str | None,
    seed: int,
    train_rows: int | None,
    other_data: str = "",
) -> str:
    """Return 12 hex digits: a hash of everything that decides a trial's result."""
    parts = [FORMAT, task_fingerprint, strategy, model, model_fingerprint, seed, train_rows]
    if other_data:  # only where there is some, so that older studies keep their trials
        parts.append(other_data)
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()[:12]
