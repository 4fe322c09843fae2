"""What the budget of a study left out, kept in its folder until a run with a larger budget has made up for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import StudyError
from taskfit.studies.candidates import key_of
from taskfit.studies.folder import read_json, write_json
from taskfit.studies.spec import Plan, TrialSpec, short_names
from taskfit.studies.words import count

if TYPE_CHECKING:
    from taskfit.studies.candidate import Key

__all__ = ["LEFT_OUT_FILE", "cheapest_first", "in_words", "planned_to_fit", "read_left_out", "write_left_out"]

LEFT_OUT_FILE = "left_out.json"
_FORMAT = 1


def cheapest_first(specs: Iterable[TrialSpec], expected_s: Mapping[str, float | None]) -> list[TrialSpec]:
    """Return trials by what they tell for what they take: the first seed of everything before any second, then the
    cheapest; what nobody can foresee goes last of its seed. The order of ``specs`` decides between equals.
    """

    def place(spec: TrialSpec) -> tuple[int, bool, float, float]:
        seconds = expected_s.get(spec.id)
        return spec.seed, seconds is None, seconds or 0.0, spec.forecast_usd or 0.0

    return sorted(specs, key=place)


def planned_to_fit(
    specs: Iterable[TrialSpec], costs: Mapping[str, float | None], left: float
) -> tuple[list[TrialSpec], list[TrialSpec]]:
    """Return which trials are expected to fit, and which not, each in the order in which they are tried.

    Args:
        specs: that have not run, in that order.
        costs: of each, by id, in the unit of ``left``; what is unknown counts as nothing, for it may start.
        left: of the budget.
    """
    fitting, rest = list[TrialSpec](), list[TrialSpec]()
    for spec in specs:
        cost = costs.get(spec.id) or 0.0
        (fitting if cost <= left else rest).append(spec)
        left -= cost if cost <= left else 0.0
    return fitting, rest


def write_left_out(folder: Path, why: Mapping[str, str]) -> None:
    """Keep why trials were left out, by their ids; an earlier record is replaced.

    Raises:
        ResourceError: the disk is full.
    """
    if why or (folder / LEFT_OUT_FILE).exists():
        write_json(folder / LEFT_OUT_FILE, {"format": _FORMAT, "left_out": dict(why)})


def read_left_out(folder: Path) -> dict[str, str]:
    """Return why trials were left out, by their ids; nothing where none was.

    Raises:
        StudyError: the record is damaged.
    """
    path = folder / LEFT_OUT_FILE
    if not path.exists():
        return {}
    values = read_json(path)
    found = values.get("left_out")
    if values.get("format") != _FORMAT or not isinstance(found, dict):
        raise StudyError(f"{path} is damaged, or of another format", "run compare again: it writes the record anew")
    return {str(name): str(why) for name, why in found.items()}


def in_words(plan: Plan, why: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for each strategy, model and training size of which trials were left out, in the plan's order."""
    members: dict[Key, list[TrialSpec]] = {}
    for spec in (*plan.trials, *plan.extra_trials):
        if spec.id in why:
            members.setdefault(key_of(spec), []).append(spec)
    return tuple(_line(plan, specs, why[specs[0].id]) for specs in members.values())


def _line(plan: Plan, specs: Sequence[TrialSpec], why: str) -> str:
    first = specs[0]
    shown = short_names(facts.name for facts in plan.models)
    model = "" if first.model is None else f" on {shown.get(first.model, first.model)}"
    size = "" if first.train_rows is None else f", {first.train_rows} rows"
    what = "not run at all" if first.seed == 0 else f"without {count(len(specs), 'further seed')}"
    return f"{first.strategy}{model}{size}: {what} ({why})"
