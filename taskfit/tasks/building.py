"""From the task file and a look at the rows to the task's definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from taskfit.errors import DataError, TaskfitError
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.promptsource import read_promptsource
from taskfit.tasks.task import Row
from taskfit.tasks.task_file import TaskFile
from taskfit.tasks.template import field_source, names_in
from taskfit.tasks.wordings import default_wording

__all__ = ["MAX_LABELS_READ", "build_definition"]

MAX_LABELS_READ = 1_000
"""With more label values than this in the rows, the task file must list them: more likely, they are no labels."""


@dataclass(frozen=True)
class _Sources:
    text: str
    references: tuple[str, ...]
    wordings: tuple[Wording, ...]


def build_definition(
    task_file: TaskFile, train: Sequence[Row], rows: Sequence[Row]
) -> tuple[TaskDefinition, list[str]]:
    """Return the definition and what had to be decided for it, in sentences.

    Args:
        task_file: what the user wrote.
        train: the rows that labels are read from when the task file lists none.
        rows: all rows; label texts of a wording are learnt from them where a template makes them.

    Raises:
        TaskError: a promptsource file is broken. DataError: the labels cannot be read from the rows.
    """
    notes: list[str] = []
    sources = _sources(task_file, rows, notes)
    definition = TaskDefinition(
        name=task_file.name,
        kind=task_file.kind,
        wordings=sources.wordings,
        text=sources.text,
        references=sources.references,
        labels=task_file.labels or (),
        metrics=task_file.metrics,
        instruction=task_file.instruction,
        rationale=task_file.rationale,
        group=task_file.group,
        max_answer_tokens=task_file.max_answer_tokens,
        messages=task_file.messages,
    )
    if definition.kind != "classification":
        return definition, notes
    if not definition.labels:
        definition = replace(definition, labels=_labels_of(definition, train))
        notes.append(f"labels were read from the training rows: {_listed(definition.labels)}")
    return _with_wordings(definition, task_file, rows, notes), notes


def _sources(task_file: TaskFile, rows: Sequence[Row], notes: list[str]) -> _Sources:
    wordings = task_file.templates
    if task_file.promptsource is not None:
        wordings = read_promptsource(task_file.promptsource)
        wordings = tuple(replace(wording, options=wording.options or task_file.options) for wording in wordings)
    if not wordings:
        wordings = (_default(task_file, label_count=len(task_file.labels or ())),)
    references = task_file.references or ((task_file.target,) if task_file.target else (wordings[0].target,))
    if task_file.input is not None:
        return _Sources(task_file.input, references, wordings)
    names = _text_fields(wordings[0], () if task_file.kind == "choice" else references, rows)
    text = "\n".join(field_source(name) for name in names) or wordings[0].prompt
    made_of = " and ".join(f"`{name}`" for name in names) or f"the prompt of wording '{wordings[0].name}'"
    notes.append(f"the input that encoders read is {made_of}; give `input` in the task file to change it")
    return _Sources(text, references, wordings)


def _default(task_file: TaskFile, label_count: int) -> Wording:
    return default_wording(
        task_file.kind,
        task_file.input or "",
        task_file.target or "",
        instruction=task_file.instruction,
        options=task_file.options,
        label_texts=task_file.label_texts,
        label_count=label_count,
    )


def _text_fields(wording: Wording, answers: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return the fields with text that the prompt names, in order of the first row, without those of the answer."""
    sample = rows[:100]
    hidden = {name for source in answers for name in names_in(source)}
    names = names_in(wording.prompt) - hidden
    if not sample:
        return []
    return [
        name
        for name in sample[0].fields
        if name in names and all(isinstance(row.fields.get(name), str) for row in sample)
    ]


def _labels_of(definition: TaskDefinition, train: Sequence[Row]) -> tuple[str, ...]:
    """Return the label values of the rows: in order of number where all are whole numbers, else of the alphabet."""
    values: set[str] = set()
    for row in train:
        try:
            values.update(definition.gold(row))
        except TaskfitError:  # the check of all rows reports it
            continue
    if len(values) > MAX_LABELS_READ:
        raise DataError(
            f"the training rows have {len(values)} different answers, too many for labels",
            "Is the kind `generation`, or does `target` name another field? Otherwise list the `labels`.",
        )
    if all(value.removeprefix("-").isdecimal() for value in values):
        return tuple(sorted(values, key=int))
    return tuple(sorted(values))


def _with_wordings(
    definition: TaskDefinition, task_file: TaskFile, rows: Sequence[Row], notes: list[str]
) -> TaskDefinition:
    """Fill in what wordings need to know of the labels."""
    if not task_file.templates and task_file.promptsource is None:
        return replace(definition, wordings=(_default(task_file, label_count=len(definition.labels)),))
    wordings = tuple(
        wording if wording.label_texts else replace(wording, label_texts=_label_texts(definition, number, rows, notes))
        for number, wording in enumerate(definition.wordings)
    )
    return replace(definition, wordings=wordings)


def _label_texts(definition: TaskDefinition, wording: int, rows: Sequence[Row], notes: list[str]) -> Mapping[str, str]:
    """Return what the wording's target says for each label value, read from the first row of each."""
    texts: dict[str, str] = {}
    for row in rows:
        try:
            label = next(iter(definition.gold(row)), "")
            if label in definition.labels and label not in texts:
                texts[label] = definition.written_target(row, wording)
        except TaskfitError:  # the check of all rows reports it
            continue
        if len(texts) == len(definition.labels):
            break
    if all(label == text for label, text in texts.items()):
        return {}
    unseen = [label for label in definition.labels if label not in texts]
    if unseen:
        name = definition.wordings[wording].name
        notes.append(f"no row shows what wording '{name}' says for {_listed(unseen)}; the label itself is taken")
    return texts


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:20])
    return shown if len(labels) <= 20 else f"{shown} and {len(labels) - 20} more"
