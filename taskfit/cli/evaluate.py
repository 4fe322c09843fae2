"""``taskfit evaluate``: a saved predictor's figures, and whether it got worse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from taskfit.cli.holistic import print_holistic
from taskfit.cli.output import print_data, print_json, print_table, say
from taskfit.errors import ConfigError

if TYPE_CHECKING:
    from taskfit.studies.evaluate import Evaluation
    from taskfit.studies.regression import Regression

__all__ = ["evaluate"]

_MOST_IDS = 10


def evaluate(
    predictor: Annotated[Path, typer.Argument(help="A predictor folder, of any strategy.")],
    on: Annotated[
        Path | None, typer.Option(help="The task file; default: the one that the stored expectation names.")
    ] = None,
    split: Annotated[
        Literal["test", "validation"] | None,
        typer.Option(help="Rows to evaluate on; default: the expectation's, or test where there is none."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="A stratified sample of so many rows; default: all.")] = None,
    save: Annotated[bool, typer.Option(help="Store the result as what is expected from now on.")] = False,
    force: Annotated[
        bool, typer.Option(help="With --save: replace what is stored, whatever it says; nothing is compared.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="Another folder with a stored expectation, to compare with instead.")
    ] = None,
    holistic: Annotated[
        bool,
        typer.Option(
            help="Seven sides at once: accuracy, calibration, robustness, fairness, bias, toxicity, efficiency."
        ),
    ] = False,
    group_by: Annotated[
        str | None, typer.Option(help="With --holistic: field of the rows whose values are groups of people.")
    ] = None,
    word_lists: Annotated[
        Path | None, typer.Option(help="With --holistic: a folder of word lists (*.jsonl) that change inputs.")
    ] = None,
    bias: Annotated[
        list[str] | None,
        typer.Option(help="With --holistic: crows_pairs, winobias or bbq: a file, a folder, or hub:OWNER/NAME."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Evaluate a saved predictor, and compare with what it answered when it was last accepted.

    Exit code 1: it got worse beyond noise (paired permutation test over the same rows, one-sided, p below 0.05).
    """
    if holistic:
        if force or against is not None:
            raise ConfigError("--holistic compares nothing", "leave out --force and --against")
        print_holistic(
            predictor,
            on,
            split=split,
            rows=rows,
            group_by=group_by,
            word_lists=word_lists,
            bias=bias,
            is_saved=save,
            as_json=as_json,
        )
        return
    if group_by is not None or word_lists is not None or bias:
        raise ConfigError("--group-by, --word-lists and --bias belong to --holistic", "add --holistic")
    from taskfit.studies.evaluate import evaluate as evaluate_predictor

    found = evaluate_predictor(
        predictor, on, split=split, rows=rows, against=against, is_compared=not (save and force), say=say
    )
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found)
    for change in found.changes:
        say(f"changed since the expectation was stored: {change}")
    for note in found.notes:
        say(f"note: {note}")
    if found.is_worse:
        raise typer.Exit(1)
    if save:
        found.save(force=force)
        say(f"stored in {predictor}; taskfit evaluate {predictor} compares with it from now on")
    elif found.regression is None and not found.notes:
        say("nothing to compare with; store this result as what is expected with --save")


def _print(found: Evaluation) -> None:
    from taskfit.studies.words import count, figure, metric_name

    cells = [
        (metric_name(name), figure(metric.value), f"{figure(metric.low)} to {figure(metric.high)}")
        for name, metric in found.metrics.items()
    ]
    print_table(("metric", "value", "95 % interval"), cells, right={"value": True, "95 % interval": True})
    print_data("")
    print_data(
        f"{found.strategy} on {count(found.rows, f'{found.split} row')} of {found.task}: {found.unparsed_rows} without "
        f"a valid answer, {found.cut_rows} cut to the model's context, {1000 * found.s_per_row:.2g} ms a row."
    )
    if found.regression is not None:
        for sentence in verdict(found.regression):
            print_data(sentence)


def verdict(regression: Regression) -> list[str]:
    """Return what the comparison says, in sentences."""
    from taskfit.studies.words import count, figure, metric_name, points

    size = points(regression.difference)
    moved = (
        "unchanged" if regression.difference == 0 else f"{size} {'lower' if regression.difference < 0 else 'higher'}"
    )
    worse, better = regression.worse_rows, regression.better_rows
    sentences = [
        f"Expected {metric_name(regression.metric)} {figure(regression.expected)}, found {figure(regression.found)}: "
        f"{moved}; {count(len(worse), 'row')} worse than before, {len(better)} better."
    ]
    p = f"one-sided p = {regression.p_value:.2g}"
    if regression.is_worse:
        shown = ", ".join(worse[:_MOST_IDS]) + (", ..." if len(worse) > _MOST_IDS else "")
        sentences.append(f"It got WORSE, beyond noise ({p}, below {regression.alpha}). Rows that lost: {shown}.")
    else:
        what = metric_name(regression.metric) if regression.is_graded else "accuracy"
        sentences.append(
            f"It did not get worse beyond noise ({p}, not below {regression.alpha}). With these rows, a fall of less "
            f"than about {points(regression.detectable)} in {what} would mostly go unseen."
        )
    return sentences


def _as_json(found: Evaluation) -> dict[str, object]:
    from dataclasses import asdict

    regression = found.regression
    return {
        "predictor": str(found.predictor),
        "strategy": found.strategy,
        "task": found.task,
        "split": found.split,
        "rows": found.rows,
        "metrics": {name: asdict(metric) for name, metric in found.metrics.items()},
        "unparsed_rows": found.unparsed_rows,
        "cut_rows": found.cut_rows,
        "s_per_row": found.s_per_row,
        "is_worse": found.is_worse,
        "regression": None if regression is None else asdict(regression),
        "changes": list(found.changes),
        "notes": list(found.notes),
    }
