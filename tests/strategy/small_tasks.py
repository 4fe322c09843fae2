"""Small tasks built in code, one of each kind, for the tests of strategies."""

from __future__ import annotations

from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import DataReport, Kind, Row, Task

_WORDS = {"good": ("great", "warm", "bright"), "bad": ("awful", "cold", "dull"), "odd": ("strange", "queer", "weird")}


def small_task(kind: Kind, *, train: int = 9, validation: int = 6, test: int = 5) -> Task:
    """Return a task of ``kind`` whose answer a keyword gives; no input text stands in two splits."""
    rows = [_row(kind, number) for number in range(train + validation + test)]
    splits = {
        "train": tuple(rows[:train]),
        "validation": tuple(rows[train : train + validation]),
        "test": tuple(rows[train + validation :]),
    }
    return Task(_definition(kind), splits, f"fingerprint of {kind}", DataReport())


def _row(kind: Kind, number: int) -> Row:
    labels = list(_WORDS)
    label = labels[number % 3]
    word = _WORDS[label][number // 3 % 3]
    fields = {"text": f"a {word} film, number {number}", "label": label}
    if kind == "choice":
        turned = labels[number % 2 :] + labels[: number % 2]
        fields |= {"options": [f"it is {name}" for name in turned], "label": f"it is {label}"}
    if kind == "generation":
        fields |= {"label": f"the film is {label}"}
    return Row(f"row-{number:03d}", fields)


def _definition(kind: Kind) -> TaskDefinition:
    wordings = (
        Wording("plain", "Film: {{ text }}\nLabel:", "{{ label }}", {}, _options(kind)),
        Wording("long", "What is said of this film? {{ text }}", "{{ label }}", {}, _options(kind)),
    )
    return TaskDefinition(
        name=f"films-{kind}",
        kind=kind,
        wordings=wordings,
        text="{{ text }}",
        references=("{{ label }}",),
        labels=tuple(sorted(_WORDS)) if kind == "classification" else (),
        metrics={"classification": ("macro_f1", "accuracy"), "choice": ("accuracy",), "generation": ("rouge_l",)}[kind],
        max_answer_tokens=4,
    )


def _options(kind: Kind) -> str | None:
    return "{{ options }}" if kind == "choice" else None
