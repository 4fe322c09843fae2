"""``taskfit annotate``: let a teacher label a few rows, and see how good the labels are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from taskfit.cli.output import print_data, say

__all__ = ["annotate"]


def annotate(
    task: Annotated[Path, typer.Argument(help="The task file; one with `unlabelled` and no `data` will do.")],
    teacher: Annotated[str, typer.Option(help='A strategy such as "few-shot(k=4)", or the folder of a predictor.')],
    out: Annotated[Path, typer.Option(help="The folder to write; the same command goes on where it was.")],
    count: Annotated[int, typer.Option(help="Rows to label, the audit rows among them.")] = 1000,
    rows: Annotated[
        Path | None, typer.Option(help="File or glob of rows to label; default: the task's `unlabelled`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The teacher's model: a known name, a folder, a hub name or a service.")
    ] = None,
    select: Annotated[str, typer.Option(help="random, diverse, uncertain or mixed.")] = "random",
    audit: Annotated[int | None, typer.Option(help="Random rows kept apart; default: a tenth of count.")] = None,
    human: Annotated[int, typer.Option(help="Most rows with people's labels to judge the teacher by.")] = 500,
    max_usd: Annotated[float | None, typer.Option(help="Most US dollars that all runs may spend together.")] = None,
    embed: Annotated[str | None, typer.Option(help="Encoder for select=diverse; default: TF-IDF.")] = None,
    format: Annotated[str, typer.Option(help="Of the data files: jsonl or parquet.")] = "jsonl",  # noqa: A002
    rationales: Annotated[bool, typer.Option(help="Keep what the teacher wrote, beside its labels.")] = False,
    exchange: Annotated[
        bool, typer.Option(help="Find how many labels of the teacher one of a person is worth.")
    ] = False,
    exchange_with: Annotated[
        str | None, typer.Option(help="Encoder of the student for --exchange; default: TF-IDF.")
    ] = None,
    values: Annotated[
        str | None, typer.Option(help='What labels count, for a mean over all rows: "bad=-1,good=1".')
    ] = None,
    review: Annotated[bool, typer.Option(help="Write OUT/review.csv for a person, or read it back.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of every choice.")] = 0,
) -> None:
    """Let a teacher label rows; write data files with confidences, and how good the labels are."""
    from taskfit.distillation.annotate import annotate as annotate_rows
    from taskfit.distillation.config import AnnotateConfig
    from taskfit.distillation.report_text import lines_of
    from taskfit.distillation.teacher import name_teacher
    from taskfit.models import load
    from taskfit.studies.fit import model_for

    config = AnnotateConfig(
        count=count,
        select=select,  # type: ignore[arg-type]  # checked there
        audit=audit,
        human=human,
        seed=seed,
        max_usd=max_usd,
        format=format,  # type: ignore[arg-type]  # checked there
        has_rationales=rationales,
        has_exchange=exchange or exchange_with is not None,
        values=None if values is None else _numbers(values),
    )
    named = name_teacher(teacher, lambda strategy: model_for(strategy, model), None if model is None else load(model))
    encoder, student = (None if name is None else load(name) for name in (embed, exchange_with))
    report = annotate_rows(
        task, named, out, config, rows=rows, encoder=encoder, student=student, has_review=review, say=say
    )
    for line in lines_of(report):
        say(line)
    print_data(str(out / f"train.{format}"))


def _numbers(text: str) -> dict[str, float]:
    """Read ``label=number`` pairs; a label may hold = but no comma.

    Raises:
        ConfigError: a pair has no number, or a label stands twice.
    """
    from taskfit.errors import ConfigError

    found: dict[str, float] = {}
    for pair in text.split(","):
        label, _, number = pair.rpartition("=")
        try:
            found_number = float(number)
        except ValueError:
            found_number = math.nan
        if math.isnan(found_number) or not label.strip() or label.strip() in found:
            raise ConfigError(f'--values must be like "bad=-1,good=1", each label once (got {pair!r})')
        found[label.strip()] = found_number
    return found
