"""What exactly was run: facts of the study, and of each strategy its parameters, prompt and supervised text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.result import trial_folder
from taskfit.studies.spec import short_names
from taskfit.studies.words import bytes_text, count, metric_name, money, seconds
from taskfit.versions import changed_versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.result import TrialResult
    from taskfit.studies.spec import Plan, Price
    from taskfit.tasks.task import Value

__all__ = ["Recipe", "facts_of", "failures_of", "recipes_of", "skipped_of"]

_MOST_PROMPT = 4000
_SUPERVISED = "supervised text between ⟦ and ⟧:"


@dataclass(frozen=True)
class Recipe:
    """How one candidate was made; its first seed's.

    Attributes:
        name: the candidate's label.
        full_name: the strategy with every parameter spelled out.
        prompt: one rendered prompt; empty where there is none.
        supervised: the first training row in pieces, each with whether the loss is on it; empty where nothing was
            trained on text.
        notes: what the strategy reported while fitting.
    """

    key: str
    name: str
    full_name: str
    prompt: str
    supervised: tuple[tuple[str, bool], ...]
    notes: tuple[str, ...]


def recipes_of(comparison: Comparison, keys: dict[str, str]) -> tuple[Recipe, ...]:
    """Return how each candidate was made.

    Args:
        comparison: what the study found.
        keys: label of a candidate to its key.
    """
    return tuple(_recipe(keys[candidate.label], candidate, comparison) for candidate in comparison.candidates)


def _recipe(key: str, candidate: Candidate, comparison: Comparison) -> Recipe:
    result = candidate.results[0]
    path = trial_folder(comparison.study.folder, result.spec.id) / "predictor" / "prompt.txt"
    prompt = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    supervised, rest = _supervised(result.notes)
    cut = prompt if len(prompt) <= _MOST_PROMPT else f"{prompt[:_MOST_PROMPT]}…"
    return Recipe(key, candidate.label, _full_name(candidate.strategy), cut, supervised, rest)


def _full_name(name: str) -> str:
    from taskfit.errors import ConfigError
    from taskfit.strategy.grammar import full_name, parse

    try:
        return full_name(parse(name))
    except ConfigError:  # a strategy that stands in no table of this installation
        return name


def _supervised(notes: tuple[str, ...]) -> tuple[tuple[tuple[str, bool], ...], tuple[str, ...]]:
    """Take the training row with its loss mask out of the notes: pieces, and the notes that are left."""
    at = next((place for place, note in enumerate(notes) if note.endswith(_SUPERVISED)), None)
    if at is None:
        return (), notes
    end = next((place for place in range(at + 1, len(notes)) if not notes[place].startswith("  ")), len(notes))
    text = "\n".join(note[2:] for note in notes[at + 1 : end])
    pieces: list[tuple[str, bool]] = []
    for place, part in enumerate(text.split("⟦")):
        inside, mark, after = part.partition("⟧")
        pieces += [(inside, True), (after, False)] if place and mark else [(part, False)]
    kept = (*notes[:at], notes[at].removesuffix(f"; {_SUPERVISED}"), *notes[end:])
    return tuple(piece for piece in pieces if piece[0]), kept


def failures_of(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Return the trials that did not finish, each with what happened."""
    return tuple((result.spec.label, _failure(result)) for result in comparison.failures)


def _failure(result: TrialResult) -> str:
    hint = "" if result.hint is None else f" ({result.hint})"
    return f"{result.status}: {result.reason}: {result.message}{hint}"


def skipped_of(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Return the combinations that the plan or the budget left out, each with the reason."""
    skipped = comparison.study.plan.skipped
    shown = short_names(entry.model for entry in skipped if entry.model is not None)
    by_plan = (
        (entry.strategy if entry.model is None else f"{entry.strategy} on {shown[entry.model]}", entry.reason)
        for entry in skipped
    )
    return (*by_plan, *(("by the budget", line) for line in comparison.left_out))


def facts_of(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Return task, data, models, seeds, machine, price and versions, as pairs of name and text."""
    study, plan = comparison.study, comparison.study.plan
    definition, machine, config = comparison.definition, study.machine, plan.config
    where = (f"{machine.get('processor')}", f"{machine.get('cores')} cores", _memory_text(machine.get("memory_bytes")))
    facts = [
        (
            "Task",
            f"{definition.name} ({definition.kind}), {plan.task_path.name}, fingerprint {plan.task_fingerprint[:16]}",
        ),
        ("Rows", _rows_text(plan.data)),
        ("Data", _data_text(plan.data)),
        ("Metrics", ", ".join(metric_name(name) for name in definition.metrics) + "; the first decides"),
        ("Strategies", ", ".join(config.strategies)),
        ("Models", "; ".join(f"{m.name} ({m.architecture}, {m.fingerprint[:12]})" for m in plan.models) or "none"),
        ("Seeds", f"{config.seeds} (0 to {config.seeds - 1}); strategies without chance run once"),
        ("Volume", f"{comparison.volume:,} rows"),
        ("Limits", _limits_text(comparison)),
        ("Machine", f"{', '.join(where)}, {machine.get('system')}"),
        ("Price", _price_text(plan.price)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in study.versions.items())),
        ("Budget", _budget_text(comparison)),
        ("Trials at a time", _jobs_text(plan)),
    ]
    facts += [("Other versions", line) for line in _other_versions(comparison)]
    facts += [("Note", note) for note in plan.notes]
    return tuple(facts)


def _other_versions(comparison: Comparison) -> list[str]:
    """Return how many trials ran under versions that are not those of the study's first run, a line for each change."""
    results = [result for candidate in comparison.candidates for result in candidate.results]
    changes = Counter(", ".join(changed_versions(comparison.study.versions, each.versions)) for each in results)
    return [f"in {count} of {len(results)} trials {change}" for change, count in changes.items() if change]


def _rows_text(data: Mapping[str, Value]) -> str:
    rows = data.get("rows")
    return ", ".join(f"{split} {number:,}" for split, number in rows.items()) if isinstance(rows, dict) else "unknown"


def _data_text(data: Mapping[str, Value]) -> str:
    parts = [
        f"{data.get('duplicate_rows', 0)} duplicate rows dropped",
        f"{data.get('moved_rows', 0)} rows dropped because another split holds their text",
        f"{data.get('conflicting_rows', 0)} pairs with the same input and different answers",
    ]
    made, notes = data.get("made_splits"), data.get("notes")
    if isinstance(made, list) and made:
        parts.append(f"splits cut by taskfit: {', '.join(map(str, made))}")
    parts += [str(note) for note in notes] if isinstance(notes, list) else []
    return "; ".join(parts)


def _budget_text(comparison: Comparison) -> str:
    plan, spent = comparison.study.plan, comparison.spent
    budget = plan.config.budget
    if budget is None:
        return "none"
    usd = money(spent.usd(plan.price.usd_per_hour))
    return f"{budget.text} for all trials, of which {seconds(spent.wall_s)} or {usd} are spent"


def _jobs_text(plan: Plan) -> str:
    threads = f"{count(plan.threads, 'thread')} each" if plan.threads else "on all cores"
    if plan.jobs == 1:
        return f"1, {threads}: seconds are those of the whole machine"
    return (
        f"{plan.jobs} at most, {threads}; seconds on the clock are stretched by neighbours, and money is charged by "
        "processor time over the number of cores"
    )


def _limits_text(comparison: Comparison) -> str:
    limits = comparison.study.plan.config.limits
    parts = [
        "" if limits.usd is None else f"at most {money(limits.usd)} in total",
        "" if limits.latency_ms is None else f"at most {limits.latency_ms:g} ms a row",
        "" if limits.memory_gb is None else f"at most {limits.memory_gb:g} GB to predict",
        "" if limits.labels is None else f"at most {limits.labels:,} labelled rows",
        "" if limits.forgetting is None else f"at most {limits.forgetting:.1%} forgotten",
    ]
    return ", ".join(part for part in parts if part) or "none"


def _memory_text(memory: Value) -> str:
    return bytes_text(memory) if isinstance(memory, int | float) else "memory unknown"


def _price_text(price: Price) -> str:
    return f"{price.machine}: {price.usd_per_hour:g} USD an hour (of {price.date}); the whole machine is charged"
