"""``taskfit annotate``: from unlabelled rows to a data file, a report and a review; and everything that goes wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from taskfit.testing import tiny_encoder
from taskfit.testing.service import FakeService, Fault
from tests.cli.conftest import TASK, Taskfit, topic_rows, write_rows
from tests.cli.topic_engine import TopicEngine

MUSIC = ("drum", "violin", "song", "choir")
BARE = TASK.replace(
    "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}", "unlabelled: rows.jsonl"
)


def topic(text: str) -> str:
    """What a good teacher says."""
    return "music" if any(word in text for word in MUSIC) else "food"


@pytest.fixture
def rows(topics: Path) -> Path:
    """60 rows without a topic, and 60 rows to judge the teacher by."""
    write_rows(topics.with_name("validation.jsonl"), topic_rows(60, start=100))
    unlabelled = [{"id": row["id"], "text": row["text"]} for row in topic_rows(60, start=500)]
    return write_rows(topics.with_name("rows.jsonl"), unlabelled)


@pytest.fixture
def bare(rows: Path) -> Path:
    """The same rows in a task without any answer."""
    path = rows.with_name("bare.yaml")
    path.write_text(BARE, encoding="utf-8")
    return path


def _lines(path: str | Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def _report() -> dict:  # type: ignore[type-arg]
    return json.loads(Path("out/report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _words(
    task: Path, rows: Path | None, *more: object, teacher: str = "zero-shot", count: int = 50
) -> tuple[object, ...]:
    named = () if rows is None else ("--rows", rows)
    return ("annotate", task, *named, "--teacher", teacher, "--count", count, "--out", "out", *more)


def test_a_teacher_labels_rows_and_is_judged(
    taskfit: Taskfit, topics: Path, rows: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """A model on this machine; labels with calibrated confidence; agreement, errors, shares."""
    topic_engine.mistaken = {*range(100, 112), 503}
    ran = taskfit(*_words(topics, rows, "--model", decoder))
    assert ran.code == 0, ran.err
    data, audit = _lines(ran.out.strip()), _lines("out/audit.jsonl")
    assert (len(data), len(audit)) == (45, 5)
    assert all(row["topic"] in ("food", "music") and row["annotation_by"] == "teacher" for row in data)
    assert sum(row["topic"] != topic(row["text"]) for row in data + audit) <= 1
    assert {row["annotation_confidence"] for row in data} == {round(49 / 62, 6)}  # it is equally sure of all
    report = _report()
    assert report["agreement"]["rate"]["value"] == pytest.approx(48 / 60)
    assert report["systematic"]["errors"] == 12
    assert set(report["corpus"]) == {"food", "music"}
    assert any("equally sure" in line for line in report["warnings"])
    assert "agrees with people on 80.0%" in ran.err
    assert "rest on the task's labelled rows" in ran.err


def test_the_data_file_is_training_data(
    taskfit: Taskfit, topics: Path, rows: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """A task file names it, and a student learns from it; Parquet too."""
    assert taskfit(*_words(topics, rows, "--model", decoder, "--format", "parquet", "--rationales")).code == 0
    made = topics.with_name("made.yaml")
    made.write_text(TASK.replace("train.jsonl", str(Path("out/train.parquet").absolute())), encoding="utf-8")
    ran = taskfit("fit", made, "--strategy", "linear", "--out", "student")
    assert ran.code == 0, ran.err


def test_the_same_command_goes_on_and_another_is_refused(
    taskfit: Taskfit, topics: Path, rows: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """Nothing is labelled twice; each difference is named."""
    assert taskfit(*_words(topics, rows, "--model", decoder)).code == 0
    before = Path("out/train.jsonl").read_bytes()
    assert taskfit(*_words(topics, rows, "--model", decoder)).code == 0
    assert Path("out/train.jsonl").read_bytes() == before
    assert _report()["attempts"] == {"accepted": 110}
    other = taskfit(*_words(topics, rows, "--model", decoder, teacher="few-shot(k=2)"))
    assert other.code == 2
    assert "belongs to other work: teacher was zero-shot" in other.error_line
    fewer = taskfit(*_words(topics, rows, "--model", decoder, count=20))
    assert "choice was 50 rows" in fewer.error_line
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"id": "new", "text": "more"}\n')
    assert "rows was" in taskfit(*_words(topics, rows, "--model", decoder)).error_line
    assert Path("out/train.jsonl").read_bytes() == before


def test_a_saved_predictor_is_a_teacher(taskfit: Taskfit, topics: Path, rows: Path) -> None:
    """Its folder is named; a folder that is none, or of another task, is refused."""
    assert taskfit("fit", topics, "--strategy", "linear", "--out", "mine").code == 0
    ran = taskfit(*_words(topics, rows, "--exchange", teacher="mine"))
    assert ran.code == 0, ran.err
    assert _report()["agreement"]["rows"] == 60
    assert any("fitted elsewhere" in line for line in _report()["warnings"])
    assert any("no exchange rate" in line for line in _report()["warnings"])
    assert "no saved predictor" in taskfit(*_words(topics, rows, teacher="data")).error_line
    topics.write_text(TASK.replace("[food, music]", "[food, music, art]"), encoding="utf-8")
    Path("out").rename("old")
    assert "whose kind or labels are others" in taskfit(*_words(topics, rows, teacher="mine")).error_line


def test_the_exchange_rate_is_told_where_there_are_rows_for_it(taskfit: Taskfit, topics: Path, rows: Path) -> None:
    """40 labels of people, 45 of a teacher."""
    write_rows(topics.with_name("train.jsonl"), topic_rows(40))
    write_rows(topics.with_name("validation.jsonl"), topic_rows(80, start=100))
    ran = taskfit(*_words(topics, rows, "--exchange", teacher="linear"))
    assert ran.code == 0, ran.err
    assert "labels of people (accuracy" in ran.err
    assert _report()["exchange"]["last_gain"]["after"] == 45


def test_the_exchange_rate_of_an_encoder_and_a_mean_are_told(
    taskfit: Taskfit, topics: Path, rows: Path, tmp_path: Path
) -> None:
    """The student learns from an encoder's vectors; a label counts what the user says."""
    write_rows(topics.with_name("train.jsonl"), topic_rows(40))
    write_rows(topics.with_name("validation.jsonl"), topic_rows(80, start=100))
    encoder = tiny_encoder(tmp_path / "encoder")
    words = _words(topics, rows, "--exchange-with", encoder, "--values", "food=-1,music=2", teacher="linear")
    ran = taskfit(*words)
    assert ran.code == 0, ran.err
    assert "vectors of" in ran.err
    assert "Mean over all rows" in ran.err
    mean, music = _report()["mean"]["interval"], _report()["corpus"]["music"]["interval"]
    assert mean["value"] == pytest.approx(3 * music["value"] - 1, abs=0.05)


@pytest.mark.parametrize(
    ("values", "words"),
    [("food", "--values must be like"), ("food=1,food=2", "each label once"), ("food=1", "a number for each of")],
)
def test_values_that_are_none_are_refused(taskfit: Taskfit, topics: Path, rows: Path, values: str, words: str) -> None:
    assert words in taskfit(*_words(topics, rows, "--values", values, teacher="linear")).error_line


def test_a_service_without_any_human_row_works_and_says_what_cannot_be_known(taskfit: Taskfit, bare: Path) -> None:
    """Its price is told; answers outside the labels are failures with their text, and end nothing."""
    with FakeService(lambda text: "I cannot say" if "time 510" in text else topic(text)) as service:
        model = service.name(usd_in=10, usd_out=100)
        ran = taskfit(*_words(bare, None, "--model", model, teacher="zero-shot(answer=generate)", count=60))
        assert ran.code == 0, ran.err
        assert service.answered == 60
    report = _report()
    assert report["agreement"] is None
    assert report["failures"] == [["r510", "no valid answer", "I cannot say"]]
    assert any("cannot be known" in line for line in report["warnings"])
    assert report["usd_spent"] == pytest.approx(report["usd_of_labels"], rel=0.05)
    assert report["calibration"].startswith("not calibrated")
    assert {row["annotation_confidence"] for row in _lines("out/train.jsonl")} == {None}


def test_a_teacher_that_says_always_the_same_is_told(taskfit: Taskfit, bare: Path) -> None:
    """Its labels are worth nothing."""
    with FakeService(lambda text: "food") as service:
        ran = taskfit(*_words(bare, None, "--model", service.name(), teacher="zero-shot(answer=generate)"))
    assert "gave all 50 rows the same label, 'food'" in ran.err


def test_a_cap_in_money_holds_and_what_was_paid_for_is_kept(taskfit: Taskfit, bare: Path) -> None:
    """With the cap raised, the same command goes on, and asks nothing twice."""
    with FakeService(topic) as service:
        model = service.name(usd_in=1000, usd_out=1000, concurrency=1)
        words = _words(bare, None, "--model", model, teacher="zero-shot(answer=generate)")
        stopped = taskfit(*words, "--max-usd", 0.5)
        assert stopped.code == 2
        assert "cap of 0.5 USD is reached" in stopped.error_line
        first = service.answered
        assert 0 < first < 50
        ran = taskfit(*words, "--max-usd", 5)
        assert ran.code == 0, ran.err
        assert service.answered == 50
    assert _report()["labelled"]["train"] == 45


def test_one_bad_row_never_ends_a_run(taskfit: Taskfit, bare: Path) -> None:
    """Empty texts are not asked about; what is too long for the service fails alone."""
    write_rows(
        bare.with_name("rows.jsonl"),
        [{"id": "empty", "text": "  "}, {"id": "long", "text": "soup " * 200_000}]
        + [{"id": f"r{n}", "text": f"soup {n}"} for n in range(20)],
    )
    with FakeService(topic, context=1000) as service:
        ran = taskfit(*_words(bare, None, "--model", service.name(), teacher="zero-shot(answer=generate)", count=22))
        assert ran.code == 0, ran.err
        assert service.answered == 20
    failures = {row_id: outcome for row_id, outcome, _ in _report()["failures"]}
    assert failures == {"empty": "empty text", "long": "ContextError"}


def test_a_service_that_is_away_ends_the_run_and_the_next_goes_on(taskfit: Taskfit, bare: Path) -> None:
    """A refused key is no row's fault."""
    with FakeService(topic, faults=[Fault(401)] * 2) as service:
        words = _words(bare, None, "--model", service.name(concurrency=1), teacher="zero-shot(answer=generate)")
        stopped = taskfit(*words)
        assert stopped.code == 2
        assert "401" in stopped.error_line
        ran = taskfit(*words)
        ran = ran if ran.code == 0 else taskfit(*words)
        assert ran.code == 0, ran.err
    assert _report()["labelled"]["train"] == 45


def test_a_service_that_refuses_every_row_is_not_asked_about_all(taskfit: Taskfit, bare: Path) -> None:
    """After five rows in a row without any answer, it is the setting and not the rows."""
    with FakeService(topic, faults=[Fault(400)] * 100) as service:
        words = _words(bare, None, "--model", service.name(concurrency=1), teacher="zero-shot(answer=generate)")
        assert taskfit(*words).code == 2
        assert len(service.bodies) == 6  # one with all rows, five alone


def test_rows_that_are_no_utf8_are_refused_before_anything_is_paid(taskfit: Taskfit, bare: Path) -> None:
    """With file and line."""
    bare.with_name("rows.jsonl").write_bytes(b'{"text": "soup"}\n{"text": "caf\xe9"}\n')
    with FakeService(topic) as service:
        ran = taskfit(*_words(bare, None, "--model", service.name(), teacher="zero-shot(answer=generate)"))
        assert (ran.code, service.answered) == (2, 0)
    assert "rows.jsonl:2" in ran.error_line


def test_a_review_is_written_filled_in_and_read_back(
    taskfit: Taskfit, topics: Path, rows: Path, decoder: Path, topic_engine: TopicEngine
) -> None:
    """Disputed rows first, then the audit; a person's label stands in data, agreement and shares."""
    topic_engine.mistaken = {100, 101}
    words = _words(topics, rows, "--model", decoder, "--audit", 20, "--review")
    assert taskfit(*words).code == 0
    path = Path("out/review.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["why"] for record in records[:3]] == ["differs from data", "differs from data", "audit"]
    for record in records[:22]:
        record["person"] = "music"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    ran = taskfit(*words)
    assert ran.code == 0, ran.err
    assert "22 rows of" in ran.err
    report = _report()
    assert report["agreement"]["rows"] == 80
    assert report["corpus"]["music"]["interval"]["value"] == 1.0
    assert not any("rest on the task's labelled rows" in line for line in report["warnings"])
    audit = _lines("out/audit.jsonl")
    assert {(row["topic"], row["annotation_by"], row["annotation_confidence"]) for row in audit} == {
        ("music", "person", 1.0)
    }
    with path.open(encoding="utf-8-sig", newline="") as file:
        assert not {record["id"] for record in csv.DictReader(file)} & {row["id"] for row in audit}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,person\nr500,jazz\n", "person must be one of food, music (got 'jazz')"),
        (b"id,person\nnobody,food\n", "no row has the id 'nobody'"),
        (b"id,person\nr500,food\nr500,music\n", "has two answers"),
        (b"id;label\nr500;food\n", "expected the columns id and person"),
        (b"", "expected the columns id and person"),
        (b"id,person\nr500,food,more\n", "record 2 has 3 columns"),
        (b'id,person\nr500,"food\n', "broken CSV"),
        (b"id,person\nr500,caf\xe9\n", "no UTF-8"),
        (b"id,person\nr500,fo\0od\n", "NUL"),
    ],
)
def test_a_hostile_review_changes_nothing(taskfit: Taskfit, bare: Path, content: bytes, message: str) -> None:
    """Every fault in one line, exit code 2; the file itself is left as it is."""
    with FakeService(topic) as service:
        words = _words(
            bare, None, "--model", service.name(), "--review", teacher="zero-shot(answer=generate)", count=60
        )
        assert taskfit(*words).code == 0
        before = Path("out/train.jsonl").read_bytes()
        Path("out/review.csv").write_bytes(content)
        ran = taskfit(*words)
    assert ran.code == 2
    assert message in ran.err
    assert Path("out/review.csv").read_bytes() == content
    assert Path("out/train.jsonl").read_bytes() == before


def test_texts_that_a_spreadsheet_would_run_are_disarmed_and_semicolons_read(taskfit: Taskfit, bare: Path) -> None:
    """A formula gets an apostrophe; a file saved with semicolons comes back."""
    write_rows(bare.with_name("rows.jsonl"), [{"id": "=1+1", "text": "=HYPERLINK(1)"}, {"id": "=b", "text": "=soup"}])
    with FakeService(topic) as service:
        words = _words(
            bare,
            None,
            "--model",
            service.name(),
            "--review",
            "--audit",
            1,
            teacher="zero-shot(answer=generate)",
            count=2,
        )
        assert taskfit(*words).code == 0
        text = Path("out/review.csv").read_text(encoding="utf-8-sig")
        assert text.splitlines()[1].startswith("'=")
        assert ",=" not in text
        Path("out/review.csv").write_text("id;person\n'=1+1;food\n'=b;music\n", encoding="utf-8")
        assert "2 rows of" in taskfit(*words).err
    assert {row["topic"] for row in _lines("out/train.jsonl") + _lines("out/audit.jsonl")} == {"food", "music"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--select", "best"), "select must be one of random, diverse, uncertain, mixed (got 'best')"),
        (("--audit", 50), "audit must be between 0 and count - 1"),
        (("--human", -1), "human must be at least 0"),
        (("--max-usd", -1), "max_usd must be above 0"),
        (("--max-usd", 1), "this one costs none"),
        (("--format", "xml"), "format must be jsonl or parquet"),
        (("--rows", "nothing.jsonl"), "no such file"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    taskfit: Taskfit, topics: Path, rows: Path, more: tuple[object, ...], message: str
) -> None:
    """Nothing is written but an empty ledger."""
    ran = taskfit(*_words(topics, rows, *more, teacher="linear"))
    assert ran.code == 2
    assert message in ran.err
    assert not Path("out/train.jsonl").exists()


def test_a_task_without_rows_needs_labels_unlabelled_rows_and_a_teacher_that_learns_nothing(
    taskfit: Taskfit, topics: Path, bare: Path
) -> None:
    """Each lack is named; other commands still ask for data."""
    assert (
        "learns from labelled rows, and the task has none" in taskfit(*_words(bare, None, teacher="linear")).error_line
    )
    assert "data is missing" in taskfit("fit", bare, "--strategy", "linear", "--out", "x").error_line
    assert "names no `unlabelled` rows" in taskfit(*_words(topics, None, teacher="linear")).error_line
    bare.write_text(BARE.replace("labels: [food, music]\n", ""), encoding="utf-8")
    assert "`labels` must be listed" in taskfit(*_words(bare, None)).error_line


def test_a_folder_of_something_else_is_refused(taskfit: Taskfit, topics: Path, rows: Path) -> None:
    """Nothing in it is touched."""
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine", encoding="utf-8")
    assert "holds files and no ledger" in taskfit(*_words(topics, rows, teacher="linear")).error_line
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]
