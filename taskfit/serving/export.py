"""Export a predictor to another runtime, and accept it only when it still answers as well on held-out rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, PredictorError
from taskfit.strategy.folder import new_folder, write_file
from taskfit.strategy.predictor import load_predictor
from taskfit.tuning.encoder_predictor import ONNX_FILE, EncoderPredictor

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.strategy.contract import Predictor
    from taskfit.tasks.task import Row, Task

__all__ = ["Exported", "export_onnx"]

FORMAT = 1
EVIDENCE_FILE = "export.json"
RUNTIMES = ("onnx", "onnx-int8")
MAX_LOSS = 0.003
"""Most that the deciding metric may fall, in its own unit: 0.3 points of an accuracy."""


@dataclass(frozen=True)
class Exported:
    """What an exported predictor answered beside the one it was made of, on the same held-out rows.

    Attributes:
        runtime: what computes it, one of ``RUNTIMES``.
        metric: the deciding one.
        before, after: its value.
        low, high: the interval of what was won, 95 %, paired by row.
        agreement: share of rows with the same answer.
        rows: how many.
        bytes: of the model's file.
    """

    runtime: str
    metric: str
    before: float
    after: float
    low: float
    high: float
    agreement: float
    rows: int
    bytes: int


def export_onnx(
    predictor: str | Path,
    task: Task,
    out: str | Path,
    *,
    runtime: str = "onnx",
    rows: int | None = None,
    max_loss: float = MAX_LOSS,
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write the predictor with its encoder as ONNX; the folder loads as any and predicts through it.

    Args:
        predictor: folder of a fitted ``encoder``.
        task: whose test rows are predicted by both.
        out: the folder to write; it must not exist.
        runtime: ``onnx``: in float32; ``onnx-int8``: weights of 8 bits, a third of the size.
        rows: of the test rows, the first so many; None: all.
        max_loss: most that the deciding metric may fall.
        say: takes lines of progress.

    Raises:
        ConfigError: the predictor is no fitted encoder, the task has other labels, or there is no such runtime.
        PredictorError: the exported one loses more than ``max_loss``; nothing is written.
        MissingExtraError: the packages of the extra ``[export]`` are not installed.
    """
    from taskfit.inference.onnx_encoder import write_onnx, write_onnx_int8

    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of {', '.join(RUNTIMES)} (got {runtime!r})")
    if rows is not None and rows < 1:
        raise ConfigError(f"rows must be at least 1 (got {rows})")
    folder = Path(predictor)
    fitted = load_predictor(folder)
    if not isinstance(fitted, EncoderPredictor):
        raise ConfigError(f"only fitted encoders can be exported (got {fitted.strategy})")
    if fitted.definition.labels != task.definition.labels or not task.test:
        raise ConfigError("exporting needs test rows of a task with the labels that the predictor was fitted on")
    held_out = task.test[:rows]
    with new_folder(Path(out)) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(ONNX_FILE, "expected.*"))
        say(f"writing the model as {runtime}")
        write = write_onnx if runtime == "onnx" else write_onnx_int8
        write(fitted.folded_classifier(), partial / ONNX_FILE)
        say(f"predicting {len(held_out)} test rows with both")
        found = _compare(runtime, fitted, partial, held_out)
        if found.before - found.after > max_loss:
            raise PredictorError(
                f"the exported predictor loses too much: {found.metric} {found.before:.4f} becomes {found.after:.4f} "
                f"on {found.rows} rows, {found.agreement:.1%} of the answers agree",
                f"At most {max_loss} may be lost (--max-loss); nothing was written.",
            )
        write_file(partial / EVIDENCE_FILE, json.dumps({"format": FORMAT, **asdict(found)}, indent=2) + "\n")
    return found


def _compare(runtime: str, before: Predictor, folder: Path, rows: tuple[Row, ...]) -> Exported:
    from taskfit.evaluation.paired import compare_paired

    name = before.definition.metrics[0]
    one, other = _outcomes(before, rows), _outcomes(load_predictor(folder), rows)
    paired = compare_paired(name, [other], [one])
    same = sum(a == b for a, b in zip(one.answers, other.answers, strict=True))
    size = (folder / ONNX_FILE).stat().st_size
    values = (paired.value_b, paired.value_a, paired.low, paired.high)
    return Exported(runtime, name, *values, same / len(rows), len(rows), size)


def _outcomes(predictor: Predictor, rows: tuple[Row, ...]) -> Outcomes:
    from taskfit.evaluation.outcomes import outcomes_of

    return outcomes_of(predictor.definition, rows, predictor.predict(rows))
