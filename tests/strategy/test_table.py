"""The strategy table and the entry points of other packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from taskfit.errors import ConfigError
from taskfit.strategy import table
from taskfit.strategy.describe import describe_strategies
from taskfit.strategy.grammar import parse


@dataclass(frozen=True)
class Shout:
    """Ask in capitals.

    More words.
    """

    volume: int = 1

    def prepare(self, task, *, seed):
        raise NotImplementedError


class Nothing:
    """Has no method of a strategy."""


@pytest.fixture
def install(monkeypatch):
    """Return a function that pretends a package with these entry points is installed."""

    def pretend(**entries: str) -> None:
        found = [EntryPoint(name, value, table.GROUP) for name, value in entries.items()]
        monkeypatch.setattr(table, "entry_points", lambda group: found if group == table.GROUP else [])
        table._strangers.cache_clear()

    yield pretend
    monkeypatch.undo()
    table._strangers.cache_clear()


def test_another_package_adds_a_strategy_through_an_entry_point(install):
    """Its class is found by name, composes like ours, and its row is read from the class."""
    install(shout=f"{__name__}:Shout")
    assert parse("shout(volume=3)").name == "shout(volume=3)"
    assert table.strategy_names()[-1] == "shout"
    entry = table.strategy_entry("shout")
    assert (entry.part, entry.summary) == ("program", "Ask in capitals.")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package:Thing", "cannot import no_such_package:Thing"),
        (f"{__name__}:NoSuchClass", "cannot import"),
        (f"{__name__}:pytest", "must be a class"),
        (f"{__name__}:Nothing", "none of the methods change, prepare, fit"),
    ],
)
def test_a_broken_entry_point_is_named(install, value, message):
    """Another package's mistake is an error that says which and why."""
    install(broken=value)
    with pytest.raises(ConfigError, match=message):
        parse("broken")


def test_an_entry_point_cannot_take_one_of_our_names(install):
    """It is left out, aloud."""
    install(majority=f"{__name__}:Shout")
    with pytest.warns(UserWarning, match="'majority' is taskfit's own"):
        names = table.strategy_names()
    assert names.count("majority") == 1
    assert table.load_class("majority").__name__ == "Majority"


def test_strategies_are_described_with_parameters_and_defaults():
    """One record a row of the table; a program's parameters with their types and defaults."""
    described = {record["name"]: record for record in describe_strategies()}
    assert list(described) == list(table.strategy_names())
    assert described["few-shot"]["part"] == "program"
    assert (
        "k: a whole number = 4, select: one of balanced, diverse, random, similar = balanced"
        in described["few-shot"]["parameters"]
    )
    assert described["majority"]["parameters"] == ""


def test_a_class_in_no_table_has_no_name():
    """The message says where to put it."""
    with pytest.raises(ConfigError, match="add a row or an entry point"):
        table.name_of(Nothing)


def test_parsing_loads_no_heavy_library():
    """The names of strategies cost no torch, no scikit-learn and no transformers."""
    code = (
        "import sys; from taskfit.strategy.grammar import parse; parse('few-shot(k=2)'); parse('linear');"
        "print([m for m in ('torch', 'transformers', 'sklearn', 'peft', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
