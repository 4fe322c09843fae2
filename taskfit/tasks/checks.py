"""What must hold for the rows of a task, checked for all of them before anything is fitted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from taskfit.errors import DataError, Faults, TaskError, TaskfitError, nearest
from taskfit.tasks.chat import chat_of
from taskfit.tasks.definition import TaskDefinition
from taskfit.tasks.task import Row, Split

__all__ = ["RowFaults", "check_rows"]

MAX_EXAMPLES = 20
"""Most different faults that one message lists."""
CHECKED_PER_WORDING = 1_000
"""Rows of each split that further wordings are tried on; the first wording is tried on all rows."""

_ROW_PREFIX = re.compile(r"^row \S+: ")


class RowFaults:
    """Faults of rows, grouped: each fault once, with the first row that has it and the number of others."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = places
        self.rows: dict[str, list[Row]] = {}
        self.details: dict[str, str] = {}
        self.is_template_fault = False

    def add(self, row: Row, message: str, detail: str = "") -> None:
        """Note that ``row`` has the fault ``message``; the detail is shown for the first row that has it."""
        self.rows.setdefault(message, []).append(row)
        self.details.setdefault(message, detail)

    def add_error(self, row: Row, error: TaskfitError, where: str) -> None:
        """Note an error that ``row`` has raised."""
        self.is_template_fault = self.is_template_fault or isinstance(error, TaskError)
        self.add(row, f"{where}{_ROW_PREFIX.sub('', error.message)}")

    def row_ids(self) -> frozenset[str]:
        """Return the ids of all rows with a fault."""
        return frozenset(row.id for rows in self.rows.values() for row in rows)

    def listed(self) -> list[str]:
        """Return one sentence a fault; at most 20, then how many are left out."""
        sentences = [self._sentence(message, rows) for message, rows in list(self.rows.items())[:MAX_EXAMPLES]]
        if len(self.rows) > MAX_EXAMPLES:
            sentences.append(f"and {len(self.rows) - MAX_EXAMPLES} more")
        return sentences

    def _sentence(self, message: str, rows: Sequence[Row]) -> str:
        others = len(rows) - 1
        more = f"; and {others} more row{'s' if others > 1 else ''}" if others else ""
        return (
            f"{message}{self.details[message]} (row {rows[0].id}, {self.places.get(rows[0].id, 'unknown place')}{more})"
        )


def check_rows(
    definition: TaskDefinition,
    splits: Mapping[Split, tuple[Row, ...]],
    places: Mapping[str, str],
    *,
    subject: str,
    may_drop: bool,
) -> tuple[dict[Split, tuple[Row, ...]], tuple[str, ...], list[str]]:
    """Check every row against the definition.

    Args:
        definition: what the rows must fit.
        splits: the rows.
        places: row id to file and line.
        subject: the task file, for messages.
        may_drop: drop faulty rows; otherwise they are an error.

    Returns:
        The splits without the dropped rows, the ids dropped, and sentences on what is allowed but should be known.

    Raises:
        TaskError: a template does not fit the rows. DataError: a split is empty, a label or option is wrong. All faults
            together, at most 20 different ones.
    """
    faults = RowFaults(places)
    for rows in splits.values():
        for number, row in enumerate(rows):
            _check_row(
                definition, row, faults, wordings=1 if number >= CHECKED_PER_WORDING else len(definition.wordings)
            )
    faulty = faults.row_ids() if may_drop else frozenset()
    kept = {split: tuple(row for row in rows if row.id not in faulty) for split, rows in splits.items()}
    whole, notes = _check_whole(definition, kept)
    if faults.rows and (not may_drop or whole):
        whole += faults.listed()
    found = Faults(subject)
    for message in whole:
        found.add(message)
    hint = "Mend the rows or the task file, or leave such rows out with `faulty_rows: drop`." if faults.rows else None
    found.raise_as(TaskError if faults.is_template_fault else DataError, hint)
    dropped = tuple(row.id for rows in splits.values() for row in rows if row.id in faulty)
    return kept, dropped, notes + [f"dropped: {sentence}" for sentence in (faults.listed() if faulty else [])]


def _check_whole(definition: TaskDefinition, splits: Mapping[Split, Sequence[Row]]) -> tuple[list[str], list[str]]:
    """Return the faults and the notes that concern no single row."""
    faults = [f"the split {split} is empty" for split, rows in splits.items() if not rows]
    notes: list[str] = []
    if any(len(rows) > CHECKED_PER_WORDING for rows in splits.values()) and len(definition.wordings) > 1:
        notes.append(f"wordings after the first were checked on the first {CHECKED_PER_WORDING} rows of each split")
    if definition.kind == "classification":
        classes = {split: _classes(definition, rows) for split, rows in splits.items()}
        faults += _label_faults(definition)
        if splits["train"] and len(classes["train"]) < 2:
            only = next(iter(classes["train"]), "")
            faults.append(f"all rows of train have one label, '{only}'; at least 2 are needed")
        notes += _absent_labels(definition, classes)
    return faults, notes


def _check_row(definition: TaskDefinition, row: Row, faults: RowFaults, wordings: int) -> None:
    try:
        chat_of(definition, row)
    except TaskfitError as error:
        faults.add_error(row, error, "messages: ")
        return
    try:
        definition.input_text(row)
    except TaskfitError as error:
        faults.add_error(row, error, "input: ")
    try:
        gold = definition.gold(row)
    except TaskfitError as error:
        faults.add_error(row, error, "target: ")
        return
    if not gold:
        faults.add(row, "the target is empty")
    if definition.group is not None and row.fields.get(definition.group) is None:
        faults.add(row, f"`{definition.group}`, the field of groups, is missing")
    _check_labels(definition, row, gold, faults)
    for wording in range(wordings):
        name = f"wording '{definition.wordings[wording].name}': "
        try:
            _check_wording(definition, row, gold, wording, name, faults)
        except TaskfitError as error:
            faults.add_error(row, error, name)


def _check_labels(definition: TaskDefinition, row: Row, gold: Sequence[str], faults: RowFaults) -> None:
    if definition.kind != "classification":
        return
    for label in gold:
        if label not in definition.labels:
            shown = ", ".join(definition.labels[:20]) + (", …" if len(definition.labels) > 20 else "")
            faults.add(
                row, f"label '{label}' is none of the labels{nearest(label, definition.labels)}; labels: {shown}"
            )


def _check_wording(
    definition: TaskDefinition, row: Row, gold: Sequence[str], wording: int, name: str, faults: RowFaults
) -> None:
    definition.prompt_text(row, wording)
    written = definition.written_target(row, wording)
    if not written:
        faults.add(row, f"{name}the target is empty")
    if definition.kind == "choice":
        _check_options(definition, row, gold, wording, name, faults)
    elif definition.kind == "classification" and gold and gold[0] in definition.labels:
        text = definition.wordings[wording].label_texts.get(gold[0], gold[0])
        if written and written not in (gold[0], text):
            detail = f"; it says '{written}' where '{text}' was expected"
            faults.add(row, f"{name}the target is not the text of the label '{gold[0]}'", detail)


def _check_options(
    definition: TaskDefinition, row: Row, gold: Sequence[str], wording: int, name: str, faults: RowFaults
) -> None:
    options = definition.options(row, wording)
    values = [option.value for option in options]
    texts = [option.text for option in options]
    if len(options) < 2:
        faults.add(row, f"{name}a row needs at least 2 options (got {len(options)})")
    if not all(texts) or not all(values):
        faults.add(row, f"{name}an option is empty")
    for items in (values, texts):
        repeated = next((item for item in items if item and items.count(item) > 1), None)
        if repeated is not None:
            faults.add(row, f"{name}two options are the same", f": '{repeated}'")
            break
    for answer in gold:
        if answer not in values:
            shown = ", ".join(values[:10])
            detail = f": '{answer}'{nearest(answer, values)}; options: {shown}"
            faults.add(row, f"{name}the answer is none of the options", detail)


def _label_faults(definition: TaskDefinition) -> list[str]:
    faults: list[str] = []
    for wording in definition.wordings:
        texts = [wording.label_texts.get(label, label) for label in definition.labels]
        for label in wording.label_texts:
            if label not in definition.labels:
                near = nearest(label, definition.labels)
                faults.append(
                    f"wording '{wording.name}': `labels` names '{label}', which is no label of the task{near}"
                )
        if not all(texts):
            faults.append(f"wording '{wording.name}': the text of a label is empty")
        repeated = next((text for text in texts if text and texts.count(text) > 1), None)
        if repeated is not None:
            faults.append(f"wording '{wording.name}': two labels have the same text '{repeated}'")
    return faults


def _classes(definition: TaskDefinition, rows: Sequence[Row]) -> set[str]:
    found: set[str] = set()
    for row in rows:
        try:
            found.update(definition.gold(row)[:1])
        except TaskfitError:  # reported with the row
            continue
    return found


def _absent_labels(definition: TaskDefinition, classes: Mapping[Split, set[str]]) -> list[str]:
    notes: list[str] = []
    for split, found in classes.items():
        absent = [label for label in definition.labels if label not in found]
        if absent:
            more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
            notes.append(f"{split} has no row with the label {', '.join(absent[:10])}{more}")
    return notes
