"""Templates render what they say, or say why not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import TaskError
from taskfit.tasks.template import check_template, evaluate, field_source, fields_read, names_in, plain_source, render


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab{}%# \n'\"\\-raw"), max_size=30))
def test_plain_source_renders_to_the_text_itself(text: str) -> None:
    """Whatever braces an instruction holds, the model reads them as they are."""
    assert render(plain_source(text), {}) == text


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=12).filter(lambda name: "{{" not in name and "{%" not in name))
def test_every_field_name_can_be_named_bare(name: str) -> None:
    """Names with spaces, quotes, accents or words of Jinja2 work like any other."""
    assert render(field_source(name), {name: "value", "row": {name: "value"}}) == "value"


def test_a_missing_field_is_named_with_the_fields_that_exist() -> None:
    """The message leads to the right name."""
    with pytest.raises(
        TaskError, match=r"'sentense', which is no field \(did you mean 'sentence'\?\); fields: label, sen"
    ):
        render("{{ sentense }}", {"sentence": "a", "label": "b"})


def test_none_renders_as_nothing() -> None:
    """A null is no word 'None'."""
    assert render("[{{ a }}]", {"a": None}) == "[]"


def test_a_function_where_a_field_was_meant_is_refused() -> None:
    """A missing field called like a function of templates does not print the function."""
    with pytest.raises(TaskError, match="is a function of templates, not a field"):
        render("{{ zip }}", {"text": "a"})
    assert render("{{ zip }}", {"zip": "10115"}) == "10115"


def test_a_mapping_is_not_printed() -> None:
    """Braces and quotes of Python in a prompt are a mistake; its values and lists are printed."""
    with pytest.raises(TaskError, match="mapping"):
        render("{{ question }}", {"question": {"stem": "why"}})
    assert render("{{ question.stem }} {{ a }}", {"question": {"stem": "why"}, "a": [1]}) == "why [1]"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["a", "none", "zip", "_b"]), st.text(max_size=20) | st.integers() | st.booleans() | st.none())
def test_the_short_way_for_one_field_gives_what_jinja2_gives(name: str, value: object) -> None:
    """A comment in the template takes the long way."""
    values = {name: value, "none": "not this"}
    assert render(f"{{{{ {name} }}}}", values) == render(f"{{# #}}{{{{ {name} }}}}", values)


def test_trailing_newlines_stay() -> None:
    """Rendering changes nothing that the template says."""
    assert render("a\n\n", {}) == "a\n\n"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ row.__init__.__globals__ }}",
        "{{ a.append(1) }}",
        "{{ 'x' * 100000000 }}",
        "{{ 100000000 * 'x' }}",
        "{{ 10 ** 10000 }}",
        "{{ '%99999999d' % 1 }}",
        "{{ '%99999999d' | format(1) }}",
        "{{ 'x'.ljust(100000000) }}",
        "{{ '{:>99999999}'.format(1) }}",
        "{{ 'x' | center(100000000) }}",
        "{{ lipsum(n=100000) }}",
        "{{ [1] | batch(30000000, 0) | list }}",
        "{{ [1] | slice(30000000) | list }}",
        "{{ 'a b' | wordwrap(1, wrapstring='y' * 9000000) }}",
        "{{ (1).to_bytes(30000000, 'big') }}",
        "{{ 'a'.encode() * 30000000 }}",
        "{{ {'a': 1} | tojson(indent=30000000) }}",
        "{{ 1.5 | round(1000000000, 'ceil') }}",
        "{{ range(1000) | join('x' * 100000) }}",
        "{{ ('x' * 100000).join(range(1000) | map('string')) }}",
        "{{ ('a' * 100000) | replace('a', 'b' * 1000) }}",
        "{{ ('a' * 100000).replace('', 'b' * 1000) }}",
        "{{ (['a' * 100000] * 1000) | join }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ a[7] }}",
        "{{ 1 / 0 }}",
    ],
)
def test_escapes_and_bombs_are_task_errors(source: str) -> None:
    """A template from somewhere cannot reach Python or fill the memory."""
    with pytest.raises(TaskError):
        render(source, {"a": [1], "row": {"a": [1]}})


def test_sane_arithmetic_is_allowed() -> None:
    """The guards against bombs leave ordinary templates alone."""
    assert render("{{ '-' * 3 }} {{ 2 ** 3 }} {{ 7 % 4 }} {{ '%03d' % 7 }} {{ '%s-%s' | format(1, 2) }}", {}) == (
        "--- 8 3 007 1-2"
    )


def test_ordinary_joins_and_replacements_give_what_python_gives() -> None:
    """A length is looked at before, and nothing else changes."""
    source = (
        "{{ a | join(', ') }}|{{ ', '.join(a) }}|{{ rows | join('-', attribute='n.m') }}|"
        "{{ 'aXbX' | replace('X', '', 1) }}|"
        "{{ 'aXbX'.replace('X', 'yy', 1) }}|{{ 2.345 | round(2) }}|{{ 2.5 | round(method='floor') }}"
        "|{{ {'a': [1]} | tojson }}|{{ [1] | tojson(indent=1) }}|{{ [] | join(',') }}|{{ 5 | replace(5, 6) }}"
    )
    expected = "x, y|x, y|1-2|abX|ayybX|2.35|2.0|" + '{"a": [1]}|[\n 1\n]||6'
    assert render(source, {"a": ["x", "y"], "rows": [{"n": {"m": 1}}, {"n": {"m": 2}}]}) == expected


def test_output_beyond_ten_million_characters_is_refused() -> None:
    """Output is counted while it is made."""
    with pytest.raises(TaskError, match="gives more than 10000000 characters"):
        render("{% for i in range(100) %}{{ text }}{% endfor %}", {"text": "x" * 200_000})


def test_a_text_of_one_megabyte_renders_whole() -> None:
    """Long documents are ordinary."""
    text = "word " * 200_000
    assert render("{{ text }}", {"text": text}) == text


@pytest.mark.parametrize("source", ["{{ a", "{% if a %}", "{{ a | nofilter }}", "{{ %}", "x" * 200_000])
def test_what_is_no_template_is_a_task_error(source: str) -> None:
    """Broken templates are found before any row is rendered."""
    with pytest.raises(TaskError):
        check_template(source)
    with pytest.raises(TaskError):
        names_in(source) and render(source, {})


def test_choice_depends_on_the_row_alone() -> None:
    """Promptsource's `choice` gives one row the same item in every run, and different rows different items."""
    items = [render("{{ ['a', 'b', 'c'] | choice }}", {"row": {"n": n}}) for n in range(30)]
    assert items == [render("{{ ['a', 'b', 'c'] | choice }}", {"row": {"n": n}}) for n in range(30)]
    assert set(items) == {"a", "b", "c"}


def test_most_frequent_keeps_ties_in_order() -> None:
    """Promptsource's filter gives all of the most frequent items."""
    assert render("{{ ['b', 'a', 'b', 'a', 'c'] | most_frequent | join(',') }}", {}) == "b,a"


def test_evaluate_gives_the_value_of_one_expression_and_else_the_text() -> None:
    """Lists stay lists; generators become lists; text stays text."""
    values = {"a": [1, 2], "b": "x"}
    assert evaluate("{{ a }}", values) == [1, 2]
    assert evaluate("{{ a | map('string') }}", values) == ["1", "2"]
    assert evaluate("{{ {'k': {'l': 1}} }}", values) == {"k": {"l": 1}}
    assert evaluate("{{ b }} ||| {{ b }}", values) == "x ||| x"
    for source in ("{{ c }}", "{{ a.nothing.more }}"):
        with pytest.raises(TaskError):
            evaluate(source, values)


def test_names_in_lists_the_fields_a_template_needs() -> None:
    """Local names and our own are no fields."""
    assert names_in("{% set x = a %}{{ x }} {{ b.c }} {{ row['d'] }} {{ answer_choices }}") == {"a", "b"}


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        (field_source("Customer query"), {"Customer query"}),
        ("{{ a }} {{ row.b }} {{ row['c d'] }}", {"a", "b", "c d"}),
        ("{{ row | length }}", None),
        ("{% for name in row %}{{ name }}{% endfor %}", None),
        ("{% for name, value in row.items() %}{{ value }}{% endfor %}", None),
        ("{{ row[a] }}", None),
        ("{{ ['x', 'y'] | choice }} {{ a }}", None),
    ],
)
def test_fields_read_are_those_that_decide_the_text(source: str, fields: set[str] | None) -> None:
    """A field that is taken from `row` counts; where the row is read as a whole, any field may decide."""
    assert fields_read(source) == fields
