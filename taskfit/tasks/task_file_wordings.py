"""The wordings, labels and options that a task file gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from taskfit.errors import Faults, TaskfitError, nearest
from taskfit.tasks.definition import Wording
from taskfit.tasks.template import check_template, field_source

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["checked_source", "read_labels", "read_options", "read_wordings"]

_KEYS = ("name", "prompt", "target", "labels", "options")


def read_wordings(value: Value, label_texts: dict[str, str], options: Value, faults: Faults) -> tuple[Wording, ...]:
    """Return the wordings of the key ``templates``; the faults are noted.

    Args:
        value: what the key says, None for nothing.
        label_texts: of the task, for wordings without their own.
        options: what the task's key ``options`` says, for the same.
        faults: takes what is wrong.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        faults.add(f"templates must be a list of mappings with {', '.join(_KEYS)}")
        return ()
    entries = cast("list[dict[str, Value]]", value)
    wordings = [_wording(entry, number, label_texts, options, faults) for number, entry in enumerate(entries)]
    names = [wording.name for wording in wordings]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(f"templates: two wordings have the name '{name}'")
    return tuple(wordings)


def _wording(
    entry: dict[str, Value], number: int, label_texts: dict[str, str], options: Value, faults: Faults
) -> Wording:
    where = f"templates[{number}]"
    for key in entry:
        if key not in _KEYS:
            faults.add(f"{where}: unknown key '{key}'{nearest(key, _KEYS)}")
    for key in ("prompt", "target"):
        if not isinstance(entry.get(key), str) or not str(entry[key]).strip():
            faults.add(f"{where}: `{key}` must be a Jinja2 text (got {entry.get(key)!r})")
    _, own_texts = read_labels(entry.get("labels"), f"{where}.labels", faults)
    if isinstance(entry.get("labels"), list):
        faults.add(f"{where}.labels must map each label value to its text (got {entry['labels']!r})")
    return Wording(
        name=str(entry.get("name", f"wording {number + 1}")),
        prompt=checked_source(str(entry.get("prompt") or ""), f"{where}.prompt", faults, may_be_field=False),
        target=checked_source(str(entry.get("target") or ""), f"{where}.target", faults),
        label_texts=own_texts or label_texts,
        options=read_options(entry.get("options", options), f"{where}.options", faults),
    )


def read_labels(value: Value, where: str, faults: Faults) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    """Return label values in order and the texts that differ from them; None where the key says nothing."""
    if value is None:
        return None, {}
    texts: dict[str, str] = {}
    if isinstance(value, dict):
        for key, text in value.items():
            if not isinstance(text, str | int | float):
                faults.add(f"{where}.{key} must be the text of a label (got {text!r})")
        texts = {key: str(text).strip() for key, text in value.items()}
        names = list(value)
    elif isinstance(value, list) and all(isinstance(item, str | int | float | bool) for item in value):
        names = [str(item).strip() for item in value]
    else:
        faults.add(f"{where} must be a list of label values, or a mapping of label value to text (got {value!r})")
        return None, {}
    _check_labels(names, texts, where, faults)
    return tuple(names), texts


def _check_labels(names: Sequence[str], texts: Mapping[str, str], where: str, faults: Faults) -> None:
    if len(names) < 2:
        faults.add(f"{where}: at least 2 labels are needed (got {len(names)})")
    for kind, items in (("label", list(names)), ("label text", [texts.get(name, name) for name in names])):
        if any(not item for item in items):
            faults.add(f"{where}: a {kind} is empty")
        repeated = sorted({item for item in items if item and items.count(item) > 1})
        if repeated and (kind == "label" or texts):
            faults.add(f"{where}: two labels have the same {'text' if texts else 'value'} '{repeated[0]}'")


def read_options(value: Value, where: str, faults: Faults) -> str | None:
    """Return the source of a row's options, one of several joined; None where the key says nothing."""
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        sources = [field_source(str(item)) for item in value]
        if all(source != item for source, item in zip(sources, value, strict=True)):  # fields only
            return "{{ [" + ", ".join(source[2:-2].strip() for source in sources) + "] }}"
        return checked_source("|||".join(sources), where, faults)
    if isinstance(value, str) and value.strip():
        return checked_source(value, where, faults)
    faults.add(f"{where} must be a field, a Jinja2 text or a list of these (got {value!r})")
    return None


def checked_source(text: str, where: str, faults: Faults, *, may_be_field: bool = True) -> str:
    """Return the source of a template, or of a field named alone; what is wrong with it is noted."""
    source = field_source(text) if may_be_field else text
    try:
        check_template(source)
    except TaskfitError as error:
        faults.add(f"{where}: {error.message}")
    return source
