"""Names of strategies: parsing, canonical form, errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, Faults
from taskfit.strategy import table
from taskfit.strategy.composed import Composed, default_program
from taskfit.strategy.contract import Strategy, StrategyEntry
from taskfit.strategy.grammar import full_name, parse, part_name
from taskfit.strategy.parameters import check_types, format_value, parameters_of
from taskfit.strategy.syntax import Part, Sum, parse_text


@dataclass(frozen=True)
class Knobs:
    """A stranger's whole strategy with a parameter of every type."""

    teacher: Strategy
    count: int = 3
    rate: float = 0.5
    title: str = "plain"
    is_loud: bool = False
    mode: Literal["fast", "slow"] = "fast"
    limit: float | None = None

    def __post_init__(self) -> None:
        faults = Faults("knobs")
        check_types(self, faults)
        if isinstance(self.count, int) and self.count < 0:
            faults.add(f"count must be at least 0 (got {self.count})")
        faults.raise_as(ConfigError)

    architectures = frozenset()
    kinds = frozenset({"generation"})

    @property
    def name(self) -> str:
        return part_name(self)

    def fit(self, model, task, *, seed, budget):
        raise NotImplementedError

    def restore(self, model, folder, manifest):
        raise NotImplementedError


@dataclass(frozen=True)
class Nudge:
    """A stranger's change of weights."""

    size: float = 0.1
    architectures = frozenset({"decoder"})

    def change(self, model, task, program, *, seed, budget):
        raise NotImplementedError

    def save(self, model, folder):
        raise NotImplementedError

    def load(self, model, folder):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _two_more_rows(monkeypatch):
    rows = {
        "knobs": StrategyEntry(f"{__name__}:Knobs", "whole", "knobs"),
        "nudge": StrategyEntry(f"{__name__}:Nudge", "weights", "nudge"),
    }
    monkeypatch.setattr(table, "STRATEGIES", table.STRATEGIES | rows)


_shots = st.builds(
    lambda k, select, normalise: parse(f"few-shot(k={k}, select={select}, normalise={normalise})"),
    st.integers(1, 99),
    st.sampled_from(["balanced", "random"]),
    st.sampled_from(["auto", "sum", "mean"]),
)
_simple = st.one_of(
    st.sampled_from(["zero-shot", "majority", "linear", "zero-shot(wording=2)"]).map(parse),
    _shots,
    st.builds(
        Composed, st.builds(Nudge, st.floats(allow_nan=False, allow_infinity=False)), _shots.map(lambda s: s.program)
    ),
    st.builds(lambda size: Composed(Nudge(size), default_program()), st.floats(0, 1)),
)
_any_text = st.text(max_size=12) | st.sampled_from(
    ["true", "none", "8", "1e5", "-1", "a b", 'a"b', "a\\b", "it's", "\ud800"]
)
_strategies = st.recursive(
    _simple,
    lambda inner: st.builds(
        Knobs,
        teacher=inner,
        count=st.integers(0, 10**30),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        title=_any_text,
        is_loud=st.booleans(),
        mode=st.sampled_from(["fast", "slow"]),
        limit=st.none() | st.floats(-1e9, 1e9),
    ),
    max_leaves=3,
)


@settings(max_examples=200, deadline=None)
@given(_strategies)
def test_every_name_parses_back_to_an_equal_strategy(strategy):
    """The canonical name and the name in full both mean the strategy they came from."""
    assert parse(strategy.name) == strategy
    assert parse(full_name(strategy)) == strategy
    assert parse(strategy.name).name == strategy.name


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="lorafewsht-(),=+ \"'k12.e\\\n", max_size=40))
def test_any_text_is_a_strategy_or_a_config_error(text):
    """No text from outside raises anything else."""
    try:
        assert parse(text).name
    except ConfigError as error:
        assert error.message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" few-shot ( k=2 , select = random )", "few-shot(k=2, select=random)"),
        ("few-shot(select=random, k=2)", "few-shot(k=2, select=random)"),
        ("few-shot(k=4)", "few-shot"),
        ("few-shot()", "few-shot"),
        ("nudge+zero-shot", "nudge"),
        ("few-shot(k=1)+nudge(size=1)", "nudge(size=1.0)+few-shot(k=1)"),
        ("knobs(teacher=nudge+few-shot, rate=1e-4)", "knobs(teacher=nudge+few-shot, rate=0.0001)"),
        ("knobs(teacher=linear, title='two words')", 'knobs(teacher=linear, title="two words")'),
        ("knobs(teacher=linear, is_loud=true, limit=none)", "knobs(teacher=linear, is_loud=true)"),
        ("knobs(teacher=linear, rate=1e+5)", "knobs(teacher=linear, rate=100000.0)"),
    ],
)
def test_names_have_one_canonical_form(text, name):
    """Only parameters that differ from their defaults are shown, in field order; weights come before the program."""
    assert parse(text).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("few-shott", "did you mean 'few-shot'"),
        ("few-shot(kk=3)", "unknown parameter 'kk' (did you mean 'k'?); it takes k, select, wording, normalise"),
        ("majority(k=3)", "it takes none"),
        ("few-shot(8)", "write few-shot(k=8)"),
        ("few-shot(random)", "write few-shot(select=random)"),
        ("few-shot(0.5)", "parameters are given by name (got 0.5); it takes k, select"),
        ("few-shot(k=2, k=3)", "k is given twice"),
        ("few-shot(k=0)", "k must be at least 1 (got 0)"),
        ("few-shot(k=2.0)", "k must be a whole number (got 2.0)"),
        ("few-shot(k=true)", "k must be a whole number (got true)"),
        ("few-shot(select=best)", "select must be one of balanced, diverse, random, similar (got best)"),
        ("zero-shot(wording=few-shot(k=2))", "wording must be a whole number (got few-shot(k=2))"),
        ("zero-shot(wording=few-shot+linear)", "got few-shot+linear"),
        ("zero-shot+few-shot", "zero-shot and few-shot are both prompting programs"),
        ("nudge+nudge(size=2)", "nudge and nudge are both changes of weights"),
        ("nudge+majority", "majority stands alone"),
        ("knobs", "teacher must be given: knobs(teacher=...)"),
        ("knobs(teacher=3)", "teacher must be a strategy (got 3)"),
        ("knobs(teacher=linear, limit=low)", "limit must be a number or none (got low)"),
        ("knobs(teacher=linear, rate=1e999)", "rate must be a number (got inf)"),
        ("knobs(teacher=linear, is_loud=1)", "is_loud must be true or false (got 1)"),
        ("knobs(teacher=linear, title=7)", "title must be a text (got 7)"),
        ("", "expected a strategy's name"),
        ("lora(", "the text ends"),
        ("few-shot(k=)", "expected a value at character 12 (got ')')"),
        ("few-shot(k=2", "expected ',' or ')'"),
        ("few-shot k", "expected the end, or '+'"),
        ("few-shot(k=2) {", "cannot read '{' at character 15"),
        ('knobs(title="\\q")', "quoted text with JSON's escapes"),
        ("a" * 5000, "at most 4000 characters"),
        ("knobs(teacher=" * 12 + "linear" + ")" * 12, "nested 8 deep"),
    ],
)
def test_a_wrong_name_says_what_was_expected(text, message):
    """Every mistake is a ConfigError that holds what to write instead."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_faults_of_one_part_come_together():
    """A value of the wrong type, an unknown parameter and one out of range are one error."""
    with pytest.raises(ConfigError) as caught:
        parse("few-shot(k=0, select=best, words=1)")
    assert all(said in caught.value.message for said in ("k must be at least 1", "select must be", "'words'"))


def test_nested_strategies_parse_to_a_tree_before_any_table_is_read():
    """The tree of an unknown name is there; only building it needs the table."""
    tree = parse_text("distil(teacher=few-shot(k=4), student=minilm)+x")
    teacher = Part("few-shot", (("k", 4),), has_parentheses=True)
    distil = Part("distil", (("teacher", teacher), ("student", Part("minilm"))), has_parentheses=True)
    assert tree == Sum((distil, Part("x")))


def test_classes_check_the_types_of_what_python_gives_them():
    """A truth value is no number, and a text is none either."""
    with pytest.raises(ConfigError, match="count must be a whole number"):
        Knobs(parse("linear"), count=True)
    with pytest.raises(ConfigError, match="rate must be a number"):
        Knobs(parse("linear"), rate="much")
    assert Knobs(parse("linear"), rate=math.pi).rate == math.pi


def test_a_part_must_be_a_dataclass_of_plain_values():
    """Its fields are its parameters, and every value must have a text."""
    with pytest.raises(ConfigError, match="must be a dataclass"):
        parameters_of(int)
    with pytest.raises(ConfigError, match="a parameter cannot be a dict"):
        format_value({})
    with pytest.raises(ConfigError, match="count must be a whole number"):
        check_types(SimpleKnob(count="3"))
    check_types(SimpleKnob(count=3))


@dataclass(frozen=True)
class SimpleKnob:
    """Checks nothing itself."""

    count: int


def test_a_composition_works_where_all_its_parts_work():
    """Programs need a model that generates, or fills masks where they only score; a change of weights narrows that."""
    assert parse("few-shot").architectures == {"decoder", "encoder", "encoder-decoder", "service"}
    assert parse("nudge+few-shot").architectures == {"decoder"}
    assert parse("nudge").kinds == {"classification", "choice", "generation"}


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("cascade(student=linear, teacher=few-shot)", "teacher=few-shot(k=4, "),
        ("encoder(tune=lora)", "tune=lora("),
        ("tune(strategy=encoder(tune=lora), tries=8)", "tune=lora("),
        ("continued-pretraining+encoder", "pretraining=continued-pretraining("),
        ("distil(student=linear, teacher=chain-of-thought)", "teacher=chain-of-thought(k=0, "),
    ],
)
def test_the_full_name_spells_out_strategies_within_a_strategy(text, inner):
    """A later default of a part would otherwise change what an old name of the whole means."""
    strategy = parse(text)
    full = full_name(strategy)
    assert inner in full
    assert parse(full) == strategy
    assert full_name(parse(full)) == full
