"""The test rows as a study keeps them, so that its report needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import StudyError
from taskfit.files import appearing
from taskfit.studies.folder import disk_full_named

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.tasks.task import Task

__all__ = ["TestRow", "read_test_rows", "write_test_rows"]

_FILE = "test_rows.parquet"
_MOST_CHARACTERS = 2000


@dataclass(frozen=True)
class TestRow:
    """One test row.

    Attributes:
        text: its input, at most 2,000 characters.
        gold: the right answers.
        group: what it belongs together with; None where the task has no groups.
    """

    __test__ = False  # the name is no test of ours

    row_id: str
    text: str
    gold: tuple[str, ...]
    group: str | None


def write_test_rows(folder: Path, task: Task) -> None:
    """Write the test rows into the study's folder.

    Raises:
        ResourceError: the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    definition, group = task.definition, task.definition.group
    columns = {
        "row_id": [row.id for row in task.test],
        "text": [definition.input_text(row)[:_MOST_CHARACTERS] for row in task.test],
        "gold": [list(definition.gold(row)) for row in task.test],
        "group": [None if group is None else str(row.fields.get(group)) for row in task.test],
    }
    schema = pa.schema(
        [("row_id", pa.string()), ("text", pa.string()), ("gold", pa.list_(pa.string())), ("group", pa.string())]
    )
    with disk_full_named(folder), appearing(folder / _FILE) as partial:
        pq.write_table(pa.table(columns, schema=schema), partial, compression="zstd")


def read_test_rows(folder: Path) -> list[TestRow]:
    """Read the test rows of a study, in order.

    Raises:
        StudyError: the file is missing or broken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(folder / _FILE).to_pylist()
        return [TestRow(r["row_id"], r["text"], tuple(r["gold"]), r["group"]) for r in records]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StudyError(f"{folder / _FILE} cannot be read: {error}", "run compare into a new folder") from error
