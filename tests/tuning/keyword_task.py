"""A task that a tiny model can learn, and tiny models to learn it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from taskfit.models.language_model import LanguageModel
from taskfit.models.load import open_folder
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import DataReport, Kind, Row, Task
from taskfit.testing import tiny_decoder, tiny_encoder, tiny_encoder_decoder

Family = Literal["llama", "plain", "gpt2", "chat", "t5", "bert", "masked-bert", "span-t5"]

NOUNS = ("film", "market", "ending", "cook", "boat", "song", "harbour", "weather", "fish", "sun", "tide", "cat")


def tiny_model(folder: Path, family: Family, dtype: str = "float32") -> LanguageModel:
    """A freshly loaded tiny model; its files are made once per folder."""
    path = folder / family
    if not path.exists():
        if family == "t5":
            tiny_encoder_decoder(path)
        elif family == "span-t5":
            tiny_encoder_decoder(path, sentinels=40)
        elif family in ("bert", "masked-bert"):
            tiny_encoder(path, has_masked_head=family == "masked-bert")
        else:
            kind: Literal["gpt2", "llama"] = "gpt2" if family == "gpt2" else "llama"
            tiny_decoder(path, kind=kind, chat=family == "chat", is_plain=family == "plain")
    return open_folder(path, dtype=dtype, device="cpu")


def rows(count: int, start: int = 0) -> tuple[Row, ...]:
    """Rows of good and bad things in turn; no two alike."""
    made = []
    for index in range(start, start + count):
        label = "positive" if index % 2 else "negative"
        noun, other = NOUNS[index % len(NOUNS)], NOUNS[(index // len(NOUNS) + 3) % len(NOUNS)]
        text = f"the {noun} was {'good' if index % 2 else 'bad'}, said the {other}, number {index}"
        made.append(Row(f"r{index}", {"text": text, "label": label}))
    return tuple(made)


def keyword_task(train: int = 16, validation: int = 8, *, kind: Kind = "classification", prompt: str = "") -> Task:
    """Is it good or bad?"""
    definition = TaskDefinition(
        name="keywords",
        kind=kind,
        wordings=(Wording("plain", prompt or "{{ text }}\nLabel:", "{{ label }}", {}),),
        text="{{ text }}",
        references=("{{ label }}",),
        labels=("negative", "positive") if kind == "classification" else (),
        metrics=("accuracy",),
        max_answer_tokens=8,
    )
    splits = {"train": rows(train), "validation": rows(validation, 100), "test": rows(8, 200)}
    return Task(definition, splits, "f" * 64, DataReport())  # type: ignore[arg-type]
