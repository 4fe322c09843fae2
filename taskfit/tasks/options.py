"""From what the data holds to a row's options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from taskfit.errors import DataError
from taskfit.tasks.task import Option

__all__ = ["SEPARATOR", "options_from"]

SEPARATOR = "|||"
"""What divides the options of a text, and the two halves of a promptsource template."""

_VALUE_KEYS = ("label", "value", "id", "key")


def options_from(value: object) -> tuple[Option, ...]:
    """Return the options that ``value`` names.

    Args:
        value: a list of texts or numbers; a list of mappings with ``text`` and one of ``label``, ``value``, ``id``,
            ``key``; a mapping of two lists (``{"label": ["A", "B"], "text": ["one", "two"]}``); a text that holds a
            JSON list; or a text divided by ``|||``.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(value, str):
        return tuple(_option(item) for item in _items_of_text(value))
    if isinstance(value, Mapping):
        return _options_of_columns(value)
    if isinstance(value, Sequence):
        return tuple(_option(item) for item in value)
    raise DataError(f"options must be a list, or texts divided by {SEPARATOR} (got {_shown(value)})")


def _items_of_text(text: str) -> Sequence[object]:
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except ValueError:
            items = None
        if isinstance(items, list):
            return items
    return text.split(SEPARATOR)


def _options_of_columns(columns: Mapping[object, object]) -> tuple[Option, ...]:
    texts = columns.get("text")
    values = next((columns[key] for key in _VALUE_KEYS if key in columns), texts)
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        raise DataError(
            f"options given as a mapping need lists `text` and `label` of one length (got {_shown(columns)})"
        )
    return tuple(Option(str(value).strip(), str(text).strip()) for value, text in zip(values, texts, strict=True))


def _option(item: object) -> Option:
    if isinstance(item, Mapping):
        key = next((key for key in _VALUE_KEYS if key in item), None)
        if "text" not in item or key is None:
            raise DataError(f"an option given as a mapping needs `text` and `label` (got {_shown(item)})")
        return Option(str(item[key]).strip(), str(item["text"]).strip())
    if item is None or isinstance(item, list):
        raise DataError(f"an option must be a text, a number or a mapping (got {_shown(item)})")
    text = str(item).strip()
    return Option(text, text)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
