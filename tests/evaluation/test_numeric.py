from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.evaluation.metrics import notes, per_row
from taskfit.evaluation.numeric import last_number
from taskfit.evaluation.outcomes import outcomes
from tests.evaluation.build import generated


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("60%", 60.0),
        ("That makes $1,234.50.", 1234.5),
        ("1.234,56 €", 1234.56),
        ("1,5", 1.5),
        ("1,500", 1500.0),
        ("0,500", 0.5),
        ("1.500", 1.5),
        ("1.234.567", 1234567.0),
        ("1 234 567", 1234567.0),
        ("1\u202f234", 1234.0),
        ("1'234", 1234.0),
        ("4 apples and 300 pears", 300.0),
        ("it is -3", -3.0),
        ("it is −3", -3.0),
        ("-$5", -5.0),
        ("pages 3-4", 4.0),
        ("5 - 3", 3.0),
        ("x = -.5", -0.5),
        ("3/4", 0.75),
        ("1 3/4 cups", 1.75),
        ("-1 1/2", -1.5),
        (r"\boxed{\frac{3}{4}}", 0.75),
        ("1.5e3 m", 1500.0),
        ("12/05/2024", 12.0),
        ("7 of them, then 3/0", 7.0),
        ("#### 1,200", 1200.0),
        ("3.", 3.0),
        ("H2O and v3", None),
        ("1,23,456", None),
        ("9" * 400, None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    """The rules of the docstring, by hand."""
    assert last_number(text) == (None if number is None else pytest.approx(number))


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:d}", "{:,d}", "so it is {:d} km", "= {:_d}."]))
def test_any_whole_number_is_read_back(number: int, form: str) -> None:
    """However its digits are grouped."""
    assert last_number(form.format(number)) == number


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e9, 1e9).map(lambda value: round(value, 4)))
def test_any_decimal_number_is_read_back(number: float) -> None:
    """With a point, grouped or not."""
    assert last_number(f"{number:.4f} units") == pytest.approx(number, abs=1e-9)
    assert last_number(f"{number:,.4f} units") == pytest.approx(number, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789,. -−$%/eE'\\frac{}x", max_size=60))
def test_no_text_is_an_error(text: str) -> None:
    """Whatever a model writes."""
    found = last_number(text)
    assert found is None or found == found  # a number is never NaN


def test_long_texts_are_read_in_linear_time() -> None:
    """Digits and separators by the ten thousand, which a careless pattern would try in all ways."""
    assert last_number("1," * 50_000 + "5") is None
    assert last_number("1 " * 50_000) == 1.0


def test_answers_match_by_their_number() -> None:
    """Apart by a millionth at most; best of several; texts where the right answer has no number."""
    golds = [["42"], ["3.14"], ["1/3"], ["7", "8"], ["none"], ["5"]]
    answers = ["so it is 42.0 km", "3.15", "0.33333333", "8", "None.", "five"]
    found = generated(golds, answers)
    assert per_row("numeric_match", found).tolist() == [1, 0, 1, 1, 1, 0]
    assert notes("numeric_match", found) == [
        "1 of 6 right answers hold no number; there numeric_match compares the texts"
    ]
    unparsed = outcomes("generation", ["a"], [("4",)], ["4"], is_parsed=[False])
    assert per_row("numeric_match", unparsed).tolist() == [0]
    assert len(notes("numeric_match", unparsed)) == 1
