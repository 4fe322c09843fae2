"""``taskfit compare``: which strategy, how good, at what cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskfit.cli.output import print_data, print_json, print_table, say
from taskfit.cli.search import BUDGET_HELP, TRIES_HELP, searched
from taskfit.errors import ConfigError

if TYPE_CHECKING:
    from taskfit.studies.compare_study import Study
    from taskfit.studies.table import TableRow

__all__ = ["compare", "split_names", "table_lines"]


def compare(
    task: Annotated[Path, typer.Argument(help="The task file.")],
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; default: studies/TASK. Run again, it goes on.")
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help='Names with commas between, such as "zero-shot,lora(rank=4)"; default: all.')
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Known names, folders, hub names or addresses of services, with commas between; default: what is here."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Seeds of each strategy; who can no longer win after the first is stopped.")
    ] = 3,
    max_seeds: Annotated[
        int | None, typer.Option(help="Most seeds where the decision is still open; default: two more than --seeds.")
    ] = None,
    all_seeds: Annotated[bool, typer.Option(help="Give every strategy all seeds.")] = False,
    train_sizes: Annotated[
        str, typer.Option(help='Numbers of training rows with commas between; "all" for all.')
    ] = "all",
    tries: Annotated[int | None, typer.Option(help=TRIES_HELP)] = None,
    tuning_budget: Annotated[str | None, typer.Option(help=BUDGET_HELP)] = None,
    volume: Annotated[int, typer.Option(help="Rows you will ever predict; decides what is cheapest.")] = 100_000,
    max_cost: Annotated[
        float | None, typer.Option(help="Most US dollars for labels, fitting and the whole volume.")
    ] = None,
    max_latency: Annotated[float | None, typer.Option(help="Most milliseconds a row.")] = None,
    max_memory: Annotated[float | None, typer.Option(help="Most gigabytes while predicting.")] = None,
    max_labels: Annotated[int | None, typer.Option(help="Most labelled rows to learn and choose from.")] = None,
    max_forgetting: Annotated[
        float | None, typer.Option(help="Most that a changed model may lose of what it should retain: 0.1 is 10 %.")
    ] = None,
    label_price: Annotated[float, typer.Option(help="US dollars a labelled row; part of the cost.")] = 0.0,
    timeout_s: Annotated[float | None, typer.Option(help="Seconds after which a trial is stopped.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Most that all trials may take, such as 30m, 2h or 5usd; what has no room is left out."),
    ] = None,
    jobs: Annotated[
        str,
        typer.Option(help='Most trials at the same time, or "auto"; no figure hangs on it, but measured seconds do.'),
    ] = "auto",
    hardware: Annotated[str | None, typer.Option(help="Entry of the hardware price table.")] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(help="Forecast the costs on another machine of the price table in the report; may be repeated."),
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="Your own price table (YAML).")] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(help="What models should not forget: a task file, a text, suite or none; see fit."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed and timed-out trials again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Compare strategies on a task, with evidence, and say which to choose.

    Killed at any moment and run again, it goes on where it was. Exit code 1: nothing can be recommended.
    """
    from taskfit.cli.progress import Progress
    from taskfit.studies.budget import read_budget
    from taskfit.studies.compare_study import run_study
    from taskfit.studies.spec import Limits, StudyConfig

    names = StudyConfig.strategies if strategies is None else split_names(strategies)
    config = StudyConfig(
        strategies=tuple(searched(name, tries, tuning_budget) for name in names),
        models=() if models is None else split_names(models),
        seeds=seeds,
        max_seeds=max_seeds,
        runs_all_seeds=all_seeds,
        train_sizes=_sizes(train_sizes),
        volume=volume,
        limits=Limits(
            usd=max_cost,
            latency_ms=max_latency,
            memory_gb=max_memory,
            labels=max_labels,
            forgetting=max_forgetting,
        ),
        usd_per_label=label_price,
        timeout_s=timeout_s,
        budget=None if budget is None else read_budget(budget),
        jobs=_jobs(jobs),
        hardware=hardware,
        machines=tuple(machine or ()),
        prices=prices,
        is_retrying_failed=retry_failed,
        retain=tuple(retain or ()),
    )
    with Progress() as progress:
        study = run_study(task, config, out, on_event=progress.show)
    if as_json:
        print_json(_as_json(study))
    else:
        _print(study, volume)
    if study.recommendation.chosen is None:
        raise typer.Exit(1)


def split_names(text: str) -> tuple[str, ...]:
    """Split at commas outside parentheses and quotes: ``"zero-shot,lora(rank=4, alpha=8)"`` holds two names.

    Raises:
        ConfigError: an empty name, or a parenthesis that is never closed.
    """
    names, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += 0 if quote else {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0 and not quote:
            names.append("")
        else:
            names[-1] += character
    stripped = tuple(name.strip() for name in names)
    if depth != 0 or quote or not all(stripped):
        raise ConfigError(
            f"names with commas between were expected (got {text!r})", 'for example: "zero-shot,lora(rank=4)"'
        )
    return stripped


def _jobs(text: str) -> int | None:
    word = text.strip()
    if word == "auto":
        return None
    if not (word.isascii() and word.isdigit() and 1 <= len(word) <= 6 and int(word) > 0):
        raise ConfigError(f'--jobs takes a whole number above 0 or "auto" (got {text!r})', "such as --jobs 2")
    return int(word)


def _sizes(text: str) -> tuple[int | None, ...]:
    sizes: list[int | None] = []
    for word in text.split(","):
        name = word.strip()
        if name == "all":
            sizes.append(None)
        elif name.isascii() and name.isdigit() and int(name) > 0:
            sizes.append(int(name))
        else:
            raise ConfigError(
                f'--train-sizes takes whole numbers above 0 and "all" (got {name!r})', "such as 64,256,all"
            )
    return tuple(sizes)


def _print(study: Study, volume: int) -> None:
    from taskfit.studies.memory import forgetting_lines

    columns, rows = table_lines(study.table, volume)
    print_table(columns, rows, right=dict.fromkeys(columns[2:], True))
    print_data("")
    print_data(study.recommendation.text)
    for line in forgetting_lines(study.comparison):
        print_data(line)
    print_data("")
    say("the whole evidence:")
    print_data(str(study.report_path))


def table_lines(table: tuple[TableRow, ...], volume: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells of the table that the terminal shows, the best strategy first."""
    from taskfit.studies.words import metric_name

    columns = (
        "",
        "strategy",
        metric_name(table[0].metric) if table else "metric",
        "95 % interval",
        "to the best",
        "fit",
        "ms/row",
        "memory",
        f"for {volume:,} rows",
    )
    return columns, [_cells(row) for row in table]


_MARKS = {"recommended": "→", "tied": "=", "worse": " ", "unranked": "?"}


def _cells(row: TableRow) -> tuple[str, ...]:
    from taskfit.studies.words import bytes_text, figure, money, seconds

    memory = max(row.fit_memory_bytes, row.predict_memory_bytes)
    return (
        _MARKS[row.verdict],
        row.label,
        figure(row.value),
        f"{figure(row.low)} to {figure(row.high)}",
        "" if row.difference is None else f"{row.difference:+.3f}",
        seconds(row.fit_s),
        f"{row.latency_ms:.2g}" if row.latency_ms < 10 else f"{row.latency_ms:.0f}",
        bytes_text(memory),
        money(row.usd_total),
    )


def _as_json(study: Study) -> dict[str, object]:
    from dataclasses import asdict

    from taskfit.studies.memory import worst_forgetting

    return {
        "folder": str(study.folder),
        "report": str(study.report_path),
        "recommendation": study.recommendation.text,
        "left_out": [*study.comparison.left_out],
        "table": [asdict(row) for row in study.table],
        "forgetting": {
            candidate.label: None if found is None else found.to_json()
            for candidate in study.comparison.candidates
            for found in [worst_forgetting(candidate.results)]
        },
    }
