"""Labels as data files that a task file can name as training rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.files import appearing

if TYPE_CHECKING:
    from taskfit.distillation.ledger import Label
    from taskfit.tasks.definition import TaskDefinition

__all__ = ["answer_field", "write_data"]

_FIELD = re.compile(r"""\{\{-?\s*(?:([A-Za-z_]\w*)|row\[("(?:[^"\\]|\\.)*")\])\s*-?\}\}""")
_AT_ONCE = 1000


def answer_field(definition: TaskDefinition) -> str:
    """Return the field that the task reads its answer from, or ``label`` where a template makes the answer.

    In the second case the training data's own task file must say ``target: label``.
    """
    found = _FIELD.fullmatch(definition.references[0].strip())
    if found is None:
        return "label"
    return found.group(1) or str(json.loads(found.group(2)))


def write_data(
    path: Path,
    definition: TaskDefinition,
    labels: Iterable[Label],
    confidences: Mapping[str, float | None],
    people: Mapping[str, str],
    *,
    has_rationales: bool,
) -> None:
    """Write labelled rows, whole or not at all; the end of the name says the format.

    Each row has its own fields, its id, the label in the field that the task reads, and ``annotation_confidence``
    (calibrated; empty where nothing is known; 1 for a person's), ``annotation_by`` (``teacher`` or ``person``), and
    with ``has_rationales`` ``annotation_rationale``.

    Args:
        path: ends in ``.jsonl`` or ``.parquet``.
        definition: of the task.
        labels: one a row.
        has_rationales: whether what the teacher wrote is kept.
        confidences: row id to confidence.
        people: row id to a person's label, which stands in the place of the teacher's.
    """
    records = (_record(definition, label, confidences, people, has_rationales) for label in labels)
    with appearing(path) as partial:
        if path.suffix == ".parquet":
            _write_parquet(partial, list(records))
            return
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _record(
    definition: TaskDefinition,
    label: Label,
    confidences: Mapping[str, float | None],
    people: Mapping[str, str],
    has_rationales: bool,
) -> dict[str, Any]:
    person = people.get(label.row.id)
    confidence = 1.0 if person is not None else confidences.get(label.row.id)
    return {
        "id": label.row.id,
        **label.row.fields,
        answer_field(definition): label.answer if person is None else person,
        "annotation_confidence": None if confidence is None else round(confidence, 6),
        "annotation_by": "teacher" if person is None else "person",
        **({"annotation_rationale": label.raw} if has_rationales else {}),
    }


def _write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    names = dict.fromkeys(name for record in records for name in record)
    columns: dict[str, Any] = {name: [record.get(name) for record in records] for name in names}
    for name, values in columns.items():
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError):  # texts here and numbers there, or numbers beyond 64 bits
            columns[name] = pyarrow.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
