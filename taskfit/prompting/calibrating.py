"""Asks the model what calibration needs, and chooses on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from taskfit.inference.requests import Score, Scored
from taskfit.prompting.calibration import (
    LEAST_ROWS,
    Calibrate,
    Calibration,
    Method,
    ScoredRow,
    best_calibration,
    premise,
    prior,
)
from taskfit.prompting.options import Normalise, Unit, default_unit, option_scores
from taskfit.prompting.validating import validation_rows

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.prompting.shots import PreparedShots
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Option, Row, Task

__all__ = ["MOST_ROWS", "choose_calibration", "prefix_note"]

MOST_ROWS = 200
"""Most validation rows that choose a calibration, or give batch calibration its shares."""


def choose_calibration(
    prepared: PreparedShots,
    task: Task,
    engine: Engine,
    normalise: Normalise,
    calibrate: Calibrate,
    say: Callable[[str], None],
) -> PreparedShots:
    """Return the program with its calibration set: as named, or with ``auto`` as validation rows show.

    A named method is not questioned; it asks only for what its prior needs. ``auto`` crosses all methods with all
    units that ``normalise`` leaves open, and says what it chose and what each way gave. Rows that lend batch
    calibration their shares are the same validation rows, without their labels.

    Args:
        prepared: with examples drawn.
        task: validation is asked, or training where there is none; ``test`` is never looked at.
        engine: answers.
        normalise: as the user gave it.
        calibrate: as the user gave it.
        say: takes the finding.
    """
    definition = task.definition
    note = prefix_note(definition, prepared)
    if note:
        say(note)
    if calibrate == "none":
        return prepared
    rows = validation_rows(task, MOST_ROWS)
    questions = [definition.prompt_text(row, prepared.wording) for row in rows]
    prepared = replace(prepared, calibration=replace(prepared.calibration, premise=premise(questions)))
    methods = _methods(definition, calibrate)
    is_shared = definition.kind == "classification" and prepared.examples.is_shared
    unit = default_unit(definition.kind, normalise)
    if calibrate == "auto":
        units = _units(unit, normalise)
        scored = _score(prepared, definition, rows, engine, methods, is_shared)
        if not scored:
            return prepared
        found = best_calibration(scored, units, methods, is_shared)
        say(_finding(found, len(scored)))
    else:
        found = Calibration(unit, calibrate)
        if calibrate == "batch" or is_shared:
            found = replace(found, prior=_prior(prepared, definition, rows, engine, calibrate, unit))
    return replace(prepared, calibration=replace(found, premise=prepared.calibration.premise))


def prefix_note(definition: TaskDefinition, prepared: PreparedShots) -> str:
    """Return a sentence for labels whose text begins another's where sums are compared; empty where there is none."""
    if definition.kind != "classification" or prepared.calibration.normalise != "sum":
        return ""
    wording = definition.wordings[prepared.wording]
    texts = [wording.label_texts.get(label, label) for label in definition.labels]
    pairs = [(a, b) for a in texts for b in texts if a != b and b.startswith(a)]
    if not pairs:
        return ""
    more = f" (and {len(pairs) - 1} more such pairs)" if len(pairs) > 1 else ""
    return (
        f"label {pairs[0][0]!r} is the beginning of {pairs[0][1]!r}{more}: scored by the sum of its tokens it never "
        "comes out below the longer one; give them other texts, or take normalise=mean"
    )


def _methods(definition: TaskDefinition, calibrate: Calibrate) -> list[Method]:
    if calibrate != "auto":
        return [calibrate]
    batch: list[Method] = ["batch"] if definition.kind == "classification" else []
    return ["none", "contextual", *batch, "pmi"]


def _units(unit: Unit, normalise: Normalise) -> list[Unit]:
    every: tuple[Unit, ...] = ("sum", "mean", "byte")
    return [unit] if normalise != "auto" else [unit, *(other for other in every if other != unit)]


def _score(
    prepared: PreparedShots,
    definition: TaskDefinition,
    rows: Sequence[Row],
    engine: Engine,
    methods: Sequence[Method],
    is_shared: bool,
) -> list[ScoredRow]:
    """Ask for everything in one call; priors of a shared prompt are asked with the first row alone."""
    requests: list[Score] = []
    places: list[tuple[Sequence[Option], int, dict[Method, tuple[int, int]], int]] = []
    for row in rows:
        options = definition.options(row, prepared.wording)
        gold = _gold(definition, row, options)
        if gold is None:
            continue
        texts = tuple(option.text for option in options)
        own = len(requests)
        requests.append(Score(prepared.prompt(definition, row), texts))
        spans: dict[Method, tuple[int, int]] = {}
        for method in methods if not (is_shared and places) else ():
            prompts = prepared.prior_prompts(definition, row, method)
            spans[method] = (len(requests), len(requests) + len(prompts))
            requests.extend(Score(prompt, texts) for prompt in prompts)
        places.append((options, gold, spans, own))
    responses = cast("list[Scored]", engine.run(requests))
    return [
        ScoredRow(options, gold, responses[own], {m: responses[start:end] for m, (start, end) in spans.items()})
        for options, gold, spans, own in places
    ]


def _prior(
    prepared: PreparedShots, definition: TaskDefinition, rows: Sequence[Row], engine: Engine, method: Method, unit: Unit
) -> tuple[float, ...]:
    """Ask for the prior of a named method that all rows share."""
    options = definition.options(rows[0], prepared.wording)
    texts = tuple(option.text for option in options)
    prompts = prepared.prior_prompts(definition, rows[0], method)
    if method == "batch":
        prompts = tuple(prepared.prompt(definition, row) for row in rows)
    responses = cast("list[Scored]", engine.run([Score(prompt, texts) for prompt in prompts]))
    return prior(method, [option_scores(options, scored, unit) for scored in responses])


def _gold(definition: TaskDefinition, row: Row, options: Sequence[Option]) -> int | None:
    right = definition.gold(row)
    return next((place for place, option in enumerate(options) if option.value in right), None)


def _finding(found: Calibration, rows: int) -> str:
    listed = sorted(found.tried, key=lambda one: one.nll)
    table = "; ".join(f"{t.calibrate}/{t.normalise} {t.nll:.3f} ({t.accuracy:.1%})" for t in listed)
    if rows < LEAST_ROWS:
        why = f"kept, for {rows} validation rows are too few to choose by"
    else:
        why = f"the simplest within one standard error of the best on {rows} validation rows"
    return f"calibration {found.method}/{found.normalise}: {why}; mean loss in nats (accuracy): {table}"
