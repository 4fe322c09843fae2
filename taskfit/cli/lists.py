"""``taskfit strategies`` and ``taskfit models``: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from taskfit.cli.output import print_data, print_json, print_table

__all__ = ["models", "strategies"]

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def strategies(as_json: _Json = False) -> None:
    """List the strategies, with their parameters and sources."""
    from taskfit.strategy.describe import describe_strategies

    entries = describe_strategies()
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        source = f"  [{entry['source']}]" if entry["source"] else ""
        print_data(f"{entry['name']:12} {entry['summary']}{source}")
        if entry["parameters"]:
            print_data(f"{'':12}   {entry['parameters']}")
    print_data("\nJoin a change of weights and a program with +:  lora(rank=8)+few-shot(k=2)")


def models(as_json: _Json = False) -> None:
    """List the models known by name; any folder or hub name can be given instead."""
    from taskfit.models.table import describe_models

    entries = describe_models()
    if as_json:
        print_json(entries)
        return
    print_table(
        ("name", "architecture", "here", "what it is"),
        [(e["name"], e["architecture"], e["available"], e["summary"]) for e in entries],
    )
