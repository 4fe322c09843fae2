"""``taskfit prompts``: what each wording of a task is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskfit.cli.output import print_data, print_json, print_table, say

if TYPE_CHECKING:
    from taskfit.cli.bar import Bar
    from taskfit.studies.prompt_workshop import Workshop
    from taskfit.studies.prompt_workshop_rows import OddRow

__all__ = ["prompts"]

_MOST_ROWS = 3
_MOST_TEXT = 90


def prompts(
    task: Annotated[Path, typer.Argument(help="The task file; its templates are the wordings.")],
    strategy: Annotated[
        str, typer.Option(help='A strategy that asks in a wording, such as "few-shot(k=4)".')
    ] = "zero-shot",
    model: Annotated[str | None, typer.Option(help="A known name, a folder or a hub name.")] = None,
    rows: Annotated[
        int | None, typer.Option(help="A stratified sample of so many validation rows; default: all.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of worked examples, where the strategy draws any.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder for prompts.html and prompts.json; default: prompts/TASK.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save the best prompt here, as a predictor and a test for taskfit evaluate.")
    ] = None,
    wording: Annotated[
        str | None, typer.Option(help="With --save: number or name of the wording to save; default: the best.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="Entry of the hardware price table.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Your own price table (YAML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Show what each wording of a task is worth, on validation rows; the test rows are not looked at."""
    from taskfit.cli.bar import Bar
    from taskfit.errors import ConfigError, PredictorError
    from taskfit.studies.prompt_workshop import prompts as run_prompts
    from taskfit.studies.prompt_workshop_page import workshop_json

    if wording is not None and save is None:
        raise ConfigError("--wording chooses what --save saves; give --save FOLDER too")
    if save is not None and save.exists():  # found out now, not after the work
        raise PredictorError(f"{save} exists already", "give another folder with --save, or move this one away")
    with Bar("loading") as bar:
        found = run_prompts(
            task,
            strategy,
            model=model,
            rows=rows,
            draws=draws,
            hardware=hardware,
            prices=prices,
            on_step=lambda *step: _show(bar, *step),
        )
    page = found.write(out if out is not None else Path("prompts") / found.task.definition.name)
    if as_json:
        print_json(workshop_json(found))
    else:
        _print(found)
        say("the whole evidence:")
        print_data(str(page))
    if save is not None:
        run = found.save(save, wording)
        name = found.task.definition.wordings[run.wording].name
        drawn = f", draw {run.draw}" if len(found.draws) > 1 else ""
        say(f"saved {name}{drawn} in {save}; taskfit evaluate {save} tells whether it got worse")


def _show(bar: Bar, label: str, done: int, total: int, left_s: float | None) -> None:
    from taskfit.studies.words import seconds

    left = f" ({seconds(left_s)} left)" if left_s else ""
    if label and not bar.is_drawn:
        bar.line(f"[{done + 1}/{total}] {label}{left}")
    bar.advance(done, total, f"{label}{left}")


def _print(found: Workshop) -> None:
    from taskfit.studies.prompt_workshop_words import (
        caveats,
        cost_cells,
        cost_columns,
        favourite_text,
        headline,
        marks,
        mix_up_text,
        quality_cells,
        quality_columns,
        reasons,
    )

    signs = {"best": "→", "tied": "=", "worse": " ", "unranked": "?"}
    heads = ("", *quality_columns(found))
    figures = [
        (signs[mark], *quality_cells(variant, found))
        for mark, variant in zip(marks(found), found.variants, strict=True)
    ]
    print_table(heads, figures, right=dict.fromkeys(heads[2:], True))
    print_data("")
    heads = cost_columns(found)
    print_table(heads, [cost_cells(variant) for variant in found.variants], right=dict.fromkeys(heads[1:], True))
    print_data("")
    for sentence in (headline(found), *reasons(found), *caveats(found)):
        print_data(sentence)
    told = {variant.name: (favourite_text(variant), mix_up_text(variant)) for variant in found.variants}
    lines = [f"{name}: {'; '.join(filter(None, texts))}." for name, texts in told.items() if any(texts)]
    best = found.variants[0]
    for title, odd in ((f"Rows that {best.name} loses", best.odd.lost), ("Rows that it alone wins", best.odd.won)):
        if odd:
            lines += ["", f"{title}, such as:", *(line for row in odd[:_MOST_ROWS] for line in _row_lines(row))]
    for line in ("", *lines, "") if lines else ("",):
        print_data(line)


def _row_lines(row: OddRow) -> tuple[str, str]:
    from taskfit.studies.report_rows import cut_text

    said = ", ".join(f"{one.key} {one.answer}" for one in row.said)
    return f"  {row.row_id}  {cut_text(row.text, _MOST_TEXT)}", f"      right: {row.gold}; said: {said}"
