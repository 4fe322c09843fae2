"""Templates: Jinja2 text that turns a row's fields into a prompt, a target or a list of options."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, cast

from taskfit.errors import TaskError, nearest

if TYPE_CHECKING:
    from jinja2 import Template, nodes
    from jinja2.environment import TemplateExpression

    from taskfit.tasks.sandbox import TemplateEnvironment

__all__ = [
    "check_template",
    "evaluate",
    "field_source",
    "fields_read",
    "names_in",
    "plain_source",
    "render",
    "single_expression",
]

MAX_SOURCE_LENGTH = 100_000
_MAX_ITEMS = 10_000
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JINJA_WORDS = frozenset(
    ["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"]
)
_OWN_NAMES = frozenset(["row", "answer_choices", "range", "zip", "namespace"])
_BARE_FIELD = re.compile(r"\{\{ ([A-Za-z_][A-Za-z0-9_]*) \}\}")
_MISSING_NAME = re.compile(r"^'([^']+)' is undefined$")


def render(source: str, values: Mapping[str, object]) -> str:
    """Render ``source`` with ``values``.

    A name that ``values`` lacks is an error, None gives an empty text, trailing newlines stay. Templates run in
    Jinja2's immutable sandbox: no attributes that begin with an underscore, no calls of unsafe methods.

    Raises:
        TaskError: the source is no template, is longer than 100,000 characters, names what ``values`` lacks, does
            something that the sandbox forbids, or gives more than 10 million characters.
    """
    from taskfit.tasks.sandbox import MAX_LENGTH

    field = _BARE_FIELD.fullmatch(source)  # most templates are one field; Jinja2 needs 15 microseconds for it
    value = values.get(field.group(1)) if field and field.group(1) not in _JINJA_WORDS else None
    if isinstance(value, str) and len(value) <= MAX_LENGTH:
        return value
    template = _compiled(source)
    pieces: list[str] = []
    length = 0
    try:
        for piece in template.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_LENGTH:
                raise TaskError(f"template {_shown(source)} gives more than {MAX_LENGTH} characters; shorten it")
    except TaskError:
        raise
    except Exception as error:  # whatever an expression raises is the template's fault
        raise _render_fault(source, values, error) from error
    return "".join(pieces)


def evaluate(source: str, values: Mapping[str, object]) -> object:
    """Return the value of a template that is one expression (``{{ … }}``), else the rendered text.

    Raises:
        TaskError: as in :func:`render`.
    """
    expression = single_expression(source)
    if expression is None:
        return render(source, values)
    from jinja2 import Undefined
    from jinja2.exceptions import UndefinedError

    try:
        value = _compiled_expression(expression)(values)
        if isinstance(value, Undefined):
            raise UndefinedError(value._undefined_message)
        return list(islice(value, _MAX_ITEMS)) if isinstance(value, Iterator) else value
    except Exception as error:  # whatever an expression raises is the template's fault
        raise _render_fault(source, values, error) from error


@lru_cache(maxsize=1024)
def single_expression(source: str) -> str | None:
    """Return the expression inside ``{{ … }}`` when it is all that ``source`` holds, else None."""
    from jinja2 import nodes

    stripped = source.strip()
    if not (stripped.startswith("{{") and stripped.endswith("}}")):
        return None
    body = _parsed(stripped).body
    is_one_output = len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1
    return stripped[2:-2].strip("-").strip() if is_one_output else None


def check_template(source: str) -> None:
    """Compile ``source`` without rendering it.

    Raises:
        TaskError: it is no template, or too long.
    """
    _compiled(source)


@lru_cache(maxsize=1024)
def names_in(source: str) -> frozenset[str]:
    """Return the names that ``source`` takes from its values, in no order."""
    from jinja2 import meta

    check_template(source)
    return frozenset(meta.find_undeclared_variables(_parsed(source)) - _OWN_NAMES)


@lru_cache(maxsize=1024)
def fields_read(source: str) -> frozenset[str] | None:
    """Return the fields that decide what ``source`` renders to; None where any field may: it reads ``row`` as a whole.

    >>> sorted(fields_read('{{ a }} {{ row["b c"] }}')), fields_read("{{ row | length }}")
    (['a', 'b c'], None)
    """
    from jinja2 import nodes

    tree = _parsed(source)
    taken = [
        (node.node, node.arg.value if isinstance(node.arg, nodes.Const) else None)
        for node in tree.find_all(nodes.Getitem)
    ]
    taken += [(node.node, node.attr) for node in tree.find_all(nodes.Getattr)]
    of_row = [key for node, key in taken if isinstance(node, nodes.Name) and node.name == "row"]
    mentions = sum(node.name == "row" for node in tree.find_all(nodes.Name))
    chooses_by_row = any(node.name == "choice" for node in tree.find_all(nodes.Filter))
    plain = [key for key in of_row if isinstance(key, str) and not hasattr(dict, key)]  # row.items() reads all
    return None if chooses_by_row or len(plain) < mentions else names_in(source) | frozenset(plain)


def field_source(text: str) -> str:
    """Return the template for ``text``: as it is where it holds Jinja2, else the field of that name.

    >>> field_source("sentence"), field_source("{{ a }} and {{ b }}"), field_source("Customer query")
    ('{{ sentence }}', '{{ a }} and {{ b }}', '{{ row["Customer query"] }}')
    """
    if "{{" in text or "{%" in text:
        return text
    if _IDENTIFIER.fullmatch(text) and text not in _JINJA_WORDS | _OWN_NAMES:
        return f"{{{{ {text} }}}}"
    return f"{{{{ row[{json.dumps(text, ensure_ascii=False)}] }}}}"


def plain_source(text: str) -> str:
    """Return a template that renders to ``text`` itself, whatever braces it holds."""
    if not any(mark in text for mark in ("{{", "{%", "{#")):
        return text
    return "".join(f"{{{{ {part!r} }}}}" if part == "{" else part for part in re.split(r"(\{)", text))


@lru_cache(maxsize=1)
def _environment() -> TemplateEnvironment:
    from taskfit.tasks.sandbox import TemplateEnvironment

    return TemplateEnvironment()


def _checked_length(source: str) -> str:
    if len(source) > MAX_SOURCE_LENGTH:
        raise TaskError(f"a template may have {MAX_SOURCE_LENGTH} characters at most (got {len(source)})")
    return source


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Template:
    from jinja2 import TemplateError

    try:
        return _environment().from_string(_checked_length(source))
    except (TemplateError, RecursionError, ValueError, SyntaxError) as error:
        raise TaskError(f"{_shown(source)} is no Jinja2 template: {error}") from error


@lru_cache(maxsize=1024)
def _compiled_expression(expression: str) -> TemplateExpression:
    return _environment().compile_expression(expression, undefined_to_none=False)


def _parsed(source: str) -> nodes.Template:
    from jinja2 import TemplateError

    try:
        return _environment().parse(_checked_length(source))
    except (TemplateError, RecursionError) as error:
        raise TaskError(f"{_shown(source)} is no Jinja2 template: {error}") from error


def _shown(source: str) -> str:
    return repr(source if len(source) <= 80 else source[:77] + "...")


def _render_fault(source: str, values: Mapping[str, object], error: Exception) -> TaskError:
    """Say what is wrong with a template; a missing name is answered with the names that exist."""
    missing = _MISSING_NAME.match(str(error))
    fields = values.get("row", values)
    known = sorted(cast("Mapping[str, object]", fields) if isinstance(fields, Mapping) else values)
    if missing:
        name = missing.group(1)
        listed = ", ".join(known) or "none"
        return TaskError(
            f"template {_shown(source)} names '{name}', which is no field{nearest(name, known)}; fields: {listed}"
        )
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return TaskError(f"template {_shown(source)} cannot be rendered: {reason}")
