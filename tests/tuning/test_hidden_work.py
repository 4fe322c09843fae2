"""Trained vectors before every prompt are computed, or seen, by every position; the work of predicting says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskfit.inference.requests import Generate, Score
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tasks.prompt import Prompt
from tests.tuning.keyword_task import Family, keyword_task, tiny_model

PROMPT = Prompt(text="the fish at the harbour was")


def work_with(folder: Path, name: str, family: Family) -> tuple[Work, Work]:
    """Work of scoring one prompt and then of generating two tokens, behind fresh vectors."""
    model = tiny_model(folder, family)
    with parse(name).weights.training(model, seed=0):  # type: ignore[attr-defined]
        pass
    engine = TorchEngine(model)
    engine.run([Score(PROMPT, (" good", " bad"))])
    scored = engine.work
    engine.run([Generate(PROMPT, max_tokens=2)])
    generated = Work(*(b - a for a, b in zip(vars(scored).values(), vars(engine.work).values(), strict=True)))
    return scored, generated


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_soft_prompts_count_as_computed_tokens(tmp_path: Path, family: Family) -> None:
    """With each vector, every sequence that begins is a token longer, and everything attends to it."""
    few, more, most = (work_with(tmp_path, f"prompt-tuning(tokens={count})", family) for count in (3, 6, 9))
    for one, two, three in zip(few, more, most, strict=True):
        added = two.computed_tokens - one.computed_tokens
        assert added > 0
        assert added % 3 == 0
        assert three.computed_tokens - two.computed_tokens == added
        assert one.attended_pairs < two.attended_pairs < three.attended_pairs
        assert one.prompt_tokens == two.prompt_tokens


def test_a_prefix_is_seen_but_not_computed(tmp_path: Path) -> None:
    """Its keys and values stand ready: no token more, but each position attends to all of them."""
    few, more = (work_with(tmp_path, f"prefix-tuning(tokens={count})", "gpt2") for count in (3, 6))
    for one, two in zip(few, more, strict=True):
        assert two.computed_tokens == one.computed_tokens
        assert two.attended_pairs == one.attended_pairs + 3 * one.computed_tokens


def test_an_encoder_behind_soft_prompts_counts_them_too(tmp_path: Path) -> None:
    """Each row of each batch begins with them."""
    task = keyword_task()
    found = {}
    for tune in ("prompt-tuning(tokens=3)", "bitfit"):
        model = tiny_model(tmp_path, "bert")
        strategy = parse(f"encoder(epochs=1, min_steps=1, tune={tune})")
        predictor = strategy.fit(model, task, seed=0, budget=Budget(say=lambda line: None))
        found[tune] = predictor
        list(predictor.predict(task.test))
    with_vectors, without = (found[tune].predict_work.computed_tokens for tune in ("prompt-tuning(tokens=3)", "bitfit"))
    assert with_vectors == without + 3 * len(task.test)
