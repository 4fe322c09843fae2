"""Runs a search: try, keep what was found, halve, and deliver the best."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, ResourceError, TrainingError
from taskfit.files import write_bytes
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import full_name
from taskfit.strategy.manifest import read_manifest, write_manifest
from taskfit.strategy.parameters import format_value
from taskfit.strategy.predictor import load_predictor
from taskfit.strategy.space import varied
from taskfit.studies.needs import other_data
from taskfit.studies.predictions import StoredPrediction, parquet_bytes, read_predictions, stored
from taskfit.studies.search_ledger import Ledger, Try
from taskfit.studies.search_plan import full_steps, points, rounds, survivors, tries_within
from taskfit.studies.search_score import Bought, better_is_higher, bought, judged, rows_to_judge

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Predictor, Strategy
    from taskfit.studies.search import Tune
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["search"]

_ANSWERS = "validation.parquet"


def search(
    tune: Tune, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget, folder: Path
) -> Predictor:
    """Search as ``tune`` says, keeping every finished try in ``folder``; see :class:`taskfit.studies.search.Tune`.

    The default is trained whole first: it must be known anyway, and tells how long a try takes.
    """
    found = _Search(tune, model, task, seed, budget, folder)
    default = found.tried(0, {}, found.whole)
    tries = tune.tries if tune.tries is not None else _tries(tune, default, found.whole)
    all_points = points(tune.strategy, model, tries, seed)
    alive = list(range(len(all_points)))
    for turn in rounds(len(all_points), found.whole):
        alive = found.best_of(alive, turn.tries)
        found.latest = {}
        for point in alive:
            if point and found.is_late:
                budget.say(f"the search stops: {budget.wall_s:g} s were allowed")
                break
            found.note(found.tried(point, all_points[point], turn.steps))
    return found.deliver(len(all_points))


def _tries(tune: Tune, default: Try, whole: int | None) -> int:
    from taskfit.studies.search import DEFAULT_TRIES

    if tune.seconds is None:
        return DEFAULT_TRIES
    return tries_within(tune.seconds, default.wall_s, has_steps=whole is not None)


class _Search:
    """One search under way; ``latest`` has the scores of the present round."""

    def __init__(
        self, tune: Tune, model: LanguageModel | None, task: Task, seed: int, budget: Budget, folder: Path
    ) -> None:
        self.tune, self.model, self.task, self.seed = tune, model, task, seed
        self.budget, self.folder = budget, folder
        self.rows: list[Row] = rows_to_judge(task)
        self.sign = better_is_higher(task.definition)
        self.whole = full_steps(tune.strategy, task)
        self.latest: dict[int, tuple[float, float]] = {}
        self.started = time.monotonic()
        identity: dict[str, Value] = {
            "strategy": full_name(tune),
            "searched": full_name(tune.strategy),
            "task": task.fingerprint,
            "model": None if model is None else model.fingerprint,
            "seed": seed,
        }
        if other := other_data(tune.strategy, task):  # only where there is some, so that older searches go on
            identity["other data"] = other
        self.ledger = Ledger(folder, identity)

    @property
    def is_late(self) -> bool:
        """Whether the fit's own time is up, so that no further try begins."""
        return self.budget.wall_s is not None and time.monotonic() - self.started > self.budget.wall_s

    def tried(self, point: int, values: Mapping[str, Value], steps: int | None) -> Try:
        """Return the try of a point with so many steps, from the ledger or by training now.

        Raises:
            ConfigError, ResourceError: the default itself cannot be fitted: no other point is to blame.
        """
        known = self.ledger.find(point, steps)
        if known is not None:
            return known
        started = time.monotonic()
        try:
            score, likelihood, work = self._fit(point, values, steps)
            made = Try(point, dict(values), steps, score, likelihood, time.monotonic() - started, work)
        except (ConfigError, ResourceError, TrainingError) as error:
            if point == 0 and not isinstance(error, TrainingError):
                raise
            spent = time.monotonic() - started
            made = Try(point, dict(values), steps, None, 0.0, spent, Work(), failed=error.message)
        self.ledger.add(made)
        self.budget.say(_line(made, self.task.definition.metrics[0]))
        return made

    def note(self, tried: Try) -> None:
        """Count a try for the present round."""
        value = float("-inf") if tried.score is None else self.sign * tried.score
        self.latest[tried.point] = (value, tried.likelihood)

    def best_of(self, alive: Sequence[int], keep: int) -> list[int]:
        """Return who goes on after a round: before the first one, everybody."""
        return survivors(self.latest, keep) if self.latest else list(alive)

    def deliver(self, tries: int) -> Predictor:
        """Return the best predictor among those trained whole, its folder telling of the search.

        Raises:
            TrainingError: every whole try failed.
        """
        finals = {one.point: one for one in self.ledger.tries if one.steps == self.whole and one.score is not None}
        if not finals:
            raise TrainingError(f"all tries failed, the first so: {self.ledger.tries[0].failed}")
        self.latest = {}
        for one in finals.values():
            self.note(one)
        ranked = sorted(self.latest, key=lambda point: (*(-value for value in self.latest[point]), point))
        best = finals[ranked[0]]
        gain = self._gain(best) if 0 in finals else None
        self.budget.say(_verdict(best, gain, tries, len(self.rows)))
        folder = self._folder(best.point) / "predictor"
        manifest = read_manifest(folder)
        record = _record(self.ledger, best, gain, len(self.rows))
        write_manifest(folder, replace(manifest, strategy=self.tune.name, fit_work=self.ledger.work, search=record))
        return load_predictor(folder, model=self._fresh() if manifest.needs_base else None)

    def _fit(self, point: int, values: Mapping[str, Value], steps: int | None) -> tuple[float, float, Work]:
        """Fit, judge on validation, and keep the predictor where it was trained whole."""
        is_whole = steps == self.whole
        shortened: dict[str, Value] = {} if is_whole else {"max_steps": steps}
        strategy: Strategy = varied(self.tune.strategy, {**values, **shortened})
        scratch = self._folder(point) / f"steps-{steps}"
        scratch.mkdir(parents=True, exist_ok=True)
        budget = replace(self.budget, folder=scratch, say=self._saying(point, is_whole=is_whole))
        predictor = strategy.fit(self._fresh(), self.task, seed=self.seed, budget=budget)
        definition = self.task.definition
        answers = [
            stored(prediction, definition.gold(row))
            for row, prediction in zip(self.rows, predictor.predict(self.rows), strict=True)
        ]
        score, likelihood = judged(definition, answers)
        if is_whole:
            self._keep(point, predictor, answers)
        shutil.rmtree(scratch)
        return score, likelihood, predictor.fit_work + predictor.predict_work

    def _keep(self, point: int, predictor: Predictor, answers: Sequence[StoredPrediction]) -> None:
        folder = self._folder(point)
        shutil.rmtree(folder / "predictor", ignore_errors=True)  # of a search killed right after it was saved
        predictor.save(folder / "predictor")
        write_bytes(folder / _ANSWERS, parquet_bytes(answers))

    def _gain(self, best: Try) -> Bought:
        answers = [read_predictions(self._folder(point) / _ANSWERS) for point in (best.point, 0)]
        return bought(self.task.definition, *answers)

    def _folder(self, point: int) -> Path:
        return self.folder / "tries" / str(point)

    def _saying(self, point: int, *, is_whole: bool) -> Callable[[str], None]:
        """What the tries say: the whole default all it has to say, the others only how far they are."""
        if point == 0 and is_whole:
            return self.budget.say
        return lambda line: self.budget.say(f"try {point}: {line}") if line.startswith("step ") else None

    def _fresh(self) -> LanguageModel | None:
        """The base model as its files have it, for a fit that may change it."""
        from taskfit.models import load

        if self.model is None or self.model.architecture == "service":
            return self.model
        dtype = str(self.model.dtype).removeprefix("torch.")
        return replace(load(self.model.folder, dtype=dtype, device=str(self.model.device)), name=self.model.name)


def _line(tried: Try, metric: str) -> str:
    length = "" if tried.steps is None else f", {tried.steps} steps"
    outcome = f"{metric} {tried.score:.4g} on validation" if tried.score is not None else f"failed: {tried.failed}"
    return f"try {tried.point} ({_values(tried)}{length}): {outcome}"


def _values(tried: Try) -> str:
    return ", ".join(f"{name}={format_value(value)}" for name, value in tried.values.items()) or "defaults"


def _verdict(best: Try, gain: Bought | None, tries: int, rows: int) -> str:
    found = f"search over {tries} {'try' if tries == 1 else 'tries'}"
    if gain is None:
        return f"{found}: {_values(best)} did best; training with the defaults failed"
    if best.point == 0:
        return f"{found} bought nothing: the defaults did best, {gain.metric} {gain.best:.4g}"
    return (
        f"{found}: {gain.metric} {gain.best:.4g} with {_values(best)}, {gain.default:.4g} with the "
        f"defaults, on {rows} validation rows: {gain.best - gain.default:+.4g} (95 % interval {gain.low:+.4g} to "
        f"{gain.high:+.4g}; the best of several flatters, so believe the test figure)"
    )


def _record(ledger: Ledger, best: Try, gain: Bought | None, rows: int) -> dict[str, Value]:
    """What the predictor's folder says of the search."""
    tries: list[Value] = [
        {name: value for name, value in asdict(one).items() if name != "work"} for one in ledger.tries
    ]
    return {
        "chosen": dict(best.values),
        "bought": None if gain is None else dict(asdict(gain)),
        "validation_rows": rows,
        "wall_s": sum(one.wall_s for one in ledger.tries),
        "tries": tries,
    }
