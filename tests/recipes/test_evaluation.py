"""Step 6 and 7: the finished model against the others, through the library's studies; the tables; the card."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import taskfit
from taskfit.errors import DataError, ResourceError

INTERVAL = [0.5, 0.4, 0.6]


def test_text_is_measured_for_every_model_and_kind(finished) -> None:  # type: ignore[no-untyped-def]
    """A model's gain over itself is none; over others it is the difference, paired."""
    from evaluate import measure_text
    from tables import text_table

    folder = finished.build / "instructed"
    report = measure_text(finished, {"second": folder, "untuned": folder, "random": finished.build / "random"}, 3)
    assert set(report) == {"peps", "short", "web"}
    for row in report.values():
        bits = row["bits_per_character"]
        assert row["gain"]["untuned"] == [0, 0, 0]
        assert row["gain"]["random"][0] == pytest.approx(bits["random"][0] - bits["second"][0], abs=2e-4)
        assert bits["second"][1] <= bits["second"][0] <= bits["second"][2]
    assert text_table(report).count("\n") == 2 + len(report)


def test_the_first_version_is_read_from_git_or_a_folder(made, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """What git has not is told, with the way out."""
    import evaluate
    from places import Places

    places = Places(made.data, tmp_path)
    with pytest.raises(DataError, match=r"has no model\.safetensors"):
        evaluate.first_version(places, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert evaluate.first_version(places, tmp_path) == tmp_path
    monkeypatch.setattr(evaluate, "FIRST_VERSION", "0" * 40)
    with pytest.raises(DataError, match="git has no commit"):
        evaluate.first_version(places, None)
    assert not (tmp_path / "first").exists()


def test_a_verdict_counts_types_not_sets() -> None:
    """Two sets of one type count once; the sign test is over types."""
    from tables import ask_table, sign_test

    def row(kind: str, won: int, lost: int) -> dict:  # type: ignore[type-arg]
        names = ("zero-shot|second", "few-shot|second", "majority|")
        figures = dict.fromkeys((*names, *(f"wording {at}|second" for at in (1, 2))), INTERVAL)
        wins = {other: {"won": won, "lost": lost, "p": 1.0} for other in ("untuned", "majority")}
        return {"type": kind, "rows": 10, "accuracy": figures, "wins": wins}

    shown = ask_table({"a": row("one", 5, 1), "b": row("one", 0, 1), "c": row("two", 1, 3), "d": row("", 9, 0)})
    assert "Better than untuned on 1 of 2 held-out types (sign test over types: p 0.750)" in shown
    assert sign_test(5, 0) == pytest.approx(1 / 32) and sign_test(0, 0) == 1


def test_ways_of_asking_differ_and_none_is_scored_uncalibrated() -> None:
    """By plain scores a small model gives one label to nearly every row."""
    from evaluate import ASKED

    names = [taskfit.parse_strategy(text).name for text in ASKED.values()]
    assert len(set(names)) == len(ASKED) and all("calibrate=batch" in name for name in names if name != "majority")


def test_a_tuned_model_is_clearly_above_random_only_where_intervals_part() -> None:
    """One row for each strategy and size; the model's low end against its twin's high end."""
    from tables import tune_table

    figures = {
        "lora|second|8": INTERVAL,
        "lora|random|8": [0.3, 0.2, 0.35],
        "lora|second|all": INTERVAL,
        "lora|random|all": [0.45, 0.35, 0.45],
    }
    lines = tune_table({"sst2": {"metric": "accuracy", "figures": figures}}).splitlines()
    assert lines[0] == "| data set | metric | strategy | rows | second | random | clearly above random |"
    assert [line.split(" | ")[3] for line in lines[2:]] == ["8", "all"]
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["yes |", "no |"]


def test_every_measured_set_is_held_out_of_the_mixture() -> None:
    """By its type or by its name; and every type that is held out is measured, but for paraphrase (no rows here)."""
    from held_out import TYPES, is_held_out
    from measured_tasks import MEASURED, TUNED

    assert all(is_held_out(name) for name in (*MEASURED, *TUNED))
    assert {one.type for one in MEASURED.values() if one.type} == set(TYPES) - {"paraphrase"}


def test_the_card_says_what_was_measured_and_what_was_not(finished) -> None:  # type: ignore[no-untyped-def]
    """From the reports of the steps."""
    from card import card

    text = card(finished)
    for said in ("# taskfit-tiny", "Not measured.", "CC0-1.0", "Held out of instruction tuning", "| 100 % |"):
        assert said in text


def test_shipping_replaces_the_folders_files_but_not_by_too_large_ones(finished, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Weights over the repository's limit are refused before anything is replaced."""
    import card

    (tmp_path / "config.json").write_text("old")
    monkeypatch.setattr(card, "LARGEST_BYTES", 1000)
    with pytest.raises(ResourceError, match="the repository may hold 0"):
        card.ship(finished, tmp_path)
    assert (tmp_path / "config.json").read_text() == "old"
    monkeypatch.setattr(card, "LARGEST_BYTES", 30e6)
    card.ship(finished, tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json", "CARD.md"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert "old" not in (tmp_path / "config.json").read_text()


def test_a_step_ends_with_2_and_one_line_without_the_data(tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """As a user sees it."""
    import sys

    import corpus
    from places import run_step

    monkeypatch.setattr(
        sys, "argv", ["corpus.py", "--data", str(tmp_path / "none"), "--build", str(tmp_path / "build")]
    )
    with pytest.raises(SystemExit) as ended:
        run_step(corpus.parser_of(), corpus._step)
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith("error: expected the data sets in") and second == "hint: Name their folder with --data."
    shutil.rmtree(tmp_path / "build", ignore_errors=True)
