"""Step 1: what gets into the corpus, and what must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import DataError, ResourceError
from tests.recipes.conftest import RECIPE
from tests.recipes.tiny_data import LEAKED


def _texts(places, name: str = "corpus") -> list[dict[str, str]]:  # type: ignore[no-untyped-def]
    from places import read_lines

    return list(read_lines(places.build / f"{name}.jsonl"))


def test_evaluation_text_is_cut_out_and_the_rest_of_its_document_stays(made) -> None:  # type: ignore[no-untyped-def]
    """The paragraph goes; what stood before and behind it are two documents."""
    from taskfit.evaluation.leaks import words_of

    rows = _texts(made)
    assert all(" ".join(words_of(LEAKED)) not in " ".join(words_of(row["text"])) for row in rows)
    assert len([row for row in rows if row["source"] == "rust-lang/book leaked"]) == 2
    assert made.built("corpus.json", "")["characters_dropped"]["evaluation text"] > 0


def test_no_training_text_shares_13_words_with_any_evaluation_row(made) -> None:  # type: ignore[no-untyped-def]
    """Judged by the library's own search for leaks, which compares words and not hashes."""
    from evaluation_text import evaluation_files
    from places import read_lines

    from taskfit.evaluation.leaks import find_leaks

    test = {
        f"{path}/{at}": " ".join(str(value) for value in row.values())
        for path in evaluation_files(made.data)
        for at, row in enumerate(read_lines(path))
    }
    report = find_leaks(test, ((row["source"], row["text"]) for row in _texts(made)))
    assert report.counts["13-gram"] == 0


def test_near_copies_and_repeats_of_held_out_text_are_dropped(made) -> None:  # type: ignore[no-untyped-def]
    """The first of two similar documents stays; a held-out document always comes first."""
    sources = {row["source"] for row in _texts(made)}
    assert "18F/handbook copy" not in sources
    assert "18F/handbook again" not in sources
    assert "18F/handbook held" in {row["source"] for row in _texts(made, "heldout")}


def test_every_kind_has_training_text_and_counts_add_up(made) -> None:  # type: ignore[no-untyped-def]
    """The report's figures are those of the files."""
    from sources import KINDS

    rows, report = _texts(made), made.built("corpus.json", "")
    assert {row["kind"] for row in rows} == set(KINDS)
    assert report["characters"] == sum(len(row["text"]) for row in rows)
    assert sum(report["characters_by_licence"].values()) == report["characters"]


def test_building_again_gives_the_same_bytes(made, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Order is drawn from a seed, whatever has been made before."""
    from corpus import build
    from places import Places

    build(Places(made.data, tmp_path))
    assert (tmp_path / "corpus.jsonl").read_bytes() == (made.build / "corpus.jsonl").read_bytes()


def test_a_killed_build_goes_on_and_ends_the_same(made, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A real kill -9 as soon as the first part is there."""
    import corpus
    from places import Places

    monkeypatch.setattr(corpus, "PART_DOCUMENTS", 5)
    code = "import corpus, sys; corpus.PART_DOCUMENTS = 5; corpus.run_step(corpus.parser_of(), corpus._step)"
    command = [sys.executable, "-c", code, "--data", str(made.data), "--build", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{RECIPE}{os.pathsep}{RECIPE.parents[1]}"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "corpus-parts" / "0001.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus-parts").glob("*.jsonl")}
    corpus.build(Places(made.data, tmp_path))
    assert before and all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert (tmp_path / "heldout.jsonl").read_bytes() == (made.build / "heldout.jsonl").read_bytes()
    own, whole = ({row["text"] for row in _texts(Places(made.data, folder))} for folder in (tmp_path, made.build))
    assert own == whole


def test_other_settings_start_anew(made, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Parts of a trial on a share of the documents are not taken for the whole."""
    from corpus import build
    from places import Places

    places = Places(made.data, tmp_path)
    small = build(places, share=0.4)
    assert small["documents"] < build(places)["documents"]  # type: ignore[operator]


def test_missing_data_is_told_with_the_folder(tmp_path: Path) -> None:
    """No data folder, no set in it, no split in the set."""
    from corpus import build
    from places import Places

    with pytest.raises(DataError, match="which is no folder"):
        build(Places(tmp_path / "none", tmp_path / "build"))
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    with pytest.raises(DataError, match="no split for evaluation"):
        build(Places(tmp_path / "data", tmp_path / "build"))
    (tmp_path / "data" / "sst2" / "test.jsonl").write_text('{"sentence": "a"}\n')
    with pytest.raises(DataError, match="'plain_text'"):
        build(Places(tmp_path / "data", tmp_path / "build"))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    """File and line number."""
    from places import read_lines

    path = tmp_path / "train.jsonl"
    path.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(DataError, match="line 2: expected a JSON object, got list"):
        list(read_lines(path))
    path.write_text("{\n")
    with pytest.raises(DataError, match="line 1: no JSON"):
        list(read_lines(path))


def test_too_little_room_is_told_before_anything_is_read(made, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Disk and memory; the need is said first in both cases."""
    import places as module
    from corpus import build
    from places import Places

    monkeypatch.setattr(module, "_free_memory", lambda: 10**6)
    with pytest.raises(ResourceError, match=r"of memory, 0\.0 GB are free"):
        build(Places(made.data, tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**6}))
    with pytest.raises(ResourceError, match="of disk in"):
        build(Places(made.data, tmp_path))
    assert not (tmp_path / "corpus-parts").exists()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three"]), max_size=40), st.integers(1, 13))
def test_run_hashes_are_equal_just_where_the_words_are(words: list[str], length: int) -> None:
    """Against comparing the words themselves."""
    from text_hashes import WordHashes, run_hashes

    found = run_hashes(WordHashes().of(" ".join(words)), length)
    runs = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
    assert len(found) == len(runs)
    assert len(set(found.tolist())) == len(set(runs))
    assert Counter(Counter(found.tolist()).values()) == Counter(Counter(runs).values())


def test_signatures_estimate_the_share_of_runs_in_common() -> None:
    """Against the exact share: 64 values have a standard error of at most 0.0625."""
    from text_hashes import signature

    rng = np.random.default_rng(1)  # not the seed that the hash functions are drawn from
    everything = rng.integers(1, 2**63, 4000, dtype=np.uint64)
    for common in (500, 1500, 1900):
        one, other = everything[:2000], np.concatenate([everything[:common], everything[2000 : 4000 - common]])
        exact = common / (4000 - common)
        assert abs((signature(one) == signature(other)).mean() - exact) < 4 * 0.0625


def test_paragraphs_are_cleaned_and_tables_left_out() -> None:
    """Spaces, control characters and rules of signs go; verse keeps its lines."""
    from cleaning import pieces_of
    from evaluation_text import EvaluationText
    from text_hashes import WordHashes

    nothing = EvaluationText(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64))
    verse = "\n".join(
        f"a line of verse\u00a0 that is   number {word}" for word in ("one", "two", "three", "four", "five")
    )
    dropped: Counter[str] = Counter()
    text = f"{verse}\r\n\r\n-----\n\n12 | 34 | 56 | 78\n\nAnd a last\x07 paragraph of the same text, \ufeffwith words."
    (piece,) = pieces_of(text, nothing, WordHashes(), dropped)
    assert piece.paragraphs[0].splitlines()[1] == "a line of verse that is number two"
    assert piece.paragraphs[1:] == ("And a last paragraph of the same text, with words.",)
    assert dropped["not prose"] == len("12 | 34 | 56 | 78")
