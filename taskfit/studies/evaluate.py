"""Evaluate a saved predictor on a task's rows, and hold it against what it answered when it was last accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, PredictorError
from taskfit.studies.events import ignore_line
from taskfit.studies.expectation import (
    Expectation,
    changes_since,
    file_digests,
    has_expectation,
    read_expectation,
    row_digest,
    rows_of,
    write_expectation,
)
from taskfit.studies.predictions import stored
from taskfit.studies.regression import Regression, compare_with_expected
from taskfit.studies.words import seconds
from taskfit.versions import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskfit.evaluation.intervals import Interval
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Prediction
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Split, Task, Value

__all__ = ["Evaluation", "evaluate", "new_expectation", "rows_to_evaluate"]

_SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class Evaluation:
    """A predictor's figures on the rows of a split.

    Attributes:
        predictor: its folder.
        strategy: its canonical name.
        task: name of the task.
        split: where the rows stand.
        rows: their number.
        metrics: each metric of the task with its 95 % interval; the first decides.
        unparsed_rows: rows whose answer was no valid one; they count as wrong.
        cut_rows: rows whose prompt was cut to the model's context.
        s_per_row: seconds on the clock per row, many rows in one go.
        regression: the comparison with what was expected; None where nothing is to compare with.
        changes: what is no longer as it was when the expectation was stored.
        notes: what a reader must know besides.
        expectation: what would be expected from now on if this result is accepted; see :meth:`save`.
    """

    predictor: Path
    strategy: str
    task: str
    split: Split
    rows: int
    metrics: Mapping[str, Interval]
    unparsed_rows: int
    cut_rows: int
    s_per_row: float
    regression: Regression | None
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    expectation: Expectation

    @property
    def is_worse(self) -> bool:
        """True when it got worse than expected, beyond noise."""
        return self.regression is not None and self.regression.is_worse

    def save(self, *, force: bool = False) -> None:
        """Store this result in the predictor's folder as what is expected from now on.

        A lower figure does not replace a higher one, nor fewer rows more: many small falls, each within noise, would
        add up unseen.

        Args:
            force: replace whatever is there.

        Raises:
            PredictorError: what is stored is higher, over more rows, over another split or by another metric, or cannot
                be read. ResourceError: the disk is full.
        """
        if not force and has_expectation(self.predictor):
            reason = _weaker(self.expectation, read_expectation(self.predictor))
            if reason:
                raise PredictorError(f"not stored: {reason}", "store it all the same with --force")
        write_expectation(self.predictor, self.expectation)


def evaluate(
    predictor: str | Path,
    on: str | Path | None = None,
    *,
    split: Split | None = None,
    rows: int | None = None,
    against: str | Path | None = None,
    is_compared: bool = True,
    model: LanguageModel | None = None,
    say: Callable[[str], None] = ignore_line,
) -> Evaluation:
    """Predict the rows of a split, score them, and compare with what the folder expects, row by row.

    Args:
        predictor: a predictor folder, of any strategy.
        on: the task file; None: the one that the expectation names.
        split: ``test`` or ``validation``; None: the expectation's, or ``test`` where there is none.
        rows: a stratified sample of so many rows; None: all. With an expectation, of its rows.
        against: another folder with an expectation, to compare with instead of the predictor's own.
        is_compared: False: only the figures, whatever is expected.
        model: the base model, freshly loaded, for a caller that has it.
        say: takes lines of progress.

    Raises:
        PredictorError: no predictor folder, damaged, fitted on another model or for other labels.
        DataError: the rows are no longer those of the expectation; says what changed.
        ConfigError: no task is named, or an option is wrong.
    """
    from taskfit.strategy.predictor import load_predictor

    folder = Path(predictor)
    own = _own_definition(folder)
    expected = _expected(folder, against, is_compared)
    task = _load(folder, on, expected)
    _check_task(folder, own, task.definition)
    chosen_split = _split(split, expected)
    is_compared = is_compared and expected is not None and chosen_split == expected.split
    listed = rows_of(expected, task) if is_compared and expected is not None else task.splits[chosen_split]
    chosen = _sample(task, listed, rows, chosen_split)
    fitted = load_predictor(folder, model=model)
    started = time.monotonic()
    predictions = list(_counted(fitted.predict(chosen), len(chosen), say))
    s_per_row = (time.monotonic() - started) / len(chosen)
    expectation = new_expectation(folder, task, chosen_split, chosen, predictions)
    compared = expected if is_compared else None
    return Evaluation(
        predictor=folder,
        strategy=fitted.strategy,
        task=task.definition.name,
        split=chosen_split,
        rows=len(chosen),
        metrics=_intervals(task, chosen, predictions),
        unparsed_rows=sum(not prediction.is_parsed for prediction in predictions),
        cut_rows=sum(prediction.cut_tokens > 0 for prediction in predictions),
        s_per_row=s_per_row,
        regression=None if compared is None else compare_with_expected(task.definition, compared, chosen, predictions),
        changes=()
        if expected is None or against is not None
        else tuple(changes_since(expected, expectation.files, expectation.versions)),
        notes=tuple(_notes(task, own, chosen_split, expected, len(chosen), is_compared)),
        expectation=expectation,
    )


def rows_to_evaluate(
    folder: Path, on: str | Path | None, split: Split | None, rows: int | None
) -> tuple[Task, Split, tuple[Row, ...]]:
    """Return the task, the split and the rows that a predictor is evaluated on; no expectation is compared.

    Raises:
        PredictorError: no predictor folder, damaged, or fitted for other labels.
        ConfigError: no task is named, or an option is wrong.
    """
    expected = _expected(folder, None, False)
    own = _own_definition(folder)
    task = _load(folder, on, expected)
    _check_task(folder, own, task.definition)
    chosen = _split(split, expected)
    return task, chosen, _sample(task, task.splits[chosen], rows, chosen)


def new_expectation(
    folder: Path, task: Task, split: Split, rows: Sequence[Row], predictions: Sequence[Prediction]
) -> Expectation:
    """Return what is to be expected of the predictor in ``folder`` from now on: what it answered to these rows."""
    metric = task.definition.metrics[0]
    interval = _intervals(task, rows, predictions)[metric]
    return Expectation(
        metric=metric,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        task=task.definition.name,
        task_path="" if task.path is None else str(task.path.resolve()),
        split=split,
        rows={row.id: row_digest(row) for row in rows},
        answers=tuple(stored(p, task.definition.gold(row)) for row, p in zip(rows, predictions, strict=True)),
        files=file_digests(folder),
        versions=versions(),
    )


def _weaker(new: Expectation, old: Expectation) -> str:
    """Return why the new expectation would test less than the old one, or nothing."""
    if (new.split, new.metric) != (old.split, old.metric):
        return f"it is {new.metric} over {new.split} rows, and {old.metric} over {old.split} rows is expected so far"
    if len(new.rows) < len(old.rows):
        return f"it covers {len(new.rows)} rows, fewer than the {len(old.rows)} expected so far"
    if new.value < old.value:
        return f"{new.metric} {new.value:.3f} is lower than the {old.value:.3f} expected so far"
    return ""


def _intervals(task: Task, rows: Sequence[Row], predictions: Sequence[Prediction]) -> dict[str, Interval]:
    from taskfit.evaluation.intervals import metric_interval
    from taskfit.evaluation.outcomes import outcomes_of

    found = outcomes_of(task.definition, rows, predictions)
    return {name: metric_interval(name, [found]) for name in task.definition.metrics}


def _own_definition(folder: Path) -> TaskDefinition:
    """Return the definition that the predictor keeps: a wrong task is told before a model is loaded."""
    from taskfit.models.table import KNOWN_MODELS
    from taskfit.strategy.manifest import read_manifest

    is_predictor = (folder / "predictor.json").is_file()
    if not is_predictor and (str(folder) in KNOWN_MODELS or (folder / "config.json").is_file()):
        raise ConfigError(
            f"evaluate takes a predictor folder so far ({folder} is a model)",
            f"make one first: taskfit fit TASK --strategy zero-shot --model {folder} --out FOLDER",
        )
    return read_manifest(folder).definition


def _expected(folder: Path, against: str | Path | None, is_compared: bool) -> Expectation | None:
    """Return what to compare with, or to take task and split from; one that will not be compared may be damaged."""
    if against is not None:
        other = Path(against)
        return read_expectation(other.parent if other.is_file() else other)
    if not has_expectation(folder):
        return None
    try:
        return read_expectation(folder)
    except PredictorError:
        if is_compared:
            raise
        return None


def _load(folder: Path, on: str | Path | None, expected: Expectation | None) -> Task:
    from taskfit.tasks import load_task

    if on is None and (expected is None or not expected.task_path):
        raise ConfigError(
            f"evaluate needs a task: {folder} holds no expectation that names one",
            f"taskfit evaluate {folder} --on TASK",
        )
    path = Path(on if on is not None else expected.task_path if expected is not None else "")
    if not path.exists() and on is None:
        raise ConfigError(f"the task file that the expectation names is gone: {path}", "give it with --on TASK")
    if not path.exists() and not path.suffix:
        raise ConfigError(f"--on takes a task file so far (got {str(on)!r}); benchmarks by name come later")
    return load_task(path)


def _split(split: Split | None, expected: Expectation | None) -> Split:
    if split is None:
        return "test" if expected is None else expected.split
    if split not in ("test", "validation"):
        raise ConfigError(f"split must be test or validation (got {split!r})")
    return split


def _sample(task: Task, listed: Sequence[Row], rows: int | None, split: Split) -> tuple[Row, ...]:
    from taskfit.tasks import take_rows

    if not listed:
        raise ConfigError(f"{split} must hold at least one row (got none)")
    return tuple(listed) if rows is None else take_rows(task.definition, listed, rows, 0, of=f"{split} sample")


def _check_task(folder: Path, own: TaskDefinition, asked: TaskDefinition) -> None:
    if (own.kind, set(own.labels)) != (asked.kind, set(asked.labels)):
        raise PredictorError(
            f"{folder} was fitted for {_answers(own.kind, own.labels)} "
            f"(got a task with {_answers(asked.kind, asked.labels)})",
            "evaluate it on the task it was fitted for, or fit again",
        )


def _answers(kind: str, labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    return f"{kind} with the labels {shown}" if labels else kind


def _notes(
    task: Task, own: TaskDefinition, split: Split, expected: Expectation | None, rows: int, is_compared: bool
) -> Iterator[str]:
    kept, asked = _plain(own.to_json()), _plain(task.definition.to_json())
    differing = sorted(key for key in kept.keys() | asked.keys() if kept.get(key) != asked.get(key))
    if differing:
        yield f"the predictor keeps {', '.join(differing)} of its own, which differ from the task file's"
    if expected is not None and is_compared:
        added = len(task.splits[split]) - len(expected.rows)
        if added > 0:
            yield f"{added} rows of {split} are not in the expectation and are left out"
        if rows < len(expected.rows):
            yield f"a sample of {rows} of the expectation's {len(expected.rows)} rows"
    elif expected is not None and split != expected.split:
        yield f"not compared: the expectation is over {expected.split} rows"


def _plain(values: dict[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name != "metrics"}


def _counted(predictions: Iterator[Prediction], total: int, say: Callable[[str], None]) -> Iterator[Prediction]:
    """Pass predictions on, and say now and then how far it is."""
    started = last = time.monotonic()
    for number, prediction in enumerate(predictions, start=1):
        yield prediction
        now = time.monotonic()
        if now - last > _SAY_EVERY_S and number < total:
            last = now
            say(f"{number} of {total} rows, {seconds((now - started) / number * (total - number))} left")
