"""Names of strategies: ``lora(rank=8)+few-shot(k=4)``. Parsed here and nowhere else.

>>> parse("few-shot( k = 2 )").name
'few-shot(k=2)'
>>> parse("few-shot(k=2)") == parse(parse("few-shot(k=2)").name)
True
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from taskfit.errors import ConfigError, Faults, nearest
from taskfit.strategy.contract import Program, Strategy, WeightsChange
from taskfit.strategy.parameters import (
    Parameter,
    alternatives,
    format_value,
    parameters_of,
    type_fits,
    type_text,
)
from taskfit.strategy.syntax import Node, Part, Sum, parse_text
from taskfit.strategy.table import load_class, name_of, strategy_entry

if TYPE_CHECKING:
    from taskfit.strategy.composed import Composed

__all__ = ["full_name", "parse", "part_name"]

_JOINED = {"pretraining": "pre-training", "weights": "changes of weights", "program": "prompting programs"}
"""What + joins, one of each kind."""

_WRONG = object()
"""Stands for a value that could not be read; its fault is noted."""


def parse(text: str) -> Strategy:
    """Return the strategy of a name.

    ``parse(strategy.name) == strategy``. Spaces and the order of parts and parameters do not matter.

    Raises:
        ConfigError: wrong grammar, an unknown strategy or parameter (with the nearest known name), a value of the
            wrong type or out of range, or two parts that do not go together. Faults of one part come together.
    """
    return _build(parse_text(text))


def part_name(part: object, *, with_defaults: bool = False) -> str:
    """Return the canonical name of a part: its name in the table and its parameters in field order.

    Args:
        part: an instance of a class of the strategy table.
        with_defaults: show also parameters that have their default value.
    """
    shown = [
        f"{parameter.name}={_shown(getattr(part, parameter.name), with_defaults=with_defaults)}"
        for parameter in parameters_of(type(part)).values()
        if with_defaults or parameter.is_required or getattr(part, parameter.name) != parameter.default
    ]
    name = name_of(type(part))
    return f"{name}({', '.join(shown)})" if shown else name


def _shown(value: object, *, with_defaults: bool) -> str:
    return full_name(value) if with_defaults and isinstance(value, Strategy) else format_value(value)


def full_name(strategy: Strategy) -> str:
    """Return the strategy's name with every parameter spelled out, those of strategies in it too.

    It is what is stored beside results: it keeps its meaning when a later version changes a default.
    """
    from taskfit.strategy.composed import Composed

    if not isinstance(strategy, Composed):
        return part_name(strategy, with_defaults=True)
    parts = [part for part in (strategy.pretraining, strategy.weights, strategy.program) if part is not None]
    return "+".join(part_name(part, with_defaults=True) for part in parts)


def _build(tree: Part | Sum) -> Strategy:
    parts = tree.parts if isinstance(tree, Sum) else (tree,)
    kinds = [strategy_entry(part.name).part for part in parts]
    if kinds == ["whole"]:
        return cast("Strategy", _build_part(parts[0]))
    if sorted(kinds) == ["pretraining", "whole"]:
        first, whole = sorted(parts, key=lambda part: strategy_entry(part.name).part)
        if "pretraining" in parameters_of(load_class(whole.name)):  # it goes before what the whole does
            return cast("Strategy", _build_part(_with_parameter(whole, "pretraining", first)))
    _check_composition(parts, kinds)
    return _compose(dict(zip(kinds, parts, strict=True)))


def _with_parameter(part: Part, name: str, value: Part) -> Part:
    return replace(part, parameters=(*part.parameters, (name, value)), has_parentheses=True)


def _check_composition(parts: tuple[Part, ...], kinds: list[str]) -> None:
    names = "+".join(part.name for part in parts)
    for kind, words in _JOINED.items():
        if kinds.count(kind) > 1:
            same = [part.name for part, its in zip(parts, kinds, strict=True) if its == kind]
            raise ConfigError(f"strategy {names!r}: {' and '.join(same)} are both {words}; + joins one of each")
    for part, kind in zip(parts, kinds, strict=True):
        if kind == "whole":
            raise ConfigError(f"strategy {names!r}: {part.name} stands alone and cannot be joined by +")


def _compose(parts: dict[str, Part]) -> Composed:
    from taskfit.strategy.composed import Composed, default_program

    kinds = ("weights", "pretraining")
    weights, pretraining = (cast("WeightsChange", _build_part(parts[k])) if k in parts else None for k in kinds)
    program = cast("Program", _build_part(parts["program"])) if "program" in parts else default_program()
    if weights is None:  # pre-training alone is the change of weights
        weights, pretraining = pretraining, None
    return Composed(weights, program, pretraining)


def _build_part(part: Part) -> object:
    """Return the instance of the part's class, its parameters converted and checked."""
    made = load_class(part.name)
    known = parameters_of(made)
    faults = Faults(f"strategy {part.name!r}")
    values: dict[str, object] = {}
    for name, node in part.parameters:
        if name is None:
            faults.add(_unnamed(part.name, node, known))
        elif name not in known:
            listed = f"it takes {', '.join(known)}" if known else "it takes none"
            faults.add(f"unknown parameter {name!r}{nearest(name, known)}; {listed}")
        elif name in values:
            faults.add(f"{name} is given twice")
        else:
            values[name] = _convert(node, known[name], faults)
    for missing in (p.name for p in known.values() if p.is_required and p.name not in values):
        faults.add(f"{missing} must be given: {part.name}({missing}=...)")
    if not faults.messages:
        return made(**values)
    _add_faults_of_values(made, values, faults)
    faults.raise_as(ConfigError)
    raise AssertionError("unreachable")


def _add_faults_of_values(made: type, values: dict[str, object], faults: Faults) -> None:
    """Note also what the class itself says against the values that could be read."""
    try:
        made(**{name: value for name, value in values.items() if value is not _WRONG})
    except ConfigError as error:
        faults.add(error.message)
    except TypeError:
        return  # a required value is missing or was wrong; that is noted already


def _unnamed(part: str, node: Node, known: dict[str, Parameter]) -> str:
    shown = _node_text(node)
    for parameter in known.values():
        attempt = Faults("")
        _convert(node, parameter, attempt)
        if not attempt.messages:
            return f"parameters are given by name; write {part}({parameter.name}={shown})"
    listed = f"it takes {', '.join(known)}" if known else "it takes none"
    return f"parameters are given by name (got {shown}); {listed}"


def _convert(node: Node, parameter: Parameter, faults: Faults) -> object:
    """Return what ``node`` means for the parameter; one of the wrong type is noted in ``faults``."""
    hints = alternatives(parameter.hint)
    if Strategy in hints and isinstance(node, Part | Sum) and _plain_value(node, hints) is not None:
        return _build(node)
    value = _plain_value(node, hints)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not type_fits(value, parameter.hint) or (is_number and abs(cast("float", value)) > sys.float_info.max):
        faults.add(f"{parameter.name} must be {type_text(parameter.hint)} (got {_node_text(node)})")
        return _WRONG
    if is_number and float in hints and int not in hints:
        return float(cast("float", value))
    return value


def _plain_value(node: Node, hints: tuple[object, ...]) -> object:
    """Return what a bare word means; other nodes mean themselves."""
    if not isinstance(node, Part) or node.has_parentheses:
        return node
    keywords: dict[str, tuple[object, object]] = {
        "true": (bool, True),
        "false": (bool, False),
        "none": (type(None), None),
    }
    hint, value = keywords.get(node.name, (None, None))
    return value if hint in hints else node.name


def _node_text(node: Node) -> str:
    if isinstance(node, Sum):
        return "+".join(_node_text(part) for part in node.parts)
    if not isinstance(node, Part):
        return format_value(node)
    inner = ", ".join(f"{name}={_node_text(v)}" if name else _node_text(v) for name, v in node.parameters)
    return f"{node.name}({inner})" if node.has_parentheses else node.name
