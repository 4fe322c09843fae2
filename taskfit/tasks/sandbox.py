"""The Jinja2 environment of all templates: no access to Python's insides, no unbounded output. Imported lazily."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, Undefined, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2.nodes import EvalContext
    from jinja2.runtime import Context

__all__ = ["MAX_LENGTH", "TemplateEnvironment"]

MAX_LENGTH = 10_000_000
"""Most characters (or list items) that a template may make."""
MAX_ITERATIONS = 100_000
"""Most numbers of one ``range``."""

_PADDING_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
_MOST_DECIMALS = 100
_MOST_INDENT = 16
_UNBOUNDED_FILTERS = (
    "batch",
    "center",
    "filesizeformat",
    "indent",
    "pprint",
    "slice",
    "urlize",
    "wordwrap",
    "xmlattr",
)
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
        self.filters.update(join=_bounded_join, replace=_bounded_replace, round=_bounded_round, tojson=_bounded_json)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse what the sandbox refuses, the text methods that pad to any length, and bytes, which have them too."""
        if (isinstance(obj, str) and attr in _PADDING_METHODS) or attr in ("encode", "to_bytes"):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a template; the text methods ``join`` and ``replace`` only as far as they are short."""
        text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(text, str) and name == "join":
            args = (_short_parts(text, *args),)
        elif isinstance(text, str) and name == "replace":
            _check_replaced(text, *args, **kwargs)
        return super().call(context, function, *args, **kwargs)

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


@pass_eval_context
def _bounded_join(eval_ctx: EvalContext, value: Iterable[object], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(eval_ctx.environment, attribute), value)
    return str(FILTERS["join"](eval_ctx, _short_parts(d, map(str, value)), d))


def _short_parts(separator: object, parts: Iterable[object]) -> list[object]:
    """Return the parts as a list, when they are a text of bounded length with the separator between them."""
    listed, length, gap = [], 0, len(str(separator))
    for part in parts:
        listed.append(part)
        length += gap + (len(part) if isinstance(part, str) else 1)
        if length > MAX_LENGTH:
            raise SecurityError(f"the joined text is longer than {MAX_LENGTH} characters")
    return listed


def _bounded_replace(text: object, old: object, new: object, count: int = -1) -> str:
    _check_replaced(str(text), str(old), str(new), count)
    return str(text).replace(str(old), str(new), count)


def _check_replaced(text: str, old: str, new: str, count: int = -1) -> None:
    """Refuse a replacement whose result would be too long; an empty ``old`` stands before every character."""
    found = text.count(old)
    times = found if count < 0 else min(found, count)
    if len(text) + times * (len(new) - len(old)) > MAX_LENGTH:
        raise SecurityError(f"the text after the replacement is longer than {MAX_LENGTH} characters")


def _bounded_round(value: float, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > _MOST_DECIMALS:
        raise SecurityError(f"rounding to {precision} decimals; at most {_MOST_DECIMALS} are allowed")
    return float(FILTERS["round"](value, precision, method))


@pass_eval_context
def _bounded_json(eval_ctx: EvalContext, value: object, indent: int | None = None) -> str:
    if indent is not None and (not isinstance(indent, int) or indent > _MOST_INDENT):
        raise SecurityError(f"an indent of at most {_MOST_INDENT} is allowed")
    return str(FILTERS["tojson"](eval_ctx, value, indent))


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
