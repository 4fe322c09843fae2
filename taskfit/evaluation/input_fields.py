"""Which of a row's fields are the input: found by changing each and looking at what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from taskfit.errors import TaskfitError

if TYPE_CHECKING:
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["input_fields"]

_LOOKED_AT = 20
_OTHER = " (this was another text)"


def input_fields(definition: TaskDefinition, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the fields with text that a question depends on and its right answer does not.

    These can be changed without changing what is right. A field that also says the answer, or an option, is left out.

    Args:
        definition: the task's.
        rows: at least one; the first few are looked at.
    """
    sample = rows[:_LOOKED_AT]
    names = dict.fromkeys(name for row in sample for name, value in row.fields.items() if isinstance(value, str))
    return tuple(name for name in names if _is_input(definition, sample, name))


def _is_input(definition: TaskDefinition, rows: Sequence[Row], name: str) -> bool:
    has_effect = False
    for row in rows:
        value = row.fields.get(name)
        if not isinstance(value, str):
            continue
        other = replace(row, fields={**row.fields, name: value + _OTHER})
        try:
            if definition.gold(other) != definition.gold(row) or definition.options(other) != definition.options(row):
                return False
            has_effect = has_effect or _asked(definition, other) != _asked(definition, row)
        except TaskfitError:  # a template that needs the very text: it is no free input
            return False
    return has_effect


def _asked(definition: TaskDefinition, row: Row) -> list[str]:
    prompts = [definition.prompt_text(row, wording) for wording in range(len(definition.wordings))]
    return [definition.input_text(row), *prompts]
