"""Answers that could not be read, and examples without room, reach the report."""

from __future__ import annotations

from types import SimpleNamespace

from taskfit.strategy.contract import Prediction
from taskfit.studies.losses import losses_of
from taskfit.studies.predictions import parquet_bytes, read_predictions, stored


def _candidate(label, dropped=0):
    return SimpleNamespace(label=label, results=[SimpleNamespace(counts={"dropped_shots": dropped} if dropped else {})])


def _rows(unread, texts=("hm",)):
    read = stored(Prediction("r-read", "good", raw="good."), ("good",))
    lost = [
        stored(Prediction(f"r{n}", "", is_parsed=False, raw=texts[n % len(texts)]), ("good",)) for n in range(unread)
    ]
    return [read, *lost]


def test_the_report_counts_what_could_not_be_read_and_shows_some_of_it():
    """Three texts at most, their ends; who lost nothing is not there."""
    candidates = [_candidate("fine"), _candidate("cot"), _candidate("long", dropped=7)]
    predictions = {"fine": _rows(0), "cot": _rows(5, ("x " * 300 + "end", "", "hm")), "long": _rows(0)}
    cot, long = losses_of(candidates, predictions)
    assert cot.line == "5 of 6 answers could not be read and count as wrong"
    assert [text.partition(": ")[0] for text in cot.examples] == ["r0", "r1", "r2"]
    assert cot.examples[0].endswith("x end") and len(cot.examples[0]) < 310
    assert cot.examples[1] == "r1: (nothing)"
    assert long.line.startswith("7 worked examples were left out") and long.examples == ()


def test_the_models_own_text_is_stored_with_the_prediction(tmp_path):
    """Whole, through the Parquet file."""
    path = tmp_path / "predictions.parquet"
    path.write_bytes(parquet_bytes(_rows(1, ("it is\nunclear",))))
    assert [row.raw for row in read_predictions(path)] == ["good.", "it is\nunclear"]
