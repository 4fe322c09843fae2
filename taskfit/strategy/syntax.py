"""From a strategy's text to a tree. Knows the shape of names, not which names exist.

    strategy   := part ("+" part)*
    part       := word ["(" [parameter ("," parameter)*] ")"]
    parameter  := word "=" value
    value      := number | "quoted text" | 'quoted text' | strategy

A bare word as a value (``balanced``, ``minilm``, ``true``) is a part without parentheses; what it means is decided
by the type of the parameter that takes it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from taskfit.errors import ConfigError

__all__ = ["Node", "Part", "Sum", "is_bare_word", "parse_text"]

_WORD_CHARACTERS = r"A-Za-z0-9_./:@~\-"
_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![{_WORD_CHARACTERS}])
  | (?P<word>[{_WORD_CHARACTERS}]+)
  | (?P<quoted>"(?:[^"\\]|\\.)*"|'[^']*')
  | (?P<sign>[()=,+])
    )""",
    re.VERBOSE | re.DOTALL,
)
_LONGEST = 4000
_DEEPEST = 8


@dataclass(frozen=True)
class Part:
    """A name with its parameters, or a bare word; a parameter given without its name has the name None."""

    name: str
    parameters: tuple[tuple[str | None, Node], ...] = ()
    has_parentheses: bool = False


@dataclass(frozen=True)
class Sum:
    """Parts joined by +, two or more."""

    parts: tuple[Part, ...]


Node = int | float | str | Part | Sum
"""A value: a number, a quoted text, or a strategy (a bare word is a part without parentheses)."""


def parse_text(text: str) -> Part | Sum:
    """Return the tree of a strategy's text.

    Raises:
        ConfigError: the text does not follow the grammar; the message names the place.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"a strategy's text has at most {_LONGEST} characters (got {len(text)})")
    parser = _Parser(text)
    tree = parser.strategy(depth=0)
    parser.expect_end()
    return tree


def is_bare_word(text: str) -> bool:
    """Return whether ``text`` reads back as itself without quotes: no number, no truth value, no special sign."""
    match = _TOKEN.fullmatch(text)
    return match is not None and match.lastgroup == "word" and match["word"] == text and text not in _KEYWORDS


_KEYWORDS = ("true", "false", "none")


class _Parser:
    """Recursive descent, one method a rule, over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.next = 0

    def strategy(self, depth: int) -> Part | Sum:
        if depth > _DEEPEST:
            raise ConfigError(f"strategies can be nested {_DEEPEST} deep; this text goes deeper")
        parts = [self.part(depth)]
        while self.take("+"):
            parts.append(self.part(depth))
        return parts[0] if len(parts) == 1 else Sum(tuple(parts))

    def part(self, depth: int) -> Part:
        kind, name, _ = self.peek()
        if kind != "word":
            raise self.fault("a strategy's name")
        self.next += 1
        if not self.take("("):
            return Part(name)
        parameters: list[tuple[str | None, Node]] = []
        while not self.take(")"):
            if parameters and not self.take(","):
                raise self.fault("',' or ')'")
            parameters.append(self.parameter(depth))
        return Part(name, tuple(parameters), has_parentheses=True)

    def parameter(self, depth: int) -> tuple[str | None, Node]:
        if self.peek()[0] == "word" and self.tokens[self.next + 1][1] == "=":
            name = self.peek()[1]
            self.next += 2
            return name, self.value(depth)
        return None, self.value(depth)

    def value(self, depth: int) -> Node:
        kind, token, _ = self.peek()
        if kind == "number":
            self.next += 1
            return int(token) if re.fullmatch(r"-?\d+", token) else float(token)
        if kind == "quoted":
            value = self.quoted(token)
            self.next += 1
            return value
        if kind == "word":
            return self.strategy(depth + 1)
        raise self.fault("a value")

    def quoted(self, token: str) -> str:
        if token[0] == "'":
            return token[1:-1]
        try:
            return str(json.loads(token))
        except ValueError:
            raise self.fault("quoted text with JSON's escapes") from None

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.next]

    def take(self, sign: str) -> bool:
        kind, token, _ = self.peek()
        if kind != "sign" or token != sign:
            return False
        self.next += 1
        return True

    def expect_end(self) -> None:
        if self.peek()[0] != "end":
            raise self.fault("the end, or '+' and another part")

    def fault(self, expected: str) -> ConfigError:
        kind, token, place = self.peek()
        got = "the text ends" if kind == "end" else f"got {token!r}"
        return ConfigError(f"strategy {self.text!r}: expected {expected} at character {place + 1} ({got})")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Return (kind, token, place) of every token, and an end mark."""
    tokens: list[tuple[str, str, int]] = []
    place = 0
    end = len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise ConfigError(
                f"strategy {text!r}: cannot read {text[start]!r} at character {start + 1}",
                "put texts with special signs into quotes",
            )
        tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return [*tokens, ("end", "", len(text))]
