"""Parameters of a strategy's part: the fields of its frozen dataclass, their types, defaults and texts."""

from __future__ import annotations

import json
import types
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Literal, Union, get_args, get_origin, get_type_hints

from taskfit.errors import ConfigError, Faults
from taskfit.strategy.contract import Strategy
from taskfit.strategy.syntax import is_bare_word

__all__ = ["Parameter", "check_positive", "check_types", "format_value", "parameters_of", "type_text", "type_fits"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a part.

    Attributes:
        hint: its type: int, float, str, bool, a Literal, Strategy, or one of these or None.
        default: the default; ``dataclasses.MISSING`` where there is none.
    """

    name: str
    hint: object
    default: object

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is MISSING


def parameters_of(part: type) -> dict[str, Parameter]:
    """Return the parameters of a part's class: its own fields in order, then those that it shares with others.

    Raises:
        ConfigError: the class is no dataclass.
    """
    if not is_dataclass(part):
        raise ConfigError(f"{part.__module__}.{part.__qualname__} must be a dataclass whose fields are its parameters")
    hints = get_type_hints(part)
    return {f.name: Parameter(f.name, hints[f.name], f.default) for f in _own_first(part) if f.init}


def _own_first(part: type) -> list[Field[object]]:
    """Fields, those of the class before those of its bases; a base's field stays where the base has it."""
    levels = [level for level in part.__mro__ if is_dataclass(level)]
    level_of = {f.name: number for number, level in enumerate(levels) for f in fields(level)}  # the last level wins
    return sorted(fields(part), key=lambda f: level_of[f.name])


def alternatives(hint: object) -> tuple[object, ...]:
    """Return the members of a union, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def type_fits(value: object, hint: object) -> bool:
    """Return whether a Python value may stand for a parameter of type ``hint``. A truth value is no number."""
    return any(_fits_one(value, member) for member in alternatives(hint))


def _fits_one(value: object, hint: object) -> bool:
    if hint is type(None):
        return value is None
    if get_origin(hint) is Literal:
        return any(type(value) is type(known) and value == known for known in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Strategy:
        return isinstance(value, Strategy)
    return isinstance(hint, type) and isinstance(value, hint)


def type_text(hint: object) -> str:
    """Return a type in the user's words: ``a whole number``, ``one of random, balanced``."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "none"}
    named: list[str] = []
    for member in alternatives(hint):
        if get_origin(member) is Literal:
            named.append("one of " + ", ".join(format_value(value) for value in get_args(member)))
        elif member is Strategy:
            named.append("a strategy")
        else:
            named.append(words.get(member, str(member)) if isinstance(member, type) else str(member))
    return " or ".join(named)


def check_types(part: object, faults: Faults | None = None) -> None:
    """Check the values of a part's fields against their types; for use in ``__post_init__``.

    Args:
        part: the dataclass instance.
        faults: where to note the faults, for a caller that has further checks; None: they are raised here.

    Raises:
        ConfigError: a value has the wrong type, with all others that have.
    """
    noted = faults if faults is not None else Faults(type(part).__name__)
    for parameter in parameters_of(type(part)).values():
        value = getattr(part, parameter.name)
        if not type_fits(value, parameter.hint):
            noted.add(f"{parameter.name} must be {type_text(parameter.hint)} (got {value!r})")
    if faults is None:
        noted.raise_as(ConfigError)


def check_positive(name: str, value: object, faults: Faults) -> None:
    """Note a number that is not above 0 and finite; none, and what is no number, are left to :func:`check_types`."""
    if isinstance(value, int | float) and not 0 < value < float("inf"):
        faults.add(f"{name} must be above 0 and finite (got {value})")


def format_value(value: object) -> str:
    """Return a parameter's value as it stands in a strategy's name."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return value if is_bare_word(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Strategy):
        return value.name
    raise ConfigError(f"a parameter cannot be a {type(value).__name__} (got {value!r})")
