"""``--tries``, ``--tuning-budget`` and ``taskfit inspect``, as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskfit.errors import ConfigError
from taskfit.strategy.manifest import read_manifest
from taskfit.studies.budget import seconds_of
from taskfit.testing import tiny_decoder
from tests.cli.conftest import Taskfit


def test_fit_with_tries_saves_what_was_found_and_every_try(taskfit: Taskfit, topics: Path) -> None:
    """The folder says what was searched, and what the search bought."""
    ran = taskfit("fit", topics, "--strategy", "linear", "--out", "mine", "--tries", 3)
    assert ran.code == 0, ran.err
    assert "search over 3 tries" in ran.err
    manifest = read_manifest(Path("mine"))
    assert manifest.strategy == "tune(strategy=linear, tries=3)"
    assert manifest.search is not None
    assert len(manifest.search["tries"]) == 3
    assert not Path("mine.scratch").exists()


def test_compare_with_tries_searches_what_can_be_searched(taskfit: Taskfit, topics: Path) -> None:
    """The floor has nothing to search and stays; the report tells what the search bought."""
    ran = taskfit("compare", topics, "--strategies", "majority,linear", "--out", "study", "--seeds", 1, "--tries", 2)
    assert ran.code == 0, ran.err
    assert "tune(strategy=linear, tries=2)" in ran.out
    assert "tune(strategy=majority" not in ran.out
    assert "search over 2 tries" in Path("study/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tries", 0), "tries must be between 1 and 64"),
        (("--tries", 4, "--tuning-budget", "1m"), "give tries or seconds, not both"),
        (("--tuning-budget", "soon"), "a time is a number above 0 with s, m or h behind it (got 'soon')"),
        (("--tuning-budget", "0s"), "a time is a number above 0"),
    ],
)
def test_wrong_budgets_are_told_in_one_line(taskfit: Taskfit, topics: Path, words: tuple[object], message: str) -> None:
    """Exit code 2, and nothing is written."""
    ran = taskfit("fit", topics, "--strategy", "linear", "--out", "mine", *words)
    assert ran.code == 2
    assert message in ran.error_line
    assert not Path("mine").exists()


def test_times_are_read_with_their_unit() -> None:
    """Seconds, minutes, hours."""
    assert [seconds_of(text) for text in ("90s", "10m", " 1.5 h ")] == [90.0, 600.0, 5400.0]
    for text in ("10", "-1m", "1d", "", "١m"):
        with pytest.raises(ConfigError, match="a time is a number"):
            seconds_of(text)


def test_inspect_tells_pictures_and_prints_json(taskfit: Taskfit, topics: Path) -> None:
    """Tables on standard output, a page that needs no network, and every tensor as JSON."""
    tiny_decoder(Path("model"))
    lora = "lora(rank=2, epochs=1, min_steps=2, batch=4)"
    assert taskfit("fit", topics, "--strategy", lora, "--model", "model", "--out", "mine", "--train-rows", 8).code == 0
    ran = taskfit("inspect", "mine", "--out", "inside.html")
    assert ran.code == 0, ran.err
    assert "of rank 2 the updates use" in ran.out
    assert "model.layers.1" in ran.out
    page = Path("inside.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "http://" not in page and "src=" not in page and "<script" not in page
    values = json.loads(taskfit("inspect", "mine", "--json").out)
    assert len(values["updates"]) == 14
    assert values["updates"][0]["rank"] == 2


def test_inspect_shows_the_tokens_that_vectors_are_near_to(taskfit: Taskfit, topics: Path) -> None:
    """A table of cosines as a picture; texts of tokens are escaped on the page."""
    tiny_decoder(Path("model"))
    name = "prompt-tuning(tokens=3, epochs=1, min_steps=2, batch=4)"
    assert taskfit("fit", topics, "--strategy", name, "--model", "model", "--out", "mine", "--train-rows", 8).code == 0
    ran = taskfit("inspect", "mine", "--out", "inside.html")
    assert "the nearest tokens of the vectors cluster" in ran.out
    assert "Vectors and their nearest tokens" in ran.out
    assert "The vectors among themselves" in Path("inside.html").read_text(encoding="utf-8")


def test_inspect_refuses_what_trained_no_weights(taskfit: Taskfit, topics: Path) -> None:
    """One line, exit code 2."""
    assert taskfit("fit", topics, "--strategy", "linear", "--out", "mine").code == 0
    ran = taskfit("inspect", "mine")
    assert ran.code == 2
    assert "trains no weights of a language model" in ran.error_line
