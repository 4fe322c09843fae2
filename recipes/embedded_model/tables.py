"""The measurements as Markdown, for the log and the card: pure functions of the JSON that ``evaluate.py`` writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["ask_table", "sign_test", "table", "text_table", "tune_table"]

MODELS = ("second", "untuned", "first", "random")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def text_table(report: dict[str, Any]) -> str:
    """Return bits per character, and how much the finished model gains on the first version and on random weights."""
    names = [name for name in MODELS if name in next(iter(report.values()))["bits_per_character"]]
    columns = ["text", "documents", *names, *(f"gain on {name}" for name in names if name != "second")]
    rows = []
    for kind, row in report.items():
        bits = [_shown(row["bits_per_character"][name]) for name in names]
        rows.append([kind, row["documents"], *bits, *(_shown(row["gain"][name]) for name in names if name != "second")])
    return table(columns, rows)


def ask_table(report: dict[str, Any]) -> str:
    """Return accuracies without training, what more examples and other wordings change, and the sign tests."""
    rows, spreads = [], []
    for name, row in report.items():
        figures = row["accuracy"]
        own = [_shown(figures[f"zero-shot|{model}"]) for model in MODELS if f"zero-shot|{model}" in figures]
        wordings = [figures["zero-shot|second"][0], *(figures[f"wording {at}|second"][0] for at in (1, 2))]
        spread = max(wordings) - min(wordings)
        spreads.append(spread)
        shots = _shown(figures["few-shot|second"])
        floor = _shown(figures["majority|"])
        rows.append([name, row["type"] or "(trained on)", row["rows"], *own, floor, shots, f"{spread:.3f}"])
    models = [model for model in MODELS if f"zero-shot|{model}" in next(iter(report.values()))["accuracy"]]
    shown = table(
        ["data set", "held-out type", "rows", *models, "majority", "4 examples", "spread of 3 wordings"], rows
    )
    return shown + "\n" + "\n".join(_verdict(report, other) for other in ("untuned", "majority")) + "\n"


def tune_table(report: dict[str, Any]) -> str:
    """Return the figures of tuning, a row for each data set, strategy and size, and where it beats random weights."""
    rows = []
    for name, row in report.items():
        keys = [key.split("|") for key in row["figures"]]
        models = [model for model in MODELS if any(key[1] == model for key in keys)]
        for strategy in dict.fromkeys(key[0] for key in keys):
            for size in dict.fromkeys(key[2] for key in keys):
                cells = [row["figures"].get(f"{strategy}|{model}|{size}") for model in models]
                own, twin = cells[0], cells[-1]
                is_clear = bool(own and twin and own[1] > twin[2])
                rows.append([name, row["metric"], strategy, size, *map(_shown, cells), "yes" if is_clear else "no"])
    return table(["data set", "metric", "strategy", "rows", *models, "clearly above random"], rows)


def sign_test(wins: int, losses: int) -> float:
    """Return the one-sided p-value of so many wins and losses, were both as likely; ties are left out.

    Source: Dixon and Mood 1946.
    """
    from scipy.stats import binom

    return float(binom.sf(wins - 1, wins + losses, 0.5)) if wins + losses else 1.0


def _verdict(report: dict[str, Any], other: str) -> str:
    """Say on how many held-out types the finished model is better; a type of several sets counts once, by its sum."""
    types: dict[str, list[int]] = {}
    for row in report.values():
        if row["type"]:
            found = types.setdefault(row["type"], [0, 0])
            found[0] += row["wins"][other]["won"]
            found[1] += row["wins"][other]["lost"]
    won = sum(one > two for one, two in types.values())
    lost = sum(one < two for one, two in types.values())
    p_value = sign_test(won, lost)
    return f"Better than {other} on {won} of {len(types)} held-out types (sign test over types: p {p_value:.3f})."


def _shown(figure: list[float] | None) -> str:
    return "-" if figure is None else f"{figure[0]:.3f} ({figure[1]:.3f} to {figure[2]:.3f})"
