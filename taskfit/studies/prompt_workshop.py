"""The prompt workshop: every wording of a task side by side, on validation rows, with all its evidence.

People who are no experts judge prompts by single examples, take what helps one row to help all, and have no overall
view of what a prompt does. So every figure here comes with its interval, every row won with the rows lost, and a prompt
that is kept becomes a test of every later one.

Source: Zamfirescu-Pereira et al. 2023, "Why Johnny Can't Prompt", its findings on exploring by chance and on
over-generalising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, PredictorError, nearest
from taskfit.studies.costing import priced_machine, priced_service
from taskfit.studies.evaluate import new_expectation
from taskfit.studies.expectation import write_expectation
from taskfit.studies.fit import model_for
from taskfit.studies.folder import staged
from taskfit.studies.prompt_workshop_findings import Spread, Variant, find, spread
from taskfit.studies.prompt_workshop_runs import (
    OnStep,
    WordingRun,
    asking_strategy,
    count_draws,
    ignore_step,
    run_wordings,
    with_wording,
)
from taskfit.studies.ranking import FEWEST_ROWS
from taskfit.studies.spec import Price
from taskfit.versions import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskfit.evaluation.winner import Winner
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.composed import Composed
    from taskfit.tasks.task import Row, Task

__all__ = ["Workshop", "prompts"]


@dataclass(frozen=True)
class Workshop:
    """What the wordings of a task are worth, on validation rows.

    Attributes:
        task: the task.
        strategy: the strategy's name, without a wording.
        model: name and fingerprint of the model.
        rows: the validation rows that were predicted.
        draws: seeds of the draws of worked examples; one where nothing is drawn.
        variants: the wordings, the best first; or the draws, where the task has a single wording.
        wording_spread: of the wordings' figures; None with a single one.
        draw_spread: of the draws' figures, of the wording where they lie furthest apart; None with a single draw.
        winner: the best one's figure corrected for having been picked; None where there is nothing to pick, or too few
            rows.
        detectable: the smallest difference in accuracy that so many rows mostly show; None for generated text.
        price: what an hour of the machine costs.
        versions: of Python and the libraries.
        notes: what a reader must know besides.
        runs: every wording with every draw.
    """

    task: Task = field(repr=False)
    strategy: str
    model: tuple[str, str]
    rows: tuple[Row, ...] = field(repr=False)
    draws: tuple[int, ...]
    variants: tuple[Variant, ...] = field(repr=False)
    wording_spread: Spread | None
    draw_spread: Spread | None
    winner: Winner | None
    detectable: float | None
    price: Price
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    runs: tuple[WordingRun, ...] = field(repr=False)

    @property
    def metric(self) -> str:
        """The one that decides: the task's first."""
        return self.task.definition.metrics[0]

    @property
    def is_ranked(self) -> bool:
        """True when there are enough rows to rank anything."""
        return len(self.rows) >= FEWEST_ROWS

    def write(self, folder: str | Path) -> Path:
        """Write ``prompts.html`` and ``prompts.json`` into a folder, over older ones, and return the page's path.

        Raises:
            ResourceError: the disk is full.
        """
        from taskfit.studies.prompt_workshop_page import write_workshop

        return write_workshop(self, Path(folder))

    def save(self, folder: str | Path, wording: int | str | None = None) -> WordingRun:
        """Save a prompt as a predictor with what it answered here, so that ``evaluate`` can test every later one.

        Args:
            folder: must not exist.
            wording: number or name; None: the best. Of its draws, the best on these rows is saved.

        Returns:
            The run that was saved.

        Raises:
            PredictorError: the folder exists. ConfigError: there is no such wording.
        """
        target = Path(folder)
        if target.exists():
            raise PredictorError(f"{target} exists already", "give another folder with --save, or move this one away")
        run = self._chosen(wording)
        with staged(target) as partial:
            run.predictor.save(partial)
            write_expectation(
                partial, new_expectation(partial, self.task, "validation", self.rows, list(run.predictions))
            )
        return run

    def _chosen(self, wording: int | str | None) -> WordingRun:
        number = self.variants[0].wording if wording is None else _number(wording, self.task)
        draws = {(variant.wording, draw): value for variant in self.variants for draw, value in variant.draws.items()}
        best = max((key for key in draws if key[0] == number), key=lambda key: (draws[key], -key[1]))
        return next(run for run in self.runs if (run.wording, run.draw) == best)


def prompts(
    task_path: str | Path,
    strategy: str = "zero-shot",
    *,
    model: str | None = None,
    rows: int | None = None,
    draws: int = 3,
    hardware: str | None = None,
    prices: str | Path | None = None,
    out: str | Path | None = None,
    on_step: OnStep = ignore_step,
) -> Workshop:
    """Run every wording of a task on its validation rows, never on its test rows, and show what each is worth.

    Args:
        task_path: the task file; its ``templates`` are the wordings.
        strategy: one that asks in a wording, such as ``zero-shot`` or ``few-shot(k=4)``.
        model: a known name, a folder or a hub name; None: the default.
        rows: a stratified sample of so many validation rows; None: all.
        draws: draws of worked examples, where the strategy draws any; they are the seeds 0, 1, ... .
        hardware: name in the hardware price table; None: the table's default.
        prices: the user's own price table.
        out: folder for ``prompts.html`` and ``prompts.json``; None: nothing is written.
        on_step: is told what runs.

    Raises:
        ConfigError: the strategy has no wording to try, or an option is wrong; there are no validation rows.
        TaskfitError: the task or the model cannot be used.
    """
    from taskfit.strategy.grammar import parse
    from taskfit.tasks import load_task

    asking = asking_strategy(parse(strategy))
    task = load_task(task_path)
    chosen = _validation_rows(task, rows)
    seeds = count_draws(with_wording(asking, 0), task, draws)
    machine = priced_machine(hardware, None if prices is None else Path(prices))
    loaded = model_for(asking, model)
    assert loaded is not None  # what asks needs a model
    service = priced_service(loaded.name, None if prices is None else Path(prices))
    runs = run_wordings(task, asking, loaded, chosen, seeds, on_step, service)
    price = Price(machine.name, machine.price_usd_per_hour, machine.date.isoformat())
    found = _workshop(task, asking, loaded, chosen, runs, price, draws)
    if out is not None:
        found.write(out)
    return found


def _workshop(
    task: Task,
    strategy: Composed,
    model: LanguageModel,
    rows: tuple[Row, ...],
    runs: Sequence[WordingRun],
    price: Price,
    draws_asked: int,
) -> Workshop:
    from taskfit.evaluation.paired import minimum_detectable_difference

    variants = find(task, rows, runs, price.usd_per_hour)
    draws = tuple(sorted({run.draw for run in runs}))
    return Workshop(
        task=task,
        strategy=with_wording(strategy, 0).name,
        model=(model.name, model.fingerprint),
        rows=rows,
        draws=draws,
        variants=variants,
        wording_spread=_wording_spread(task, variants),
        draw_spread=_draw_spread(task, variants),
        winner=_winner(task, variants, len(rows)),
        detectable=None if task.definition.kind == "generation" else minimum_detectable_difference(len(rows)),
        price=price,
        versions=versions(),
        notes=tuple(_notes(task, strategy, rows, draws, draws_asked)),
        runs=tuple(runs),
    )


def _validation_rows(task: Task, rows: int | None) -> tuple[Row, ...]:
    from taskfit.tasks import take_rows

    if not task.validation:
        raise ConfigError(
            f"prompts needs validation rows, and {task.definition.name} has none",
            "name a source for `validation` in the task file, or leave it out and it is cut from the training rows",
        )
    if rows is None:
        return task.validation
    return take_rows(task.definition, task.validation, rows, 0, of="validation sample")


def _wording_spread(task: Task, variants: Sequence[Variant]) -> Spread | None:
    if len(task.definition.wordings) < 2:
        return None
    return spread([variant.metrics[task.definition.metrics[0]].value for variant in variants])


def _draw_spread(task: Task, variants: Sequence[Variant]) -> Spread | None:
    if len(task.definition.wordings) < 2:
        figures = [value for variant in variants for value in variant.draws.values()]
        return spread(figures) if len(figures) > 1 else None
    spreads = [spread(list(variant.draws.values())) for variant in variants if len(variant.draws) > 1]
    return max(spreads, key=lambda one: one.high - one.low, default=None)


def _winner(task: Task, variants: Sequence[Variant], rows: int) -> Winner | None:
    from taskfit.evaluation.winner import corrected_winner

    if len(variants) < 2 or rows < FEWEST_ROWS:
        return None
    return corrected_winner(task.definition.metrics[0], {variant.name: variant.runs for variant in variants})


def _notes(task: Task, strategy: Composed, rows: Sequence[Row], draws: Sequence[int], draws_asked: int) -> list[str]:
    wordings = len(task.definition.wordings)
    notes = []
    if wordings == 1 and len(draws) == 1:
        notes.append(
            "the task has a single wording and nothing is drawn, so there is nothing to compare; list more wordings "
            "under `templates` in the task file"
        )
    elif wordings == 1:
        notes.append("the task has a single wording: its draws of worked examples are compared")
    elif len(draws) < draws_asked:
        notes.append(f"nothing is drawn by {with_wording(strategy, 0).name}, so each wording is run once")
    if strategy != with_wording(strategy, 0):
        notes.append("every wording is run, whichever the strategy names")
    if len(rows) < len(task.validation):
        notes.append(f"a sample of {len(rows)} of {len(task.validation)} validation rows")
    return notes


def _number(wording: int | str, task: Task) -> int:
    names = [each.name for each in task.definition.wordings]
    if isinstance(wording, str) and wording in names:
        return names.index(wording)
    text = str(wording)
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    raise ConfigError(f"there is no wording {text!r}{nearest(text, names)}; the task has {listed}")
