"""Full tuning: what it trains and what it saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from taskfit.errors import ConfigError, PredictorError
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import FewShot, ZeroShot
from taskfit.strategy.composed import Composed
from taskfit.strategy.contract import Budget
from taskfit.strategy.predictor import load_predictor
from taskfit.tuning.full import Full
from taskfit.tuning.lora import Lora
from tests.tuning.keyword_task import Family, keyword_task, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "chat", "t5")
QUICK = Full(epochs=1, min_steps=3, batch=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def logits(module: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(5, 23).reshape(2, 9)
    with torch.no_grad():
        if module.config.is_encoder_decoder:
            return module(input_ids=ids, decoder_input_ids=ids[:, :4]).logits
        return module(input_ids=ids).logits


def fitted(model: LanguageModel, budget: Budget | None = None) -> object:
    task = keyword_task(8, 4)
    return QUICK.change(model, task, ZeroShot().prepare(task, seed=0), seed=0, budget=budget or Budget())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_saved_folder_loads_without_the_base_to_the_same_logits(
    folder: Path, tmp_path: Path, family: Family, dtype: str
) -> None:
    """In the number format in which the model came; every weight has been trained."""
    model = tiny_model(folder, family, dtype)
    before = {name: value.clone() for name, value in model.module.named_parameters()}
    work = fitted(model)
    assert work.trained_tokens > 0 and work.trained_frozen_tokens == 0
    if dtype == "float32":
        unchanged = [name for name, value in model.module.named_parameters() if torch.equal(value, before[name])]
        assert unchanged == []
    assert all(value.dtype == before[name].dtype for name, value in model.module.named_parameters())
    QUICK.save(model, tmp_path)
    loaded = QUICK.load(None, tmp_path)
    assert loaded.dtype == model.dtype
    assert loaded.end_token_ids == model.end_token_ids
    assert loaded.has_chat_template == model.has_chat_template
    assert_close(logits(loaded.module), logits(model.module), rtol=0, atol=0)


def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """Missing weights, a missing or unusable configuration."""
    good = tmp_path / "good"
    good.mkdir()
    QUICK.save(tiny_model(folder, "gpt2"), good)
    bad = shutil.copytree(good, tmp_path / "bad")
    values = load_file(bad / "model.safetensors")
    values.pop(sorted(values)[0])
    save_file(values, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PredictorError, match=r"holds no complete model: .*missing"):
        QUICK.load(None, bad)
    config = json.loads((good / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    with pytest.raises(PredictorError, match="dtype must be float32 or bfloat16"):
        QUICK.load(None, bad)
    (bad / "config.json").write_text("[")
    with pytest.raises(PredictorError, match="cannot be read as a model's configuration"):
        QUICK.load(None, bad)


def test_float16_is_refused_and_left_as_it_is(folder: Path) -> None:
    """Before any weight is converted."""
    model = tiny_model(folder, "llama", "float16")
    with pytest.raises(ConfigError, match="needs a model in float32 or bfloat16"):
        fitted(model)
    assert next(model.module.parameters()).dtype == torch.float16


def test_faults_of_the_parameters_are_said_together() -> None:
    """One error."""
    with pytest.raises(ConfigError, match=r"(?s)learning_rate must be .*epochs must be .*batch must be"):
        Full(learning_rate=-1.0, epochs=0, batch=0)
    with pytest.raises(ConfigError, match="epochs must be a whole number"):
        Full(epochs="many")  # type: ignore[arg-type]


def test_the_user_sees_an_example_the_rate_and_the_course(folder: Path) -> None:
    """Through the budget's say."""
    said: list[str] = []
    fitted(tiny_model(folder, "llama"), Budget(say=said.append))
    text = "\n".join(said)
    assert "all weights; learning rate 0.001" in text
    assert "⟦" in text and "supervised tokens" in text
    assert "step 3 of 3: loss" in text and "validation" in text


LEARNERS = {
    "lora": Lora(rank=8, alpha=16, learning_rate=2e-2, min_steps=60, epochs=1),
    "full": Full(learning_rate=5e-3, min_steps=60, epochs=1),
}


@pytest.mark.parametrize("family", ["llama", "chat", "gpt2", "t5"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_reaches_prediction(folder: Path, tmp_path: Path, method: str, family: Family) -> None:
    """A random model learns 16 rows, scores them right, and still does when saved and loaded."""
    task = keyword_task(16, 0)
    strategy = Composed(LEARNERS[method], ZeroShot())
    model = tiny_model(folder, family)
    untrained = Composed(None, ZeroShot()).fit(model, task, seed=0, budget=Budget())
    right = [str(row.fields["label"]) for row in task.train]
    before = [prediction.answer for prediction in untrained.predict(task.train)]
    assert sum(map(str.__eq__, before, right)) <= 14, "the untrained model must not know the task"
    predictor = strategy.fit(model, task, seed=0, budget=Budget())
    found = list(predictor.predict(task.train))
    assert sum(prediction.answer == answer for prediction, answer in zip(found, right, strict=True)) >= 15
    predictor.save(tmp_path / "predictor")
    loaded = load_predictor(tmp_path / "predictor", device="cpu")
    again = list(loaded.predict(task.train))
    assert [prediction.answer for prediction in again] == [prediction.answer for prediction in found]
    for one, other in zip(again, found, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_generation_learns_to_end(folder: Path) -> None:
    """The model gives the answer and stops: its end token was supervised."""
    task = keyword_task(8, 0, kind="generation")
    predictor = Composed(LEARNERS["full"], ZeroShot()).fit(tiny_model(folder, "llama"), task, seed=0, budget=Budget())
    found = [prediction.answer for prediction in predictor.predict(task.train)]
    assert found == [row.fields["label"] for row in task.train]


def test_few_shot_prompts_can_be_trained_on(folder: Path) -> None:
    """A weights change and a program compose."""
    task = keyword_task(8, 0)
    strategy = Composed(Lora(rank=2, min_steps=2, epochs=1), FewShot(k=2))
    predictor = strategy.fit(tiny_model(folder, "gpt2"), task, seed=0, budget=Budget())
    assert len(list(predictor.predict(task.test))) == 8
    assert predictor.fit_work.trained_frozen_tokens > 0
