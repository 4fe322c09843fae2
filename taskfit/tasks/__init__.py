"""Task files, data sources, templates and splits."""

from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.init import init_task
from taskfit.tasks.load import load_task, rows_from, unlabelled_rows
from taskfit.tasks.metric_names import METRIC_NAMES
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.tasks.subset import take_rows, take_train
from taskfit.tasks.task import DataReport, Kind, Option, Row, Split, Task

__all__ = [
    "DataReport",
    "Kind",
    "METRIC_NAMES",
    "Option",
    "Prompt",
    "Row",
    "Shot",
    "Split",
    "Task",
    "TaskDefinition",
    "Wording",
    "init_task",
    "load_task",
    "rows_from",
    "take_rows",
    "take_train",
    "unlabelled_rows",
]
