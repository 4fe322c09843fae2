"""A task definition as JSON values and back, checked as anything read from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, cast, get_args

from taskfit.errors import Faults, TaskError, TaskfitError, nearest
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import Kind
from taskfit.tasks.template import check_template

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["definition_from_json", "definition_to_json"]

_KEYS = tuple(entry.name for entry in fields(TaskDefinition))
_WORDING_KEYS = tuple(entry.name for entry in fields(Wording))
_TEXTS = ("name", "text")
_OPTIONAL_TEXTS = ("instruction", "rationale", "group")
_LATER_KEY = "messages"
"""Written only where there is one, so that tasks without keep their fingerprints and older folders load."""
_TEXT_LISTS = ("references", "labels", "metrics")


def definition_to_json(definition: TaskDefinition) -> dict[str, Value]:
    """Return the definition as plain JSON values."""
    values: dict[str, Value] = {}
    values.update({key: getattr(definition, key) for key in (*_TEXTS, "kind", *_OPTIONAL_TEXTS)})
    values.update({key: list(getattr(definition, key)) for key in _TEXT_LISTS})
    values["max_answer_tokens"] = definition.max_answer_tokens
    if definition.messages is not None:
        values[_LATER_KEY] = definition.messages
    values["wordings"] = [_wording_to_json(wording) for wording in definition.wordings]
    return values


def definition_from_json(values: Mapping[str, Value]) -> TaskDefinition:
    """Build the definition that :func:`definition_to_json` wrote.

    Raises:
        TaskError: with all faults together.
    """
    if not isinstance(values, Mapping):
        raise TaskError(f"task definition: expected a mapping (got {type(values).__name__})")
    faults = Faults("task definition")
    _check_keys(values, _KEYS, faults, "")
    _check_values(values, faults)
    wordings = values.get("wordings")
    if not isinstance(wordings, list) or not wordings:
        faults.add("wordings must be a list with at least one wording")
        wordings = []
    for number, wording in enumerate(wordings):
        _check_wording(wording, f"wordings[{number}]", faults)
    faults.raise_as(TaskError)
    known: dict[str, object] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    known["wordings"] = tuple(_wording_from_json(cast("dict[str, Value]", wording)) for wording in wordings)
    return TaskDefinition(**known)  # type: ignore[arg-type]


def _wording_to_json(wording: Wording) -> dict[str, Value]:
    return {
        "name": wording.name,
        "prompt": wording.prompt,
        "target": wording.target,
        "label_texts": dict(wording.label_texts),
        "options": wording.options,
    }


def _wording_from_json(values: dict[str, Value]) -> Wording:
    return Wording(**values)  # type: ignore[arg-type]


def _check_keys(values: Mapping[str, Value], keys: tuple[str, ...], faults: Faults, where: str) -> None:
    for key in values:
        if key not in keys:
            faults.add(f"{where}unknown key '{key}'{nearest(str(key), keys)}")
    for key in keys:
        if key not in values and key != _LATER_KEY:
            faults.add(f"{where}key '{key}' is missing")


def _check_values(values: Mapping[str, Value], faults: Faults) -> None:
    for key in _TEXTS:
        _check_text(values.get(key), key, faults, is_template=key == "text")
    for key in (*_OPTIONAL_TEXTS, _LATER_KEY):
        if values.get(key) is not None:
            _check_text(values[key], key, faults, is_template=key in ("rationale", _LATER_KEY))
    for key in _TEXT_LISTS:
        items = values.get(key)
        if not isinstance(items, list):
            faults.add(f"{key} must be a list of texts (got {type(items).__name__})")
            continue
        for item in items:
            _check_text(item, key, faults, is_template=key == "references")
    if values.get("kind") not in get_args(Kind):
        faults.add(f"kind must be one of {', '.join(get_args(Kind))} (got {values.get('kind')!r})")
    tokens = values.get("max_answer_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        faults.add(f"max_answer_tokens must be a whole number of at least 1 (got {tokens!r})")


def _check_wording(wording: Value, where: str, faults: Faults) -> None:
    if not isinstance(wording, dict):
        faults.add(f"{where} must be a mapping (got {type(wording).__name__})")
        return
    _check_keys(wording, _WORDING_KEYS, faults, f"{where}: ")
    for key in ("name", "prompt", "target"):
        _check_text(wording.get(key), f"{where}.{key}", faults, is_template=key != "name")
    if wording.get("options") is not None:
        _check_text(wording["options"], f"{where}.options", faults, is_template=True)
    texts = wording.get("label_texts")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        faults.add(f"{where}.label_texts must map label values to texts")


def _check_text(value: Value, where: str, faults: Faults, *, is_template: bool) -> None:
    if not isinstance(value, str):
        faults.add(f"{where} must be a text (got {type(value).__name__})")
    elif is_template:
        try:
            check_template(value)
        except TaskfitError as error:
            faults.add(f"{where}: {error.message}")
