"""``taskfit export``: a fitted predictor for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from taskfit.cli.output import print_data, say

__all__ = ["export"]


def export(
    predictor: Annotated[Path, typer.Argument(help="The folder of a fitted encoder.")],
    on: Annotated[Path, typer.Option(help="The task file, whose test rows must be answered as well as before.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")],
    runtime: Annotated[
        Literal["onnx", "onnx-int8"],
        typer.Option(help="What will compute it, in float32 or with weights of 8 bits; needs the extra export."),
    ] = "onnx",
    rows: Annotated[int | None, typer.Option(help="Of the test rows, the first so many; default: all.")] = None,
    max_loss: Annotated[float, typer.Option(help="Most that the deciding metric may fall.")] = 0.003,
) -> None:
    """Export a predictor; it is accepted only when it answers as well on held-out rows."""
    from taskfit.serving.export import export_onnx
    from taskfit.studies.words import bytes_text, figure, metric_name
    from taskfit.tasks import load_task

    found = export_onnx(predictor, load_task(on), out, runtime=runtime, rows=rows, max_loss=max_loss, say=say)
    say(
        f"{metric_name(found.metric)} {figure(found.before)} before, {figure(found.after)} exported (difference "
        f"{found.low:+.4f} to {found.high:+.4f}); {found.agreement:.1%} of {found.rows:,} answers agree; "
        f"{bytes_text(found.bytes)}"
    )
    print_data(str(out))
