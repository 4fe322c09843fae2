"""The README tells the truth: its commands and options exist, its paths are there, its lists are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from taskfit.cli.main import app
from taskfit.strategy.grammar import parse
from taskfit.strategy.table import STRATEGIES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _command_lines() -> list[str]:
    blocks = re.findall(r"```[a-z]*\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0] for line in lines if line.startswith("taskfit ")]


@pytest.mark.parametrize("line", _command_lines())
def test_every_command_and_option_of_the_readme_exists(line: str) -> None:
    """A renamed option must be renamed here too."""
    words = shlex.split(line)
    command = COMMANDS[words[1]]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options


def test_there_are_command_lines_to_check() -> None:
    """An empty list would make the test above vacuous."""
    assert len(_command_lines()) >= 5


def test_every_strategy_is_listed_with_a_name_that_parses() -> None:
    """The table of strategies holds all of them."""
    cells = re.findall(r"^\| (`[^|]+`)[^|]* \|", README, flags=re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert {name.partition("(")[0] for name in listed} == set(STRATEGIES)
    for name in listed:
        assert parse(name).name


def test_every_path_of_the_map_exists() -> None:
    """The map of the folders is that of the checkout."""
    block = README.split("## Map")[1].split("```")[1]
    paths = [line.split()[0] for line in block.splitlines() if line.strip()]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    """``make demo``, ``make test`` and ``make setup``."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        if target in {"demo", "test", "setup"}:
            assert f"\n{target}:" in makefile
