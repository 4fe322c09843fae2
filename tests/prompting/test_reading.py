"""Reading answers out of generated text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.prompting.reading import cued, plain_number, read_number, read_option, read_text
from taskfit.tasks.task import Option

COLOURS = [Option("red", "red"), Option("green", "dark green"), Option("blue", "blue")]
NAMES = st.text("abcdefg ", min_size=2, max_size=9).map(str.strip).filter(bool)
LETTERED = [Option("(A)", "a fish"), Option("(B)", "a boat"), Option("(C)", "a net")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("red", "red"),
        (" RED. ", "red"),
        ('"Dark   green"', "green"),
        ("**blue**", "blue"),
        ("(B)", "green"),
        ("B", "green"),
        ("c)", None),  # a small letter without its opening bracket is a word
        ("(c)", "blue"),
        ("Option C: blue", "blue"),
        ("Blue, because the sky is.", "blue"),
        ("I think it is blue", "blue"),
        ("It is not red, it is blue", "blue"),
        ("red or blue", None),
        ("(A) or (B)", None),
        ("A, B", None),
        ("it may be red and it may be blue", None),
        ("(D)", None),
        ("redder", None),
        ("", None),
        ("red is warm and blue is cold. So the answer is blue.", "blue"),
        ("The answer is red. No: the answer is (B).", "green"),
        ("Answer: red\n\nQuestion: what of blue?", "red"),
        (r"\boxed{\text{blue}}", "blue"),
        ("Is it red, is it blue?\nblue", "blue"),
    ],
)
def test_an_option_is_read_by_letter_text_or_only_mention(text, value):
    """From the strictest reading to the loosest; two options named alike are no answer."""
    assert read_option(text, COLOURS) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("(B)", "(B)"), ("B.", "(B)"), ("a net", "(C)"), ("(A) a fish", "(A)"), ("(A) and (B).", None), ("(G)", None)],
)
def test_options_whose_values_are_letters_keep_them(text, value):
    """Values in brackets are matched as values, and their texts count as well."""
    assert read_option(text, LETTERED) == value


def test_letters_go_by_value_where_values_are_letters():
    """Options that do not begin with A: "B" is the value, not the second place."""
    assert read_option("(B)", [Option("B", "boat"), Option("A", "fish")]) == "B"


def test_a_name_inside_a_longer_name_is_not_a_mention():
    """What is about a "card payment" does not mention "card"."""
    options = [Option("card", "card"), Option("payment", "card payment")]
    assert read_option("this is about card payment", options) == "payment"


def test_reasoning_that_breaks_off_has_no_answer():
    """With a cue required, a mention along the way counts for nothing."""
    assert read_option("First we see that it is blue", COLOURS, needs_cue=True) is None
    assert read_number("3 + 4 = 7 and then", needs_cue=True) is None
    assert read_option("So the answer is blue", COLOURS, needs_cue=True) == "blue"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(-(10**9), 10**9), st.sampled_from(["", "$", "€"]), st.sampled_from(["", " dollars", "%", ".", ".00"])
)
def test_a_number_is_read_whatever_stands_around_it(number, before, behind):
    """Separators of thousands, currency in front, units and zeros behind."""
    written = f"{before}{number:,}{behind}" if number >= 0 else f"-{before}{-number:,}{behind}"
    assert read_number(f"There are 5 of 7. The answer is {written}") == str(number)
    assert read_number(f"We get {written}") == str(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9 * 2 = $<<9*2=18>>18 a day\nA: 18", "18"),
        ("#### 1,234", "1234"),
        (r"so \boxed{42} it is, not 7", "42"),
        ("The answer is 5 + 3 = 8 eggs", "8"),
        ("The answer is 18 dollars for 3 days", "18"),
        ("it costs 16-3", "3"),
        ("the answer is −2.50", "-2.5"),
        ("the answer is .75", "0.75"),
        ("the answer is 3/4 of it", "3/4"),
        ("the answer is -0.0", "0"),
        ("Final answer: $1,018.50.", "1018.5"),
        ("v1.2b", None),
        ("no number", None),
        ("The answer is unknown, of 3", "3"),
        (r"so \boxed{\frac{1}{2}}", "1/2"),
        (r"The answer is $-\dfrac{3}{4}$.", "-3/4"),
    ],
)
def test_numbers_as_models_write_them(text, number):
    """The first behind the cue, the one behind an equals sign there, else the last."""
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,250.00", "1250"), ("$5", "5"), ("50%", "50"), (" -3 ", "-3"), ("3 apples", None), ("", None)],
)
def test_a_plain_number_is_nothing_but_a_number(text, number):
    """It tells tasks whose answers are numbers from others."""
    assert plain_number(text) == number


def test_a_short_text_stands_behind_the_last_cue():
    """To the end of its line, without quotes and full stop; nothing without a cue."""
    assert read_text('The answer is wrong. So the answer is "bee wasp".\nNext') == "bee wasp"
    assert read_text("the answer is ] ) }.") == "] ) }"
    assert read_text("the answer is wait...") == "wait..."
    assert read_text("bee wasp") is None
    assert read_text("The answer is") is None
    assert cued("no cue") is None


def test_a_model_that_goes_on_with_questions_of_its_own_has_answered_already():
    """The first line is the answer and nothing else; cues behind it belong to the model's next example."""
    assert read_option("blue\n\nText: grass\nAnswer: dark green", COLOURS) == "blue"
    assert read_number("7.\nQ: and then?\nA: 9") == "7"
    assert read_option("Blue or red?\nAnswer: red", COLOURS) == "red"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text("abcdefg ", min_size=2, max_size=9).map(str.strip).filter(bool), min_size=2, max_size=5, unique=True
    ),
    st.text("hijk .\n", max_size=30),
    st.integers(0, 4),
    st.sampled_from(["So the answer is {}.", "Answer: {}", "**Final answer:** **{}**", "the answer is ({})"]),
)
def test_an_option_behind_a_cue_is_read_whatever_stood_before(names, noise, place, cue):
    """Any names that differ by more than white space."""
    names = list(dict.fromkeys(" ".join(name.split()) for name in names))
    options = [Option(f"value {n}", name) for n, name in enumerate(names)]
    chosen = options[place % len(options)]
    assert read_option(f"{noise}\n{cue.format(chosen.text)}", options, needs_cue=True) == chosen.value


STARS = [Option("1", "0"), Option("2", "1"), Option("3", "2")]
COUNTRIES = [Option("us", "us"), Option("US", "US"), Option("uk", "uk")]


@pytest.mark.parametrize("text", ["1", "1.", "The answer is 1.", "I would say 1", "Answer: (1)"])
def test_an_option_is_read_by_its_text_before_another_ones_value(text):
    """The prompt asks for texts: where labels count from 1 and their texts from 0, "1" is the second."""
    assert read_option(text, STARS) == "2"
    assert read_option("3", STARS) == "3"  # no text says so: the value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("US", "US"),
        ("us", "us"),
        ("The answer is US.", "US"),
        ("the answer is us", "us"),
        ("Us", None),
        ("UK", "uk"),
        ("it may be Us there", None),
    ],
)
def test_case_counts_where_only_it_tells_two_options_apart(text, value):
    """Else an answer would go to the first of the two; where the case is neither's, it is unclear."""
    assert read_option(text, COUNTRIES) == value
