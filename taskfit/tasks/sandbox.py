"""The Jinja2 environment of all templates: no access to Python's insides, no unbounded output. Imported lazily."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, Undefined, pass_context
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2.runtime import Context

__all__ = ["MAX_LENGTH", "TemplateEnvironment"]

MAX_LENGTH = 10_000_000
"""Most characters (or list items) that a template may make."""
MAX_ITERATIONS = 100_000
"""Most numbers of one ``range``."""

_PADDING_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
_UNBOUNDED_FILTERS = ("center", "indent", "filesizeformat", "pprint", "xmlattr", "urlize")
_WIDE_FORMAT = re.compile(r"\d{5,}|\*")


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2 that refuses unknown names, unsafe attributes, and values that are large at one stroke.

    A template that is written to waste time or memory by many small steps is not stopped; where templates come from
    strangers, limit the process.

    The names of promptsource (``zip``, ``choice``, ``most_frequent``) are known. ``choice`` depends on the row
    alone, so that a row gives the same text in every run.
    """

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_printable)
        self.globals = {"range": _bounded_range, "namespace": self.globals["namespace"], "zip": zip}
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters.update(choice=_choice, most_frequent=_most_frequent, format=_bounded_format)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse what the sandbox refuses, and the text methods that pad to any length."""
        if isinstance(obj, str) and attr in _PADDING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute ``*``, ``**`` and ``%`` after a look at how large the result would be."""
        if operator == "%" and isinstance(left, str):
            return _bounded_format(left, *(right if isinstance(right, tuple) else (right,)))
        if operator == "**" and (_magnitude(left) > 1_000 or _magnitude(right) > 100):
            raise SecurityError("the power is too large")
        if operator == "*" and _product_length(left, right) > MAX_LENGTH:
            raise SecurityError(f"the repeated value is longer than {MAX_LENGTH} items")
        return super().call_binop(context, operator, left, right)


def _printable(value: object) -> object:
    """Print None as nothing; refuse a function, whose name stands where a field was meant, and a mapping."""
    if isinstance(value, dict):
        names = ", ".join(map(str, value))[:100]
        raise SecurityError(f"a mapping is no text; name one of its fields with a dot: {names}")
    if callable(value) and not isinstance(value, Undefined):
        raise SecurityError(f"{getattr(value, '__name__', 'a function')!r} is a function of templates, not a field")
    return "" if value is None else value


def _bounded_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_ITERATIONS:
        raise SecurityError(f"range of {len(numbers)} numbers; at most {MAX_ITERATIONS} are allowed")
    return numbers


def _bounded_format(pattern: str, *values: object) -> str:
    if _WIDE_FORMAT.search(pattern):
        raise SecurityError("a format wider than 9999 characters is not allowed")
    return str(pattern) % values


def _magnitude(value: object) -> float:
    return abs(value) if isinstance(value, int | float) else 0.0


def _product_length(left: object, right: object) -> int:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            return len(sequence) * times
    return 0


@pass_context
def _choice(context: Context, items: Sequence[object]) -> object:
    """Pick one item by a hash of the row: the same row always gives the same item."""
    row = context.resolve("row")
    digest = sha256(repr(sorted(row.items()) if isinstance(row, dict) else row).encode("utf-8", "replace")).digest()
    return items[int.from_bytes(digest[:8], "big") % len(items)]


def _most_frequent(items: Sequence[object]) -> list[object]:
    """Return the items that occur most often, in order of first occurrence."""
    counts = Counter(items)
    most = max(counts.values(), default=0)
    return [item for item, count in counts.items() if count == most]
