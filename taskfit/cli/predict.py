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

from taskfit.cli.output import say
from taskfit.errors import DataError
from taskfit.files import appearing

if TYPE_CHECKING:
    from taskfit.strategy.contract import Prediction

__all__ = ["predict"]

_REPORT_EVERY_S = 5.0


def predict(
    predictor: Annotated[Path, typer.Argument(help="A predictor folder, of a study's trial or of taskfit fit.")],
    rows: Annotated[Path, typer.Argument(help="Rows: JSON Lines, CSV, TSV or Parquet, also .gz or .xz.")],
    out: Annotated[
        Path | None, typer.Option(help="JSON Lines file to write, whole or not at all; default: standard output.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The base model, where the folder's own word for it shall not do.")
    ] = None,
) -> None:
    """Predict rows; one JSON object a row, in the order of the rows, in constant memory."""
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
