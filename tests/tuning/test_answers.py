"""What a fit says and refuses before it trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskfit.errors import ConfigError, StudyError
from taskfit.models.language_model import LanguageModel
from taskfit.strategy.contract import Budget
from taskfit.tuning import lesson, training
from taskfit.tuning.answers import Pace, train_examples
from taskfit.tuning.examples import Example
from taskfit.tuning.lora import Lora
from taskfit.tuning.ranks import Ranks
from taskfit.tuning.training_set import TrainingSet
from tests.tuning.keyword_task import tiny_model

EXAMPLES = [Example(f"r{row}", tuple(range(5, 9 + row)), (20 + row, 2)) for row in range(3)]
METHOD = Lora(epochs=1, min_steps=2, batch=16)


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    return tiny_model(tmp_path / "models", "llama")


def fit(model: LanguageModel, budget: Budget, examples: list[Example] = EXAMPLES, method: Lora = METHOD) -> None:
    with method.training(model, seed=0) as trainable:
        data = TrainingSet(tuple(examples), (), len(examples))
        pace = Pace(method, method.rate(model), method.trains)
        train_examples(model, data, pace, trainable, seed=0, budget=budget)
    method.detach(model)


def test_fewer_rows_than_a_batch_train_and_are_told(model: LanguageModel) -> None:
    """Every step sees them all."""
    said: list[str] = []
    fit(model, Budget(say=said.append))
    assert "3 rows are fewer than one batch of 16: every step sees all of them" in said
    assert any("tokens/s" in line for line in said)


def test_a_checkpoint_of_other_rows_model_or_method_says_which(model: LanguageModel, tmp_path: Path) -> None:
    """The part that differs is named, and nothing is trained."""
    budget = Budget(folder=tmp_path / "fit")
    fit(model, budget)
    base = tiny_model(tmp_path / "models", "llama")
    with pytest.raises(StudyError, match=r"another training run: rows was '[0-9a-f]{64}', now '[0-9a-f]{64}'$"):
        fit(base, budget, [*EXAMPLES[:2], replace(EXAMPLES[2], answer=(30, 2))])
    with pytest.raises(StudyError, match=r"model was '[0-9a-f]+', now 'another'$"):
        fit(replace(tiny_model(tmp_path / "models", "llama"), fingerprint="another"), budget)
    with pytest.raises(StudyError, match=r"another training run: learning_rate was .*; method was "):
        fit(tiny_model(tmp_path / "models", "llama"), budget, method=replace(METHOD, learning_rate=1e-3))


def test_a_checkpoint_of_other_versions_or_another_plan_says_which(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another library may round otherwise; another length has another schedule."""
    budget = Budget(folder=tmp_path / "fit")
    fit(model, budget)
    with pytest.raises(StudyError, match=r"another training run: method was .*steps was 2, now 3"):
        fit(tiny_model(tmp_path / "models", "llama"), budget, method=replace(METHOD, min_steps=3))
    again = tiny_model(tmp_path / "models", "llama")
    monkeypatch.setattr(lesson, "version", lambda name: f"{name} 0.1")
    found = r"peft was '[\d.]+', now 'peft 0.1'; transformers was '[\d.]+', now 'trans"
    with pytest.raises(StudyError, match=found):
        fit(again, budget)


def test_processes_that_train_together_take_no_time_limit(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would stop at different steps and wait for each other for ever."""
    monkeypatch.setattr(training, "join_ranks", lambda device: Ranks(0, 2))
    with pytest.raises(ConfigError, match="cannot keep a time limit"):
        fit(model, Budget(wall_s=60))
