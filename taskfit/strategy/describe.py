"""The table of strategies for people: names, parameters with their defaults, summaries, sources."""

from __future__ import annotations

from taskfit.strategy.parameters import format_value, parameters_of, type_text
from taskfit.strategy.table import load_class, strategy_entry, strategy_names

__all__ = ["describe_strategies"]


def describe_strategies() -> list[dict[str, str]]:
    """Return one record a strategy: name, what it is a part of, parameters, summary, source."""
    return [_describe(name) for name in strategy_names()]


def _describe(name: str) -> dict[str, str]:
    entry = strategy_entry(name)
    parameters = [
        f"{p.name}: {type_text(p.hint)}" + ("" if p.is_required else f" = {format_value(p.default)}")
        for p in parameters_of(load_class(name)).values()
    ]
    return {
        "name": name,
        "part": entry.part,
        "parameters": ", ".join(parameters),
        "summary": entry.summary,
        "source": entry.source,
    }
