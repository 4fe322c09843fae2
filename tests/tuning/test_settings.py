"""Steps from epochs, learning rates from widths, number formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from taskfit.errors import ConfigError
from taskfit.tuning.full import Full
from taskfit.tuning.settings import learning_rate_for, plan_schedule, training_format, weights_in_float32, width_of
from tests.tuning.keyword_task import Family, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize(
    ("rows", "is_validated", "expected"),
    [
        (1600, True, (300, 100, 60, 3)),  # twice an epoch
        (1601, True, (303, 101, 61, 3)),  # the last step of an epoch may be small
        (20, True, (100, 2, 20, 3)),  # least steps, ten validations
        (1600, False, (300, 100, 0, 0)),
    ],
)
def test_steps_are_epochs_or_the_least_number(
    rows: int, is_validated: bool, expected: tuple[int, int, int, int]
) -> None:
    """Batch 16, three epochs, at least 100 steps."""
    plan = plan_schedule(rows, 0, Full(epochs=3, batch=16, min_steps=100), is_validated=is_validated)
    assert (plan.steps, plan.steps_per_epoch, plan.validate_every, plan.patience) == expected


def test_most_steps_go_before_everything_else() -> None:
    """They cut epochs and least steps alike; none cuts nothing, and none at all is refused."""
    assert Full(max_steps=40).steps(1600, 0) == 40
    assert Full(max_steps=40).steps(20, 0) == 40
    assert Full(max_steps=400).steps(1600, 0) == 300
    assert plan_schedule(1600, 0, Full(max_steps=40), is_validated=True).steps == 40
    with pytest.raises(ConfigError, match=r"max_steps must be at least 1 \(got 0\)"):
        Full(max_steps=0)


def test_every_label_is_shown_sixty_times_unless_something_else_is_said() -> None:
    """77 labels: 289 steps of 16 rows; few labels: 60 steps; large sets: their epochs."""
    assert Full().steps(500, 77) == 289
    assert Full().steps(286, 8) == 60
    assert Full().steps(20, 0) == 60
    assert Full().steps(10_000, 77) == 3 * 625
    assert Full(min_steps=10).steps(100, 77) == 21
    assert Full(max_steps=100).steps(500, 77) == 100


def test_wider_models_get_lower_rates() -> None:
    """Inversely proportional above 768: 5e-5 makes about 1e-5 at 4096. Below, to the square or more, down to 192."""
    assert learning_rate_for(768, at_768=5e-5) == 5e-5
    assert learning_rate_for(4096, at_768=5e-5) == pytest.approx(9.375e-6)
    assert learning_rate_for(384, at_768=5e-5) == pytest.approx(2e-4)
    assert learning_rate_for(256, at_768=5e-5, rule="whole") == pytest.approx(7.794e-4, rel=1e-3)
    assert learning_rate_for(1536, at_768=5e-5, rule="whole") == pytest.approx(2.5e-5)
    assert learning_rate_for(192, at_768=5e-5) == learning_rate_for(32, at_768=5e-5) == pytest.approx(8e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bert"])
def test_the_width_is_found_in_every_family(folder: Path, family: Family) -> None:
    """Each calls it by another name."""
    assert width_of(tiny_model(folder, family)) == 32


def test_vectors_learn_faster_in_narrow_models_only() -> None:
    """In proportion, down to a quarter of 768; what is fixed is fixed."""
    rates = [learning_rate_for(width, at_768=5e-3, rule="vector") for width in (32, 192, 384, 768, 4096)]
    assert rates == pytest.approx([0.02, 0.02, 0.01, 0.005, 0.005])
    assert {learning_rate_for(width, at_768=5e-3, rule="fixed") for width in (32, 768, 4096)} == {5e-3}


def test_an_unknown_width_asks_for_a_rate(folder: Path) -> None:
    """No guess."""
    model = tiny_model(folder, "llama")
    model.module = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"the width of .* is not known") as caught:
        width_of(model)
    assert caught.value.hint == "Name one: learning_rate=0.0001"


def test_training_computes_in_the_format_of_loading(folder: Path) -> None:
    """bfloat16 by autocast, float32 as it is, float16 not at all."""
    assert training_format(tiny_model(folder, "llama", "bfloat16")) == torch.bfloat16
    assert training_format(tiny_model(folder, "llama")) is None
    with pytest.raises(ConfigError, match=r"got float16"):
        training_format(tiny_model(folder, "llama", "float16"))


def test_weights_come_back_in_their_formats_and_tied_ones_stay_tied(folder: Path) -> None:
    """In between they are float32 and trainable; buffers are not touched."""
    module = tiny_model(folder, "llama", "bfloat16").module
    buffers = {name: value.dtype for name, value in module.named_buffers()}
    assert torch.float32 in buffers.values(), "the rotary frequencies"
    with weights_in_float32(module):
        assert all(value.dtype == torch.float32 and value.requires_grad for value in module.parameters())
        assert module.lm_head.weight is module.model.embed_tokens.weight
    assert all(value.dtype == torch.bfloat16 and not value.requires_grad for value in module.parameters())
    assert {name: value.dtype for name, value in module.named_buffers()} == buffers
    assert module.lm_head.weight is module.model.embed_tokens.weight
