from __future__ import annotations

import pytest

from taskfit.evaluation.metrics import score
from taskfit.evaluation.outcomes import outcomes
from taskfit.evaluation.paired import mcnemar
from taskfit.inference.requests import Scored
from taskfit.prompting.options import likeliest_option
from taskfit.tasks.task import Option

GOLD = [("long text",), ("short",), ("short",)]
CHOICES = [
    {"raw": "short", "normalised": "long text"},
    {"raw": "short", "normalised": "long text"},
    None,
]


def test_accuracy_is_told_by_both_yardsticks_of_the_same_run() -> None:
    """And by the run's own; a row whose options were not scored counts by its answer."""
    run = outcomes("choice", ["a", "b", "c"], GOLD, ["long text", "short", "short"], choices=CHOICES)
    assert score("accuracy", run) == 1.0
    assert score("accuracy_raw", run) == pytest.approx(2 / 3)
    assert score("accuracy_normalised", run) == pytest.approx(2 / 3)


def test_rows_keep_their_choices_in_any_order_and_when_some_are_dropped() -> None:
    """Outcomes are sorted by row id."""
    run = outcomes("choice", ["c", "b", "a"], GOLD[::-1], ["short", "short", "long text"], choices=CHOICES[::-1])
    assert run.choices is not None
    assert [chosen and chosen["raw"] for chosen in run.choices] == ["short", "short", None]
    assert score("accuracy_normalised", run.only(run.is_parsed & [True, False, False])) == 1.0


def test_a_run_without_scores_has_one_accuracy() -> None:
    """A floor, a generated answer, an answer that is none."""
    run = outcomes("choice", ["a", "b"], GOLD[:2], ["long text", "short"], is_parsed=[True, False])
    assert {score(name, run) for name in ("accuracy", "accuracy_raw", "accuracy_normalised")} == {0.5}
    assert mcnemar(run, run).only_a_right == 0


def test_the_yardsticks_are_the_log_probability_and_that_of_a_byte() -> None:
    """-4 of 5 bytes against -6 of 12; the answer itself goes by what the strategy says."""
    options = [Option("short", "short"), Option("long", "longer text.")]
    found = likeliest_option(options, (-9.0, -1.0), Scored((-4.0, -6.0), (1, 3), 5))
    assert found.choices == {"raw": "short", "normalised": "long"}
    assert found.answer == "long"
    assert likeliest_option(options, (-9.0, -1.0)).choices is None
