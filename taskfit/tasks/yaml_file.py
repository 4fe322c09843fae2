"""YAML as people mean it: ``yes`` is a text, ``12:30`` is no number, and a key may stand only once."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from taskfit.errors import TaskError, nearest

if TYPE_CHECKING:
    import yaml

    from taskfit.tasks.task import Value

__all__ = ["read_yaml"]

MAX_BYTES = 10_000_000
MAX_VALUES = 1_000_000
"""A few lines of aliases of aliases can stand for more values than any memory holds."""

_SCALARS = {
    "merge": re.compile(r"^<<$"),
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"),
    "float": re.compile(r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"),
}


def read_yaml(path: Path) -> Value:
    """Read one YAML document of plain values; promptsource's ``!Template`` tags become mappings.

    Only ``true`` and ``false`` are booleans, numbers are decimal, dates and everything else are texts (the core of
    YAML 1.2), so that labels such as ``no``, ``on`` or ``007`` stay what they are.

    Raises:
        TaskError: the file is missing, not UTF-8, broken, or has a key twice; the message names the line.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise TaskError(
                f"{path}: larger than {MAX_BYTES} bytes; rows belong in files of their own, named under `data`"
            )
        text = path.read_text(encoding="utf-8-sig")
        value = cast("Value", yaml.load(text, Loader=_loader()))
        if _size(value, {}) > MAX_VALUES:
            raise TaskError(f"{path}: aliases make more than {MAX_VALUES} values of it")
        return value
    except FileNotFoundError:
        near = nearest(path.name, sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise TaskError(
            f"{path}: no such file{near}", "`taskfit init DATA` writes a task file from a data file."
        ) from None
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 (byte {error.start + 1})", "Save the file as UTF-8.") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TaskError(f"{path}: broken YAML: {' '.join(str(error).split())}") from error


def _size(value: Value, known: dict[int, int]) -> int:
    """Return how many values there are where each alias stands for a copy."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_VALUES + 1  # met again inside itself: without end
        items = value if isinstance(value, list) else list(value.values())
        known[id(value)] = 1 + sum(_size(item, known) for item in items)
    return known[id(value)]


@lru_cache(maxsize=1)
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader with other scalars; nothing it builds can run code."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own name

    for name, pattern in _SCALARS.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", pattern, None)
    Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
    Loader.add_constructor("tag:yaml.org,2002:str", _sound_text)
    for tag in ("!Template", "!TemplateMetadata"):
        Loader.add_constructor(tag, _unique_mapping)
    return Loader


def _sound_text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    """Refuse what an escape can write, and no file name, and no UTF-8, can hold."""
    import yaml

    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a text", node.start_mark)
    text = loader.construct_scalar(node)
    if "\0" in text or text.encode("utf-8", "ignore").decode() != text:
        problem = "a text holds NUL, or half of a surrogate pair"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return text


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Value]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
    loader.flatten_mapping(node)
    mapping: dict[str, Value] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
        if str(key) in mapping:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is there twice", key_node.start_mark)
        mapping[str(key)] = loader.construct_object(value_node, deep=True)
    return mapping
