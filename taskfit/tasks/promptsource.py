"""Wordings from a promptsource template file, as it is.

Source: Bach et al. 2022, "PromptSource: An Integrated Development Environment and Repository for Natural Language
Prompts", section 3: a template is rendered and then divided at ``|||`` into input and target.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import Faults, TaskError
from taskfit.tasks.definition import Wording
from taskfit.tasks.options import SEPARATOR
from taskfit.tasks.template import check_template
from taskfit.tasks.yaml_file import read_yaml

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["read_promptsource", "split_template"]

_STATEFUL = re.compile(r"\{%[-+]?\s*(?:set|macro|import|from)\b")


def read_promptsource(path: Path) -> tuple[Wording, ...]:
    """Return the wordings of a promptsource YAML file, in its order, under its names.

    Raises:
        TaskError: the file is none of promptsource's, or a template is broken; all faults together.
    """
    values = read_yaml(path)
    templates = values.get("templates") if isinstance(values, dict) else None
    if not isinstance(templates, dict) or not templates:
        raise TaskError(f"{path}: no promptsource file: it needs a mapping `templates`")
    faults = Faults(str(path))
    wordings = [_wording(key, entry, faults) for key, entry in templates.items()]
    names = [wording.name for wording in wordings if wording]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(f"two templates have the name '{name}'")
    faults.raise_as(TaskError)
    return tuple(wording for wording in wordings if wording)


def split_template(source: str) -> tuple[str, str]:
    """Return the sources of prompt and target of one promptsource template.

    A template that sets names, or has its ``|||`` inside a statement, is rendered whole by both and then divided.

    Raises:
        TaskError: there is no ``|||``, or the template does not compile.
    """
    if SEPARATOR not in source:
        raise TaskError(f"a template needs {SEPARATOR} between input and target")
    check_template(source)
    halves = source.split(SEPARATOR)
    if len(halves) == 2 and not _STATEFUL.search(source) and _compile(halves):
        return halves[0].strip(), halves[1].strip()
    whole = f"{{% set rendered_whole %}}{source}{{% endset %}}"
    prompt, target = (f"{{{{ (rendered_whole.split('{SEPARATOR}') + [''])[{half}] | trim }}}}" for half in (0, 1))
    return whole + prompt, whole + target


def _compile(halves: list[str]) -> bool:
    try:
        for half in halves:
            check_template(half)
    except TaskError:
        return False
    return True


def _wording(key: str, entry: Value, faults: Faults) -> Wording | None:
    name, source = (entry.get("name"), entry.get("jinja")) if isinstance(entry, dict) else (None, None)
    if not isinstance(entry, dict) or not isinstance(source, str):
        faults.add(f"template {key} needs a text `jinja`")
        return None
    choices = entry.get("answer_choices")
    name = str(name or key)
    try:
        prompt, target = split_template(source)
        if isinstance(choices, str):
            check_template(choices)
    except TaskError as error:
        faults.add(f"template '{name}': {error.message}")
        return None
    return Wording(name, prompt, target, {}, choices if isinstance(choices, str) and choices else None)
