"""Writes small task folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

WriteTask = Callable[..., Path]


def json_lines(rows: Sequence[object]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def sentiment_rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Rows of two labels, all with different texts."""
    return [{"text": f"text number {n}", "label": ("good", "bad")[n % 2]} for n in range(start, start + count)]


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Write a task file and its data files into one folder and return the task file."""

    def write(text: str, **files: str | Sequence[object]) -> Path:
        for name, content in files.items():
            path = tmp_path / name.replace("__", ".")
            path.write_text(content if isinstance(content, str) else json_lines(content), encoding="utf-8")
        path = tmp_path / "task.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
