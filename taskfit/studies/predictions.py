"""Per-row predictions of a trial as a Parquet file: what every comparison is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import StudyError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from taskfit.strategy.contract import Prediction

__all__ = ["StoredPrediction", "parquet_bytes", "read_predictions", "stored"]


@dataclass(frozen=True)
class StoredPrediction:
    """One row of ``predictions.parquet``.

    Attributes:
        gold: the right answers.
        probability: of the given answer; None where the strategy has none.
        probabilities: answer value to probability; None where the strategy has none.
        raw: the text the model gave, where it generated one.
        choices: as in :class:`taskfit.strategy.contract.Prediction`; None in files of before it was kept.
    """

    row_id: str
    gold: tuple[str, ...]
    answer: str
    probability: float | None
    is_parsed: bool
    tokens_in: int
    tokens_out: int
    cut_tokens: int
    probabilities: Mapping[str, float] | None
    raw: str = ""
    choices: Mapping[str, str] | None = None


def stored(prediction: Prediction, gold: Sequence[str]) -> StoredPrediction:
    """Join a prediction with the right answers of its row."""
    probabilities = prediction.probabilities
    return StoredPrediction(
        prediction.row_id,
        tuple(gold),
        prediction.answer,
        None if probabilities is None else probabilities.get(prediction.answer),
        prediction.is_parsed,
        prediction.tokens_in,
        prediction.tokens_out,
        prediction.cut_tokens,
        probabilities,
        prediction.raw,
        prediction.choices,
    )


def parquet_bytes(predictions: Sequence[StoredPrediction]) -> bytes:
    """Return the Parquet file (zstd) of the predictions, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "row_id": [p.row_id for p in predictions],
        "gold": [list(p.gold) for p in predictions],
        "answer": [p.answer for p in predictions],
        "probability": [p.probability for p in predictions],
        "is_parsed": [p.is_parsed for p in predictions],
        "tokens_in": [p.tokens_in for p in predictions],
        "tokens_out": [p.tokens_out for p in predictions],
        "cut_tokens": [p.cut_tokens for p in predictions],
        "probabilities": [None if p.probabilities is None else list(p.probabilities.items()) for p in predictions],
        "raw": [p.raw for p in predictions],
        "choices": [None if p.choices is None else list(p.choices.items()) for p in predictions],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_schema()), sink, compression="zstd")
    return bytes(sink.getvalue())


def read_predictions(path: Path) -> list[StoredPrediction]:
    """Read the predictions of a trial, in order.

    Raises:
        StudyError: the file is missing, broken, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error
    if table.schema.names not in (_schema().names, _schema().names[:-1]):  # without choices before these were kept
        raise StudyError(f"{path} must have the columns {_schema().names} (got {table.schema.names})")
    return [_from_record(record) for record in table.to_pylist()]


def _from_record(record: dict[str, object]) -> StoredPrediction:
    pairs = record.pop("probabilities")
    gold = record.pop("gold")
    choices = record.pop("choices", None)
    return StoredPrediction(
        gold=tuple(gold),  # type: ignore[arg-type]
        probabilities=None if pairs is None else dict(pairs),  # type: ignore[call-overload]
        choices=None if choices is None else dict(choices),  # type: ignore[call-overload]
        **record,  # type: ignore[arg-type]
    )


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("row_id", pa.string()),
            ("gold", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("probability", pa.float64()),
            ("is_parsed", pa.bool_()),
            ("tokens_in", pa.int64()),
            ("tokens_out", pa.int64()),
            ("cut_tokens", pa.int64()),
            ("probabilities", pa.map_(pa.string(), pa.float64())),
            ("raw", pa.string()),
            ("choices", pa.map_(pa.string(), pa.string())),
        ]
    )
