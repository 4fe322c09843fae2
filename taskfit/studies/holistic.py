"""A predictor seen from seven sides at once: how good, how calibrated, how robust, fair, biased, rude and costly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import ConfigError, DataError, TaskfitError
from taskfit.evaluation.sides import Side, figure_of, not_measured
from taskfit.studies.efficiency import Timed, efficiency_side
from taskfit.studies.evaluate import rows_to_evaluate
from taskfit.studies.events import ignore_line
from taskfit.studies.words import seconds

if TYPE_CHECKING:
    from taskfit.evaluation.bias_sets import BiasSet
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.evaluation.perturb import Perturbation
    from taskfit.strategy.contract import Prediction, Predictor
    from taskfit.tasks.task import Row, Split, Task

__all__ = ["HolisticView", "holistic"]

_MOST_ROWS = 500
_SPOKEN_TOKENS = 40
_CALIBRATION = ("ece_10", "ece_15", "ece_adaptive", "brier", "nll", "selective_accuracy")
_SWAP_LISTS = ("gender_swaps", "swaps")
"""Word lists of this name, or whose name begins with the second, say who is spoken of; all others are changes."""


@dataclass(frozen=True)
class HolisticView:
    """Seven sides of one predictor.

    Attributes:
        predictor: its folder.
        strategy: its canonical name.
        task: name of the task.
        rows: how many were asked, each once as it is and once for every change.
        sides: in the order of :data:`taskfit.evaluation.sides.SIDES`; one that could not be measured says why.
        notes: what a reader must know besides.
    """

    predictor: Path
    strategy: str
    task: str
    split: Split
    rows: int
    sides: tuple[Side, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": 1, **asdict(self), "predictor": str(self.predictor), "sides": list(map(asdict, self.sides))}


def holistic(
    predictor: str | Path,
    on: str | Path | None = None,
    *,
    split: Split | None = None,
    rows: int | None = None,
    group_by: str | None = None,
    word_lists: str | Path | None = None,
    bias: Sequence[str | Path] = (),
    seed: int = 0,
    say: Callable[[str], None] = ignore_line,
) -> HolisticView:
    """Look at a saved predictor from seven sides, on the same rows.

    Args:
        predictor: a predictor folder, of any strategy.
        on: the task file; None: the one that a stored expectation names.
        split: ``test`` or ``validation``; None: the expectation's, or ``test``.
        rows: a stratified sample of so many rows; None: all, or 500 of more, because every change asks them again.
        group_by: field of the rows whose values are groups of people, to compare.
        word_lists: a folder of lists (``*.jsonl``, see :func:`taskfit.evaluation.perturb.read_word_list`) that change
            inputs: ``gender_swaps`` and names that begin with ``swaps`` say who is spoken of, all others are changes
            that a robust strategy ignores.
        bias: files or folders of crows_pairs, winobias and bbq, or ``hub:OWNER/NAME``.
        seed: of the changes.
        say: takes lines of progress.

    Raises:
        ConfigError, DataError: something that is named cannot be used; nothing has run.
        PredictorError: no predictor folder, damaged, or fitted for other labels.

    >>> view = holistic("mine", "examples/support/task.yaml")  # doctest: +SKIP
    """
    from taskfit.evaluation.bias_sets import read_bias_sets
    from taskfit.strategy.predictor import load_predictor

    folder = Path(predictor)
    task, chosen_split, chosen, note = _rows(folder, on, split, rows)
    groups = None if group_by is None else _groups(chosen, group_by)
    changes, swaps = _changes(word_lists)
    sets = read_bias_sets(bias) if bias else ()
    fitted = load_predictor(folder)
    asked = _Asked(task, chosen, fitted, seed, say)
    asked.ask("", chosen)
    sides = (
        _accuracy(task, asked.runs[""]),
        _calibration(asked.runs[""]),
        asked.changed("robustness", changes),
        _fairness(asked, swaps, groups, group_by),
        _bias(fitted, sets),
        _toxicity(task, fitted, asked),
        efficiency_side(folder, fitted, asked.times),
    )
    return HolisticView(
        folder, fitted.strategy, task.definition.name, chosen_split, len(chosen), sides, (note,) if note else ()
    )


class _Asked:
    """The runs of one predictor over the same rows: as they are, and changed in several ways."""

    def __init__(
        self, task: Task, rows: Sequence[Row], fitted: Predictor, seed: int, say: Callable[[str], None]
    ) -> None:
        from taskfit.evaluation.input_fields import input_fields

        self.task, self.rows, self.fitted, self.seed, self.say = task, rows, fitted, seed, say
        self.fields = tuple(
            name for name in input_fields(task.definition, rows) if name in input_fields(fitted.definition, rows)
        )
        self.runs: dict[str, Outcomes] = {}
        self.predictions: Sequence[Prediction] = ()
        self.times: list[Timed] = []

    def ask(self, name: str, rows: Sequence[Row]) -> None:
        """Predict rows, timed, and keep the outcomes under the change's name; "" is no change."""
        from taskfit.costs.meter import Meter
        from taskfit.evaluation.outcomes import outcomes_of

        before = self.fitted.predict_work
        with Meter("predict") as meter:
            predictions = list(self.fitted.predict(rows))
        if not name:
            self.predictions = predictions
        self.times.append(Timed(meter.measured, before, self.fitted.predict_work, predictions))
        self.runs[name] = outcomes_of(self.task.definition, self.rows, predictions)

    def changed(self, side: Any, changes: Sequence[Perturbation]) -> Side:
        """Ask the changed rows, and return what the changes did."""
        from taskfit.evaluation.perturb import perturbed_rows
        from taskfit.evaluation.robustness import changed_side, row_metric

        if not self.fields:
            return not_measured(side, "no field of the rows is input alone: what changes it would change the answer")
        touched: dict[str, list[str]] = {}
        started = time.monotonic()
        for number, change in enumerate(changes):
            rows = perturbed_rows(self.rows, self.fields, change, seed=self.seed)
            pairs = zip(rows, self.rows, strict=True)
            touched[change.name] = [new.id for new, old in pairs if new.fields != old.fields]
            if touched[change.name]:
                self.ask(change.name, rows)
            left = (time.monotonic() - started) / (number + 1) * (len(changes) - number - 1)
            self.say(f"{side}: {change.name}, {number + 1} of {len(changes)} changes, {seconds(left)} left")
        runs = {name: self.runs.get(name, self.runs[""]) for name in touched}
        return changed_side(side, row_metric(self.task.definition.metrics), self.runs[""], runs, touched)


def _rows(
    folder: Path, on: str | Path | None, split: Split | None, rows: int | None
) -> tuple[Task, Split, tuple[Row, ...], str]:
    from taskfit.tasks import take_rows

    task, chosen_split, chosen = rows_to_evaluate(folder, on, split, rows)
    if rows is not None or len(chosen) <= _MOST_ROWS:
        return task, chosen_split, chosen, ""
    note = f"a sample of {_MOST_ROWS} of {len(chosen)} {chosen_split} rows; --rows takes more"
    return task, chosen_split, take_rows(task.definition, chosen, _MOST_ROWS, 0, of="holistic"), note


def _groups(rows: Sequence[Row], field: str) -> dict[str, str]:
    known = list(dict.fromkeys(name for row in rows for name in row.fields))
    if field not in known:
        raise ConfigError(f"--group-by: no row has a field {field!r}; fields are {', '.join(known)}")
    values = {row.id: row.fields.get(field) for row in rows}
    strange = next((value for value in values.values() if isinstance(value, list | dict)), None)
    if strange is not None:
        raise DataError(f"--group-by: field {field!r} holds lists or objects, which name no group (got {strange!r})")
    return {row_id: "" if value is None else str(value) for row_id, value in values.items()}


def _changes(word_lists: str | Path | None) -> tuple[list[Perturbation], list[Perturbation]]:
    """Return the changes that a robust strategy ignores, and those that a fair one ignores."""
    from taskfit.evaluation.perturb import PERTURBATIONS, SWAPS, read_word_list

    changes, swaps = dict(PERTURBATIONS), dict(SWAPS)
    if word_lists is None:
        return list(changes.values()), list(swaps.values())
    folder = Path(word_lists)
    paths = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not paths:
        raise DataError(f"{folder} is no folder with word lists (*.jsonl)")
    for path in paths:
        if path.stem == "stereotyped_occupations":
            continue  # a list of occupations, that replaces nothing
        is_swap = path.stem.startswith(_SWAP_LISTS)
        found = read_word_list(path, name=path.stem, chance=1.0 if is_swap else 0.5)
        (swaps if is_swap else changes)[path.stem] = found
    return list(changes.values()), list(swaps.values())


def _accuracy(task: Task, run: Outcomes) -> Side:
    from taskfit.evaluation.intervals import metric_interval
    from taskfit.evaluation.metrics import notes

    first, *others = [
        figure_of(name, metric_interval(name, [run]), len(run), "; ".join(notes(name, run)))
        for name in task.definition.metrics
    ]
    return Side("accuracy", first, tuple(others))


def _calibration(run: Outcomes) -> Side:
    from taskfit.evaluation.calibration import check_probabilities
    from taskfit.evaluation.intervals import metric_interval
    from taskfit.evaluation.metrics import notes

    try:
        check_probabilities(run)
    except ConfigError as error:
        return not_measured("calibration", error.message)
    first, *others = [
        figure_of(name, metric_interval(name, [run]), len(run), "; ".join(notes(name, run))) for name in _CALIBRATION
    ]
    return Side("calibration", first, tuple(others))


def _fairness(
    asked: _Asked, swaps: Sequence[Perturbation], groups: Mapping[str, str] | None, field: str | None
) -> Side:
    from taskfit.evaluation.fairness import group_gaps

    swapped = asked.changed("fairness", swaps)
    if groups is None or field is None:
        return swapped
    gaps = group_gaps(asked.task.definition.metrics[0], asked.runs[""], groups, field=field)
    behind = tuple(figure for figure in (swapped.headline, *swapped.figures) if figure is not None)
    said = (*gaps.notes, *swapped.notes, *([swapped.reason] if swapped.reason else []))
    if gaps.headline is None and swapped.headline is not None:
        return Side("fairness", swapped.headline, (*swapped.figures, *gaps.figures), (*said, gaps.reason))
    return Side("fairness", gaps.headline, (*gaps.figures, *behind), said, gaps.reason)


def _bias(fitted: Predictor, sets: Sequence[BiasSet]) -> Side:
    from taskfit.evaluation.bias import bias_side

    try:
        return bias_side(getattr(fitted, "model", None), sets)
    except TaskfitError as error:
        return not_measured("bias", error.message)


def _toxicity(task: Task, fitted: Predictor, asked: _Asked) -> Side:
    """Judge the answers of a generation task; else how the model goes on from beginnings of ordinary texts."""
    from taskfit.evaluation.toxicity import shipped_classifier, toxicity

    try:
        if task.definition.kind == "generation":
            what, texts = "answers judged rude", [prediction.answer for prediction in asked.predictions]
        else:
            what, texts = "continuations of ordinary texts judged rude", _spoken(fitted)
        found = toxicity(texts)
    except TaskfitError as error:
        return not_measured("toxicity", error.message)
    facts = shipped_classifier().facts
    notes = ["the judge is a small classifier of English tweets: it looks at words, not at meaning"]
    notes += [f"{found.empty} texts without a word are left out"] if found.empty else []
    return Side(
        "toxicity",
        figure_of(what, found.share, found.texts),
        (
            figure_of("false alarms of the judge, ordinary prose", found.false_alarms, facts["false_alarms_prose"][1]),
            figure_of("rude tweets that the judge finds", found.hits, facts["hits"][1]),
            figure_of("accuracy of the judge, held-out tweets", found.accuracy, facts["accuracy"][1]),
        ),
        tuple(notes),
    )


def _spoken(fitted: Predictor) -> list[str]:
    from taskfit.evaluation.retained import RetainedText, suite
    from taskfit.inference.requests import Generate, Generated
    from taskfit.tasks.prompt import Prompt

    engine, model = getattr(fitted, "engine", None), getattr(fitted, "model", None)
    if engine is None or model is None or model.architecture == "encoder":
        raise ConfigError("the strategy writes no text")
    beginnings = [text[:120] for part in suite() if isinstance(part, RetainedText) for text in part.texts]
    requests = [
        Generate(Prompt(f"Continue this text:\n\n{text}"), _SPOKEN_TOKENS, temperature=1.0, seed=number)
        for number, text in enumerate(beginnings)
    ]
    return [found.text for found in engine.run(requests) if isinstance(found, Generated)]
