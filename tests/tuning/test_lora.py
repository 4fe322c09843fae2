"""Low-rank updates: what they change, what they train, what they save."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from taskfit.errors import ConfigError, PredictorError, StudyError
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import ZeroShot
from taskfit.strategy.contract import Budget
from taskfit.tuning import train_report, training
from taskfit.tuning.lora import Lora, linear_layers
from taskfit.tuning.train_config import TrainConfig
from tests.tuning.keyword_task import Family, keyword_task, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "chat", "t5")
QUICK = {"epochs": 1, "min_steps": 3, "batch": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def logits(module: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 90, (2, 9), generator=generator)
    with torch.no_grad():
        if module.config.is_encoder_decoder:
            return module(input_ids=ids, decoder_input_ids=ids[:, :4]).logits
        return module(input_ids=ids).logits


def fitted(model: LanguageModel, method: Lora, budget: Budget | None = None, rows: int = 8, seed: int = 0) -> None:
    task = keyword_task(rows, 4)
    method.change(model, task, ZeroShot().prepare(task, seed=0), seed=seed, budget=budget or Budget())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_adapter_changes_nothing(folder: Path, family: Family) -> None:
    """Its second factor is zero."""
    base = tiny_model(folder, family)
    expected = logits(base.module)
    assert_close(logits(Lora(rank=4).wrap(base, seed=0).eval()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_updates_are_trained(folder: Path, family: Family) -> None:
    """After training, every weight of the base is the same to the bit, and every update has moved."""
    model = tiny_model(folder, family)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    fitted(model, Lora(rank=4, **QUICK))
    assert not any(value.requires_grad for value in model.module.parameters()), "training is over"
    assert all(
        value.abs().max() > 0
        for name, value in model.module.named_parameters()
        if "lora_B" in name and "lm_head" not in name
    )
    for name, value in tiny_model(folder, family).module.state_dict().items():
        assert torch.equal(value, before[name])
    base = model.module.unload()
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_updates_load_back_and_into_peft(folder: Path, family: Family, tmp_path: Path) -> None:
    """Our loader and peft's own give the same logits as the trained model."""
    method = Lora(rank=4, targets="all", **QUICK)
    model = tiny_model(folder, family)
    plain = logits(model.module)
    fitted(model, method)
    expected = logits(model.module)
    assert not torch.allclose(plain, expected)
    method.save(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = method.load(tiny_model(folder, family), tmp_path)
    assert_close(logits(loaded.module), expected, rtol=0, atol=0)
    theirs = peft.PeftModel.from_pretrained(tiny_model(folder, family).module, str(tmp_path)).eval()
    assert_close(logits(theirs), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("attention", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("mlp", ["down_proj", "gate_proj", "up_proj"]),
        ("all", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
    ],
)
def test_targets_choose_layers(folder: Path, targets: str, expected: list[str]) -> None:
    """By the field's names; the output layer is never among them."""
    wrapped = Lora(rank=4, targets=targets).wrap(tiny_model(folder, "llama"), seed=0)
    assert sorted(wrapped.peft_config["default"].target_modules) == expected
    updated = {name for name, _ in wrapped.named_parameters() if "lora_A" in name}
    assert len(updated) == 2 * len(expected)


def test_layers_of_equal_names_are_told_apart(folder: Path) -> None:
    """GPT-2 calls a layer c_proj in attention and in its MLP; only the chosen one is updated."""
    wrapped = Lora(rank=4, targets="mlp").wrap(tiny_model(folder, "gpt2"), seed=0)
    assert sorted(wrapped.peft_config["default"].target_modules) == ["c_fc", "mlp.c_proj"]
    assert not any("attn" in name for name, _ in wrapped.named_parameters() if "lora_" in name)


def test_cross_attention_belongs_to_attention(folder: Path) -> None:
    """T5: SelfAttention and EncDecAttention."""
    module = tiny_model(folder, "t5").module
    names = linear_layers(module, "attention")
    assert any("EncDecAttention" in name for name in names)
    assert not any("DenseReluDense" in name or "lm_head" in name for name in names)
    assert set(linear_layers(module, "all")) == set(names) | set(linear_layers(module, "mlp"))


def test_a_rank_above_the_narrowest_layer_is_refused(folder: Path) -> None:
    """The message names the layer and the largest rank; the keys of a grouped-query model are narrow."""
    with pytest.raises(ConfigError, match=r"rank must be between 1 and 16 .*got 17"):
        Lora(rank=17).wrap(tiny_model(folder, "llama"), seed=0)
    Lora(rank=17, targets="mlp").wrap(tiny_model(folder, "llama"), seed=0)


def test_targets_that_match_nothing_are_refused(folder: Path) -> None:
    """The hint says which layers there are."""
    model = tiny_model(folder, "llama")
    model.module.model.layers = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match="targets=attention matches no layer") as caught:
        Lora(targets="attention").wrap(model, seed=0)
    assert "Its linear layers are none" in str(caught.value.hint)


def test_all_faults_of_the_parameters_are_said_together() -> None:
    """One error."""
    with pytest.raises(ConfigError) as caught:
        Lora(rank=0, alpha=0, dropout=1.0, learning_rate=0.0, epochs=0, batch=0, min_steps=-1)
    for name in ("rank", "alpha", "dropout", "learning_rate", "epochs", "batch", "min_steps"):
        assert f"{name} must be" in caught.value.message
    with pytest.raises(ConfigError, match="targets must be one of attention, mlp, all"):
        Lora(targets="heads")  # type: ignore[arg-type]


def test_float16_is_refused_before_anything_is_wrapped(folder: Path) -> None:
    """Gradients leave its range."""
    model = tiny_model(folder, "llama", "float16")
    with pytest.raises(ConfigError, match="needs a model in float32 or bfloat16"):
        fitted(model, Lora(rank=4))
    assert not isinstance(model.module, peft.PeftModel)


def test_updates_of_a_bfloat16_base_are_float32(folder: Path, tmp_path: Path) -> None:
    """Trained, saved and loaded in float32; the base keeps its format."""
    method = Lora(rank=4, **QUICK)
    model = tiny_model(folder, "llama", "bfloat16")
    fitted(model, method)
    for name, value in model.module.named_parameters():
        assert value.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name
    method.save(model, tmp_path)
    loaded = method.load(tiny_model(folder, "llama", "bfloat16"), tmp_path)
    assert_close(logits(loaded.module), logits(model.module), rtol=0, atol=0)


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter of rank 4 on the attention of the tiny Llama."""
    path = tmp_path_factory.mktemp("adapter")
    method = Lora(rank=4, targets="attention")
    model = tiny_model(folder, "llama")
    model.module = method.wrap(model, seed=0)
    method.save(model, path)
    return path


def damaged(saved: Path, tmp_path: Path, **config: object) -> tuple[Path, dict[str, torch.Tensor]]:
    values = json.loads((saved / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(values | config))
    return tmp_path, load_file(saved / "adapter_model.safetensors")


def refused(folder: Path, path: Path, match: str) -> None:
    with pytest.raises(PredictorError, match=match):
        Lora(rank=4, targets="attention").load(tiny_model(folder, "llama"), path)


def test_missing_superfluous_misshaped_and_broken_weights_are_refused_together(
    folder: Path, saved: Path, tmp_path: Path
) -> None:
    """The peft library would leave such updates at their start and warn at most."""
    path, values = damaged(saved, tmp_path)
    names = sorted(values)
    values["stranger"] = values.pop(names[0])
    values[names[1]] = torch.zeros(3, 3)
    values[names[2]] = torch.full_like(values[names[2]], float("nan"))
    save_file(values, path / "adapter_model.safetensors")
    with pytest.raises(PredictorError) as caught:
        Lora(rank=4, targets="attention").load(tiny_model(folder, "llama"), path)
    for part in ("1 weights are missing", "superfluous, first stranger", "must have shape", "not finite"):
        assert part in caught.value.message


def test_another_configuration_is_refused(folder: Path, saved: Path, tmp_path: Path) -> None:
    """A changed alpha would scale the update differently, in silence."""
    path, values = damaged(saved, tmp_path, lora_alpha=32, target_modules=["q_proj"])
    save_file(values, path / "adapter_model.safetensors")
    refused(folder, path, r"(?s)lora_alpha must be 16 .*got 32.*target_modules must be")


def test_unreadable_files_are_refused(folder: Path, saved: Path, tmp_path: Path) -> None:
    """Missing or damaged, configuration or weights."""
    refused(folder, tmp_path, "cannot be read as an adapter's configuration")
    path, _ = damaged(saved, tmp_path)
    refused(folder, path, "cannot be read as weights")
    (path / "adapter_model.safetensors").write_bytes(b"no weights")
    refused(folder, path, "cannot be read as weights")


def test_an_adapter_needs_a_base_that_fits(folder: Path, saved: Path) -> None:
    """No base, or one that is too narrow."""
    with pytest.raises(PredictorError, match="holds an adapter only"):
        Lora(rank=4).load(None, saved)
    with pytest.raises(PredictorError, match="does not fit"):
        Lora(rank=40).load(tiny_model(folder, "llama"), saved)


def test_the_same_seed_gives_the_same_updates(folder: Path) -> None:
    """And another one gives others."""
    found = []
    for seed in (0, 0, 1):
        model = tiny_model(folder, "llama")
        fitted(model, Lora(rank=4, **QUICK), seed=seed)
        found.append(logits(model.module))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


KILLED_FIT = """
import os, signal, sys
from pathlib import Path
from taskfit.prompting.shots import ZeroShot
from taskfit.strategy.contract import Budget
from tests.tuning import test_lora

def say(line):
    if line.startswith("step 5 "):
        os.kill(os.getpid(), signal.SIGKILL)

test_lora.resumable_fit(Path(sys.argv[1]), Path(sys.argv[2]), say)
"""


def resumable_fit(models: Path, scratch: Path, say: Callable[[str], None]) -> dict[str, torch.Tensor]:
    """Eight steps with dropout, a checkpoint after each; the updates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_report, "SAY_EVERY_S", -1.0)
        patch.setattr(training, "TrainConfig", partial(TrainConfig, checkpoint_every_s=1e-9))
        model = tiny_model(models, "llama")
        method = Lora(rank=4, dropout=0.2, epochs=1, min_steps=8, batch=4)
        fitted(model, method, Budget(folder=scratch, say=say), seed=3)
    return {name: value.detach() for name, value in model.module.named_parameters() if "lora_" in name}


def test_a_killed_fit_goes_on_and_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    """Killed with SIGKILL after five steps and run again, the updates are the same to the bit."""
    expected = resumable_fit(folder, tmp_path / "whole", lambda line: None)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_FIT, str(folder), str(tmp_path / "killed")]
    killed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    said: list[str] = []
    found = resumable_fit(folder, tmp_path / "killed", said.append)
    steps = [line for line in said if line.startswith("step")]
    assert 1 <= len(steps) <= 4 and steps[-1].startswith("step 8 "), "it went on where it was"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_of_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    """Going on with other rows would be neither of the two fits."""
    fitted(tiny_model(folder, "llama"), Lora(rank=4, **QUICK), Budget(folder=tmp_path))
    with pytest.raises(StudyError, match="belongs to another training run"):
        fitted(tiny_model(folder, "llama"), Lora(rank=4, **QUICK), Budget(folder=tmp_path), rows=9)


def test_work_counts_what_the_steps_computed(folder: Path) -> None:
    """One epoch without validation: every token once, padding included, backward through a frozen base."""
    task = keyword_task(8, 0)
    model = tiny_model(folder, "llama")
    program = ZeroShot().prepare(task, seed=0)
    work = Lora(rank=4, epochs=2, min_steps=0, batch=4).change(model, task, program, seed=0, budget=Budget())
    assert work.trained_frozen_tokens == work.computed_tokens >= work.prompt_tokens + work.answer_tokens
    assert work.trained_tokens == 0
    assert work.head_tokens == work.answer_tokens
    assert work.answer_tokens == 2 * sum(
        len(model.tokenizer.encode(f" {row.fields['label']}", add_special_tokens=False)) + 1 for row in task.train
    )
