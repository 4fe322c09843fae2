"""``taskfit predict``: run a saved predictor over rows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from taskfit.cli.output import print_data, say
from taskfit.errors import ConfigError, DataError
from taskfit.files import appearing

if TYPE_CHECKING:
    from taskfit.strategy.contract import Prediction

__all__ = ["predict"]

_REPORT_EVERY_S = 5.0


def predict(
    predictor: Annotated[Path, typer.Argument(help="A predictor folder, of a study's trial or of taskfit fit.")],
    rows: Annotated[
        Path, typer.Argument(help='Rows: JSON Lines, CSV, TSV or Parquet, also .gz, .zst or .xz; or a glob: "x/*.csv".')
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A name in .jsonl: one file, written whole or not at all. Any other: a folder of Parquet shards, for "
            "many rows; killed and run again, it goes on. Default: standard output."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The base model, where the folder's own word for it shall not do.")
    ] = None,
    shard_rows: Annotated[int | None, typer.Option(help="Rows of a shard of a folder; default: 16,384.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Predict a folder's shards with Ray: local, or the address of a cluster; needs the extra cluster."
        ),
    ] = None,
) -> None:
    """Predict rows, in their order and in constant memory."""
    if out is not None and out.suffix.lower() not in (".jsonl", ".ndjson"):
        _predict_folder(predictor, rows, out, model, shard_rows, cluster)
        return
    if shard_rows is not None or cluster is not None:
        raise ConfigError("--shard-rows and --cluster are for folders: give one with --out DIR")
    _predict_lines(predictor, rows, out, model)


def _predict_folder(
    predictor: Path, rows: Path, out: Path, model: str | None, shard_rows: int | None, cluster: str | None
) -> None:
    """Write shards into a folder, with a bar or a line now and then."""
    from taskfit.cli.bar import Bar
    from taskfit.serving.bulk import SHARD_ROWS, Progress, predict_rows
    from taskfit.studies.words import count, seconds

    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        left = "" if progress.left_s is None else f", {seconds(progress.left_s)} left"
        text = f"{progress.rows_per_s:,.0f} rows/s{left}"
        bar.advance(progress.done, max(progress.done, progress.total or 0), text)
        if not bar.is_drawn and time.monotonic() - last > _REPORT_EVERY_S:
            last = time.monotonic()
            say(f"{progress.done:,} rows, {text}")

    with Bar("reading the rows") as bar:
        counts = predict_rows(
            predictor,
            rows,
            out,
            model=model,
            shard_rows=SHARD_ROWS if shard_rows is None else shard_rows,
            cluster=cluster,
            on_progress=show,
        )
    failed = f"{counts.failed:,} failed (see `error`)"
    say(f"{count(counts.rows, 'row')}; {counts.cut:,} cut to what the model reads, {failed}")
    print_data(str(out))


def _predict_lines(predictor: Path, rows: Path, out: Path | None, model: str | None) -> None:
    """Write one JSON object a row."""
    from taskfit.models import load
    from taskfit.strategy.predictor import load_predictor
    from taskfit.tasks import rows_from

    if out is not None and out.exists():
        raise DataError(f"{out} exists already", "give another file with --out, or move this one away")
    fitted = load_predictor(predictor, model=None if model is None else load(model))
    started = last = time.monotonic()
    count = cut = unparsed = 0
    with _sink(out) as sink:
        for prediction in fitted.predict(rows_from(rows)):
            sink.write(json.dumps(_record(prediction), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
            cut += prediction.cut_tokens > 0
            unparsed += not prediction.is_parsed
            if time.monotonic() - last > _REPORT_EVERY_S:
                last = time.monotonic()
                say(f"{count} rows, {count / (last - started):.1f} rows/s")
    for note in getattr(fitted, "notes", ()):
        say(note)
    seconds = time.monotonic() - started
    dropped = fitted.predict_work.dropped_shots
    lost = f", {dropped} worked examples left out for want of room" if dropped else ""
    say(f"{count} rows in {seconds:.1f} s; {cut} cut to the model's context{lost}, {unparsed} without a valid answer")


def _record(prediction: Prediction) -> dict[str, object]:
    record: dict[str, object] = {"id": prediction.row_id, "answer": prediction.answer}
    if prediction.probabilities is not None:
        record["probability"] = round(prediction.probabilities.get(prediction.answer, 0.0), 6)
    if prediction.cut_tokens:
        record["cut_tokens"] = prediction.cut_tokens
    if not prediction.is_parsed:
        record["is_parsed"] = False
        record["raw"] = prediction.raw
    return record


@contextmanager
def _sink(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with appearing(out) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        yield file
