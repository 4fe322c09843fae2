"""The wording that a task gets when its file gives only ``input`` and ``target``."""

from __future__ import annotations

from collections.abc import Mapping

from taskfit.tasks.definition import Wording
from taskfit.tasks.task import Kind
from taskfit.tasks.template import plain_source

__all__ = ["MAX_LISTED_LABELS", "default_wording"]

MAX_LISTED_LABELS = 20
"""With more labels than this, the default prompt does not list them."""


def default_wording(
    kind: Kind,
    input_source: str,
    target_source: str,
    *,
    instruction: str | None = None,
    options: str | None = None,
    label_texts: Mapping[str, str] | None = None,
    label_count: int = 0,
) -> Wording:
    """Return the plain wording: the instruction, the input, what may be answered, and ``Answer:``.

    The parts are divided by empty lines. Labels are listed on one line (``Options: a, b, c``) when there are 20 or
    fewer; a row's own options stand one on a line behind a dash.
    """
    parts = [plain_source(instruction)] if instruction else []
    parts.append(input_source)
    if kind == "classification" and label_count <= MAX_LISTED_LABELS:
        parts.append('Options: {{ answer_choices | join(", ") }}')
    if kind == "choice":
        parts.append("Options:{% for choice in answer_choices %}\n- {{ choice }}{% endfor %}")
    parts.append("Answer:")
    return Wording("default", "\n\n".join(parts), target_source, dict(label_texts or {}), options)
