"""A model that answers every row alike is told of, one that looks at the rows is not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tuning.examples import Example
from taskfit.tuning.input_use import swapped
from tests.tuning.keyword_task import keyword_task, tiny_model


@given(st.lists(st.integers(0, 5), max_size=40))
def test_every_row_gets_another_rows_answer(labels: list[int]) -> None:
    """Where no label has more than half of the rows, none is left out and answers keep their numbers."""
    examples = [Example(f"r{n}", (n + 10,), (label, 1)) for n, label in enumerate(labels)]
    own, others = swapped(examples)
    assert all(a.prompt == b.prompt and a.answer != b.answer for a, b in zip(own, others, strict=True))
    counts = Counter(labels)
    if counts and max(counts.values()) * 2 <= len(labels):
        assert len(own) == len(labels)
        assert Counter(one.answer for one in own) == Counter(other.answer for other in others)


@pytest.mark.parametrize(
    ("pace", "is_told"), [("min_steps=1, max_steps=1, learning_rate=1e-9", True), ("min_steps=40, batch=8", False)]
)
def test_answers_that_do_not_depend_on_the_rows_are_told(tmp_path: Path, pace: str, is_told: bool) -> None:
    """The words good and bad decide; one step at no rate learns nothing of them."""
    said: list[str] = []
    parse(f"full({pace})").fit(
        tiny_model(tmp_path, "llama"), keyword_task(24, 16), seed=0, budget=Budget(say=said.append)
    )
    assert any("of answers hardly depend on the rows" in line for line in said) == is_told
