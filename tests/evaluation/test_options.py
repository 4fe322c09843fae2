from __future__ import annotations

import pytest

from taskfit.errors import DataError
from taskfit.evaluation.metrics import score
from taskfit.evaluation.options import chosen_by_score
from taskfit.evaluation.outcomes import outcomes
from taskfit.evaluation.paired import mcnemar

RUN = outcomes("choice", ["a", "b"], [("long",), ("short",)], ["short", "short"], is_parsed=[True, False])
SCORES = {"a": {"short": -4.0, "long": -6.0}, "b": {"short": -2.0, "long": -9.0}}
LENGTHS = {"a": {"short": 2, "long": 12}, "b": {"short": 2, "long": 3}}


def test_the_raw_choice_is_the_likeliest_whole_option() -> None:
    """It prefers short options."""
    raw = chosen_by_score(RUN, SCORES)
    assert raw.answers == ("short", "short")
    assert score("accuracy", raw) == 0.5


def test_dividing_by_length_can_turn_the_choice() -> None:
    """Per unit: -2 against -0.5 in row a, -1 against -3 in row b; and the two ways can be paired."""
    raw, even = chosen_by_score(RUN, SCORES), chosen_by_score(RUN, SCORES, LENGTHS)
    assert even.answers == ("long", "short")
    assert (score("accuracy", even), score("accuracy", RUN)) == (1.0, 0.0)
    assert mcnemar(even, raw).only_a_right == 1


def test_equal_options_go_to_the_first() -> None:
    """As everywhere."""
    assert chosen_by_score(RUN, {"a": {"x": -1.0, "y": -1.0}, "b": {"y": -1.0, "x": -1.0}}).answers == ("x", "y")


def test_missing_scores_and_lengths_are_refused() -> None:
    """With the row's name."""
    for scores, lengths in (
        ({"a": SCORES["a"]}, None),
        ({**SCORES, "b": {"short": float("nan")}}, None),
        (SCORES, {"a": LENGTHS["a"], "b": {"short": 0, "long": 3}}),
        (SCORES, {"a": LENGTHS["a"]}),
    ):
        with pytest.raises(DataError, match="row 'b'"):
            chosen_by_score(RUN, scores, lengths)
