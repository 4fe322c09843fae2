"""Predicting many rows: every row once, in order, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from taskfit.errors import ConfigError, DataError, PredictorError, ResourceError, ServiceError, SpendingError
from taskfit.serving import bulk, questions, shard
from taskfit.serving.bulk import Progress, predict_rows
from taskfit.serving.shard import predict_shard
from taskfit.strategy.manifest import read_manifest
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks import Row, TaskDefinition, Wording, rows_from
from taskfit.tasks.template import field_source
from tests.cli.conftest import topic_rows, write_rows
from tests.serving.conftest import Slow, contents, table


def slow(monkeypatch: pytest.MonkeyPatch, saved: Path, **settings: Any) -> Slow:
    """Let every run predict with this one, eight questions a chunk."""
    made = Slow(read_manifest(saved).definition, **settings)
    monkeypatch.setattr(bulk, "load", lambda folder, model: made)
    monkeypatch.setattr(shard, "CHUNK_QUESTIONS", 8)
    return made


def test_answers_are_those_of_the_predictor_in_order(saved: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(70, start=500))
    counts = predict_rows(saved, rows, tmp_path / "out", shard_rows=32)
    assert (counts.rows, counts.failed, counts.cut) == (70, 0, 0)
    found = table(tmp_path / "out")
    expected = list(load_predictor(saved).predict(rows_from(rows)))
    assert [row["id"] for row in found] == [row.row_id for row in expected]
    assert [row["answer"] for row in found] == [row.answer for row in expected]
    shares = [(row.probabilities or {})[row.answer] for row in expected]
    assert [row["probability"] for row in found] == pytest.approx(shares, abs=1e-6)
    manifest = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert manifest["status"] == "done" and len(manifest["shards"]) == 3 and manifest["rows"] == 70


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"])
def test_every_format_gives_the_same_answers(saved: Path, tmp_path: Path, name: str) -> None:
    rows = topic_rows(20, start=300)
    predict_rows(saved, write_rows(tmp_path / "plain.jsonl", rows), tmp_path / "plain")
    path = tmp_path / name
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines))
    elif name.endswith(".zst"):
        path.write_bytes(pyarrow.compress(lines, codec="zstd", asbytes=True))
    elif name.endswith(".csv"):
        path.write_text("id,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    predict_rows(saved, path, tmp_path / "out")
    assert table(tmp_path / "out") == table(tmp_path / "plain")


def test_what_is_asked_twice_is_predicted_once(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = slow(monkeypatch, saved)
    rows: list[dict[str, object]] = [
        {"id": f"a{number}", "text": f"text {number % 7}", "other": number} for number in range(60)
    ]
    predict_rows(saved, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out", shard_rows=40)
    assert sorted(made.asked) == sorted([f"text {number}" for number in range(7)] * 2)  # once in each of two shards
    found = table(tmp_path / "out")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert all(found[number]["probability"] == found[number % 7]["probability"] for number in range(60))


def test_rows_that_differ_in_a_field_taken_from_row_are_asked_each() -> None:
    """`input: Customer query` reads `row["Customer query"]`, as such a name is none of Jinja's."""
    source = field_source("Customer query")
    wording = Wording("default", f"{source}\nAnswer:", "{{ label }}", {})
    definition = TaskDefinition(
        "topics", "classification", (wording,), source, ("{{ label }}",), ("food", "music"), ("accuracy",)
    )
    rows = [Row(text, {"Customer query": text, "other": 1}) for text in ("soup", "song", "soup")]
    answers = predict_shard(Slow(definition), rows)
    alone = [predict_shard(Slow(definition), [row])[0] for row in rows]
    assert answers == alone and answers[0] != answers[1]


def test_long_questions_go_before_short_ones(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = slow(monkeypatch, saved)
    rows = [{"text": "x" * length} for length in (3, 90, 1, 40)]
    predict_rows(saved, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert [len(text) for text in made.asked] == [90, 40, 3, 1]


def test_two_threads_write_what_one_writes(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(100))
    for name, is_thread_safe in (("one", False), ("two", True)):
        slow(monkeypatch, saved, is_thread_safe=is_thread_safe, seconds=0.001)
        predict_rows(saved, rows, tmp_path / name, shard_rows=60)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_killed_at_many_random_moments_it_writes_the_same_bytes(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real kills, of real processes, until one comes to its end."""
    slow(monkeypatch, saved, seconds=0.01)
    rows = write_rows(tmp_path / "rows.jsonl", [*topic_rows(200), *topic_rows(40)])
    predict_rows(saved, rows, tmp_path / "whole", shard_rows=64)
    chance, kills = random.Random(0), 0
    for run in range(2):
        out, most = tmp_path / f"out{run}", 0.1  # seconds, ever more: a busy machine may not come to its first chunk
        while not _comes_to_its_end((saved, rows, out), chance.uniform(0.0, most)):
            kills, most = kills + 1, most * 1.1
        assert contents(out) == contents(tmp_path / "whole")
    assert kills >= 3


def _comes_to_its_end(arguments: tuple[Path, Path, Path], seconds: float) -> bool:
    """Start a run in a process of its own and kill it after so long, unless it is done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads
        context = multiprocessing.get_context("fork")
        process = context.Process(target=predict_rows, args=arguments, kwargs={"shard_rows": 64})
        process.start()
    process.join(seconds)
    if process.exitcode is None:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        return False
    assert process.exitcode == 0
    return True


def test_a_journal_cut_short_anywhere_gives_the_same(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow(monkeypatch, saved)
    rows = [Row(f"r{number}", {"text": f"text number {number}"}) for number in range(40)]
    expected = predict_shard(made, rows)
    journal = tmp_path / "journal"
    assert predict_shard(made, rows, journal) == expected
    whole = journal.read_bytes()
    for length in range(0, len(whole), 97):
        journal.write_bytes(whole[:length])
        made.asked.clear()
        assert predict_shard(made, rows, journal) == expected
        assert len(made.asked) == 40 - 8 * max(0, whole[:length].count(b"\n") - 1)
        assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_journal_of_other_rows_is_not_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = slow(monkeypatch, saved)
    predict_shard(made, [Row(f"r{number}", {"text": f"one {number}"}) for number in range(20)], tmp_path / "journal")
    others = [Row(f"s{number}", {"text": f"two {number}"}) for number in range(20)]
    assert predict_shard(made, others, tmp_path / "journal") == predict_shard(made, others)


def test_rows_that_fail_are_written_with_their_reason(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow(monkeypatch, saved)
    rows = topic_rows(30)
    rows[3]["text"], rows[17]["text"], rows[20] = "FAIL here", "NONSENSE", {"id": "r20", "other": 1}
    counts = predict_rows(saved, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    found = table(tmp_path / "out")
    failed = {row["id"]: row["error"] for row in found if row["error"] is not None}
    assert counts.failed == 3 and failed.keys() == {"r3", "r17", "r20"}
    assert failed["r3"] == "RuntimeError: cannot read FAIL here"
    assert failed["r17"].startswith("no valid answer")
    assert "names 'text', which is no field" in failed["r20"]
    assert all(row["answer"] is None for row in found if row["error"] is not None)
    assert len(made.asked) < 4 * 30


def test_rows_that_cannot_be_read_are_written_with_their_reason(saved: Path, tmp_path: Path) -> None:
    good = json.dumps({"id": "a", "text": "soup"}).encode()
    huge = json.dumps({"id": "huge", "text": "cheese " * 200_000}).encode()
    lines = [good, b'{"id": "b", "text": "\xff\xfe"}', b'{"id": "c", "text"', b"[1]", b'{"id": "e", "text": ""}', huge]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    counts = predict_rows(saved, tmp_path / "rows.jsonl", tmp_path / "out")
    found = table(tmp_path / "out")
    assert [row["id"] for row in found] == ["a", "rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4", "e", "huge"]
    assert [row["error"] is None for row in found] == [True, False, False, False, True, True]
    assert found[1]["error"].startswith("not UTF-8 (byte 22")
    assert counts.failed == 3


def test_halves_of_surrogate_pairs_are_written_as_escapes(saved: Path, tmp_path: Path) -> None:
    """A key of a broken line, or a service's answer, can hold what UTF-8 cannot."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"\\ud800": 1, "\\ud800": 2}\n{"text": "soup"}\n', encoding="utf-8")
    assert predict_rows(saved, rows, tmp_path / "out").failed == 1
    assert "the key '\\ud800' is there twice" in table(tmp_path / "out")[0]["error"]


def test_broken_records_of_tables_do_not_end_the_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b'id,text\na,soup\nb,\xff\nc,song,more\n"d","two\nlines"\n')
    predict_rows(saved, tmp_path / "rows.csv", tmp_path / "out")
    found = table(tmp_path / "out")
    assert [row["id"] for row in found] == ["a", "rows.csv:3", "rows.csv:4", "d"]
    assert "3 columns where the header has 2" in found[2]["error"]
    raw = pyarrow.array([b"soup", b"\xff", b"song"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b", "c"], "text": raw}), tmp_path / "rows.parquet")
    predict_rows(saved, tmp_path / "rows.parquet", tmp_path / "tables")
    assert [row["error"] for row in table(tmp_path / "tables")] == [None, "a text is not UTF-8 (byte 1)", None]


def test_a_schema_that_changes_in_a_glob_is_refused_before_anything_is_predicted(saved: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for number, columns in enumerate([{"text": ["a"], "n": [1]}, {"text": ["b"], "m": ["x"]}, {"text": [3]}]):
        pyarrow.parquet.write_table(pyarrow.table(columns), parts / f"{number}.parquet")
    with pytest.raises(
        DataError, match=r"2\.parquet: column `text` holds whole numbers, in .*0\.parquet it holds text"
    ):
        predict_rows(saved, parts / "*.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (parts / "2.parquet").unlink()
    (parts / "2.csv").write_text("txt\nsoup\n")
    with pytest.raises(DataError, match=r"no column `text` \(did you mean 'txt'\?\)"):
        predict_rows(saved, parts / "*", tmp_path / "out")
    (parts / "2.csv").unlink()
    assert predict_rows(saved, parts / "*", tmp_path / "out").rows == 2  # columns that are not read may differ
    (parts / "1.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"1\.parquet: cannot be read"):
        predict_rows(saved, parts / "*", tmp_path / "other")


def test_a_second_run_on_the_folder_is_refused(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch, saved, seconds=0.2)
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        first = multiprocessing.get_context("fork").Process(target=predict_rows, args=(saved, rows, tmp_path / "out"))
        first.start()
    try:
        while not (tmp_path / "out" / "predictions.json").is_file():
            time.sleep(0.01)
        with pytest.raises(DataError, match="another run is writing into this folder"):
            predict_rows(saved, rows, tmp_path / "out")
    finally:
        first.kill()
        first.join()
    slow(monkeypatch, saved)
    assert predict_rows(saved, rows, tmp_path / "out").rows == 200  # the lock went with its process


def test_another_run_s_folder_is_refused_and_says_what_differs(saved: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(20))
    out = tmp_path / "out"
    predict_rows(saved, rows, out)
    before = contents(out)
    with pytest.raises(DataError, match="shard_rows was 16384, now 5"):
        predict_rows(saved, rows, out, shard_rows=5)
    (saved / "note.txt").write_text("changed")
    with pytest.raises(DataError, match="predictor was"):
        predict_rows(saved, rows, out)
    (saved / "note.txt").unlink()
    (saved / "expected.json").write_text("{}")  # what was expected of it changes no answer
    assert predict_rows(saved, rows, out).rows == 20
    write_rows(rows, topic_rows(21))
    with pytest.raises(DataError, match=r"inputs was .*rows\.jsonl \([0-9a-f]{12}\), now"):
        predict_rows(saved, rows, out)
    assert contents(out) == before
    (out / "predictions.json").write_text("[]")
    with pytest.raises(DataError, match="damaged, or of another version"):
        predict_rows(saved, rows, out)
    (out / "predictions.json").unlink()
    with pytest.raises(DataError, match=r"holds part-000000\.parquet and no predictions\.json"):
        predict_rows(saved, rows, out)
    with pytest.raises(DataError, match="is a file"):
        predict_rows(saved, rows, rows)


def test_a_damaged_shard_is_named(saved: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(20))
    predict_rows(saved, rows, tmp_path / "out")
    (tmp_path / "out" / "part-000000.parquet").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"part-000000\.parquet is damaged"):
        predict_rows(saved, rows, tmp_path / "out")


def test_a_predictor_that_always_fails_stops_at_once(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, saved)
    monkeypatch.setattr(shard, "CHUNK_QUESTIONS", 32)
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": f"FAIL {number}"} for number in range(100)])
    with pytest.raises(PredictorError, match="all of the first 32 rows fail, the first: RuntimeError"):
        predict_rows(saved, rows, tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (SpendingError("the cap is reached"), True),
        (ServiceError("no connection"), True),
        (ServiceError("too busy", status=429), True),
        (ServiceError("too long", status=413), False),
        (ResourceError("no memory"), True),
        (MemoryError(), True),
    ],
)
def test_only_what_is_the_rows_fault_makes_rows_fail(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, stops: bool
) -> None:
    made = slow(monkeypatch, saved)

    def refuse(rows: Any) -> Any:
        raise error

    made.predict = refuse  # type: ignore[method-assign]
    if stops:
        with pytest.raises(type(error)):
            predict_shard(made, [Row("a", {"text": "soup"})])
    else:
        assert predict_shard(made, [Row("a", {"text": "soup"})])[0].error == "too long"


def test_answers_of_other_rows_are_no_answers(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = slow(monkeypatch, saved)
    made.predict = lambda rows: iter(())  # type: ignore[method-assign]
    with pytest.raises(PredictorError, match="gave 0 answers to 1 rows"):
        predict_shard(made, [Row("a", {"text": "soup"})])


def test_shards_end_early_where_texts_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MOST_SHARD_CHARACTERS", 100)
    rows = [Row(str(number), {"text": "x" * 40}) for number in range(7)]
    assert [len(part) for part in questions.cut(rows, 5)] == [3, 3, 1]
    assert [len(part) for part in questions.cut(rows, 2)] == [2, 2, 2, 1]


def test_progress_counts_every_row_and_knows_what_is_left(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, saved)
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"soup {number}\n" for number in range(50)))
    told: list[Progress] = []
    predict_rows(saved, tmp_path / "rows.csv", tmp_path / "out", shard_rows=20, on_progress=told.append)
    assert (told[-1].done, told[-1].total) == (50, 50)
    assert told[-1].left_s == 0
    assert [one.done for one in told] == sorted(one.done for one in told)
    with pytest.raises(ConfigError, match="at least 1 row"):
        predict_rows(saved, tmp_path / "rows.csv", tmp_path / "other", shard_rows=0)
