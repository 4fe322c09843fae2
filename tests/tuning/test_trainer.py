"""The training loop."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, StudyError, TrainingError
from taskfit.tuning.checkpoint import load_state
from taskfit.tuning.train_config import TrainConfig
from taskfit.tuning.train_run import Progress
from taskfit.tuning.trainer import train

INPUTS = torch.randn(96, 5, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS[:, 0] + INPUTS[:, 1] * INPUTS[:, 2] > 0).long()
CONFIG = TrainConfig(steps=12, learning_rate=0.02, weight_decay=0.01, checkpoint_every_s=0.0, seed=3)


def network(dropout: float = 0.2) -> torch.nn.Module:
    """The same small classifier every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(16, 2)
        )


def batches_at(step: int, parts: int = 2):
    """Twelve examples of the step in micro-batches of equal size."""
    chosen = torch.randperm(len(INPUTS), generator=torch.Generator().manual_seed(step))[:12]
    return [(INPUTS[part], TARGETS[part]) for part in chosen.chunk(parts)]


def loss_sum(module, batch):
    """Summed cross-entropy and the number of examples."""
    inputs, targets = batch
    return F.cross_entropy(module(inputs), targets, reduction="sum"), len(targets)


def weights(module) -> list[torch.Tensor]:
    """Copies of all parameters."""
    return [parameter.detach().clone() for parameter in module.parameters()]


def are_same(left, right) -> bool:
    """Bit-identical parameters."""
    return all(torch.equal(one, other) for one, other in zip(weights(left), weights(right), strict=True))


class StopError(Exception):
    """Raised by a test's progress function."""


def stop_after(step: int):
    """A progress function that ends the training after the step."""

    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise StopError

    return stop


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_accumulated_micro_batches_equal_the_large_batch(parts):
    """The split of a step into micro-batches does not change the update."""
    whole, split = network(dropout=0.0).double(), network(dropout=0.0).double()

    def doubled(module, batch):
        return loss_sum(module, (batch[0].double(), batch[1]))

    train(whole, lambda step: batches_at(step, 1), doubled, CONFIG)
    train(split, lambda step: batches_at(step, parts), doubled, CONFIG)
    for one, other in zip(weights(whole), weights(split), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_uneven_micro_batches_weigh_tokens_not_batches():
    """A micro-batch of one token counts one token, beside one of eleven."""
    uneven, whole = network(dropout=0.0).double(), network(dropout=0.0).double()

    def doubled(module, batch):
        return loss_sum(module, (batch[0].double(), batch[1]))

    def split_unevenly(step):
        ((inputs, targets),) = batches_at(step, 1)
        return [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]

    one = train(uneven, split_unevenly, doubled, CONFIG)
    other = train(whole, lambda step: batches_at(step, 1), doubled, CONFIG)
    assert one.curve[-1].loss == pytest.approx(other.curve[-1].loss, rel=1e-9)


def test_one_step_matches_adamw_worked_in_float64():
    """Clipping, weight decay on the matrix only, and the bias-corrected update of one step."""
    module = torch.nn.Linear(2, 1).double()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    inputs, targets = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double(), torch.tensor([[1.0], [0.0]]).double()

    def squared(model, _batch):
        return ((model(inputs) - targets) ** 2).sum(), 2

    config = TrainConfig(1, 0.1, warmup_share=0.0, weight_decay=0.5, clip_norm=0.01)
    seen: list[Progress] = []
    train(module, lambda step: [None], squared, config, on_progress=seen.append)
    error = (inputs @ before["weight"].T + before["bias"] - targets)[:, 0]
    gradient = {"weight": (error @ inputs)[None, :], "bias": error.sum()[None]}  # 2 x error x input, mean over 2
    norm = math.sqrt(sum(float((value**2).sum()) for value in gradient.values()))
    assert seen[0].gradient_norm == pytest.approx(norm, rel=1e-9)
    for name, parameter in module.named_parameters():
        clipped = gradient[name] * 0.01 / (norm + 1e-6)
        kept = before[name] * (1 - 0.1 * (0.5 if name == "weight" else 0.0))
        expected = kept - 0.1 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-7, atol=1e-9)


def test_loss_falls_and_the_curve_holds_every_step():
    """The loop learns, and its curve is what progress told."""
    seen: list[Progress] = []
    result = train(network(), batches_at, loss_sum, replace(CONFIG, steps=60), on_progress=seen.append)
    assert [point.step for point in result.curve] == list(range(1, 61))
    assert [point.loss for point in result.curve] == [progress.loss for progress in seen]
    assert result.curve[-1].loss < 0.7 * result.curve[0].loss
    assert result.steps_done == result.best_step == 60
    assert seen[-1].left_s == 0
    assert all(progress.tokens_per_s > 0 and progress.steps == 60 for progress in seen)


@pytest.mark.parametrize("stop", [1, 5, 11, 12])
def test_resumed_run_is_bit_identical(tmp_path, stop):
    """Dropout, validation and all: the weights and the curve do not show the interruption."""
    config = replace(CONFIG, validate_every=4, patience=5)

    def run(module, folder, on_progress=None):
        def validate() -> float:
            return float(F.cross_entropy(module(INPUTS), TARGETS))

        options = {"validate": validate, "folder": folder, "on_progress": on_progress}
        return train(module, batches_at, loss_sum, config, **options)

    straight, broken = network(), network()
    expected = run(straight, None)
    with pytest.raises(StopError):
        run(broken, tmp_path, stop_after(stop))
    fresh = network()
    assert run(fresh, tmp_path) == expected
    assert are_same(fresh, straight)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.tuning.test_trainer import CONFIG, batches_at, loss_sum, network
from taskfit.tuning.trainer import train
import torch
torch.set_num_threads(1)

def kill(step):
    if step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return batches_at(step)

train(network(), kill, loss_sum, CONFIG, folder=Path(sys.argv[1]))
"""


def test_killed_process_resumes_bit_identically(tmp_path, request):
    """A real SIGKILL in the middle of a run leaves a checkpoint from which the same bits follow."""
    program = KILLED.format(tests=str(request.config.rootpath))
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    found = load_state(tmp_path)
    assert found is not None and found.step == 7
    straight, resumed = network(), network()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = train(straight, batches_at, loss_sum, CONFIG)
        assert train(resumed, batches_at, loss_sum, CONFIG, folder=tmp_path) == expected
    finally:
        torch.set_num_threads(threads)
    assert are_same(straight, resumed)


def test_finished_run_is_not_trained_again(tmp_path):
    """A second call reads the end from the folder and asks for no batch."""
    first, second = network(), network()
    expected = train(first, batches_at, loss_sum, CONFIG, folder=tmp_path)

    def no_batches(step):
        raise StopError

    assert train(second, no_batches, loss_sum, CONFIG, folder=tmp_path) == expected
    assert are_same(first, second)


def test_checkpoint_of_another_run_is_refused_naming_the_difference(tmp_path):
    """Another config, another fingerprint or other weights: never a silent mix."""
    train(network(), batches_at, loss_sum, CONFIG, folder=tmp_path, fingerprint="data 1")
    with pytest.raises(StudyError, match=r"learning_rate was 0\.02, now 0\.03"):
        train(
            network(), batches_at, loss_sum, replace(CONFIG, learning_rate=0.03), folder=tmp_path, fingerprint="data 1"
        )
    with pytest.raises(StudyError, match="fingerprint was 'data 1', now 'data 2'"):
        train(network(), batches_at, loss_sum, CONFIG, folder=tmp_path, fingerprint="data 2")
    frozen = network()
    next(frozen.parameters()).requires_grad_(False)
    with pytest.raises(StudyError, match="trainable_parameters"):
        train(frozen, batches_at, loss_sum, CONFIG, folder=tmp_path, fingerprint="data 1")


def test_early_stop_leaves_the_best_weights():
    """Validation improves twice, then never again: stopped after the patience, weights of the second."""
    module, values, seen = network(), iter([3.0, 1.0, 2.0, 2.0, 2.0]), {}
    config = replace(CONFIG, steps=50, validate_every=2, patience=3)

    def note(progress: Progress) -> None:
        seen[progress.step] = weights(module)

    result = train(module, batches_at, loss_sum, config, validate=lambda: next(values), on_progress=note)
    assert (result.steps_done, result.best_step, result.best_validation) == (10, 4, 1.0)
    assert result.stopped_early
    assert [point.validation for point in result.curve][:6] == [None, 3.0, None, 1.0, None, 2.0]
    assert all(torch.equal(one, other) for one, other in zip(weights(module), seen[4], strict=True))


def test_stopped_run_stays_stopped(tmp_path):
    """Patience that ran out is remembered by the checkpoint."""
    values = iter([1.0, 2.0, 2.0])
    config = replace(CONFIG, validate_every=1, patience=2)
    first, second = network(), network()
    options = {"validate": lambda: next(values), "folder": tmp_path}
    expected = train(first, batches_at, loss_sum, config, **options)
    assert train(second, batches_at, loss_sum, config, **options) == expected
    assert are_same(first, second)


def test_validation_runs_without_dropout_and_without_gradients():
    """Evaluation mode inside, training mode again after it, the caller's mode at the end."""
    module, modes = network(), []
    module.eval()

    def validate() -> float:
        modes.append((module.training, torch.is_grad_enabled()))
        return 1.0

    def watched(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return loss_sum(model, batch)

    train(
        module, lambda step: batches_at(step, 1), watched, replace(CONFIG, steps=2, validate_every=1), validate=validate
    )
    assert modes == [(True, True), (False, False)] * 2
    assert not module.training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_naming_step_and_micro_batch(value):
    """Training on after a NaN would ruin the weights silently."""

    def diverging(module, batch):
        loss, count = loss_sum(module, batch[:2])
        return (loss * value if batch[2] else loss), count

    def marked(step):
        return [(*batch, step == 3 and index == 1) for index, batch in enumerate(batches_at(step))]

    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 4, micro-batch 2 of 2"):
        train(network(), marked, diverging, CONFIG)


def test_gradient_that_is_not_finite_stops_naming_step_and_micro_batch():
    """A finite loss with an infinite slope."""
    module = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(module.weight)

    def steep(model, _batch):
        return model.weight.abs().sqrt().sum(), 1

    with pytest.raises(TrainingError, match=r"gradient norm is (nan|inf) at step 1, micro-batch 1 of 1"):
        train(module, lambda step: [None], steep, CONFIG)


def test_validation_that_is_not_finite_stops_naming_the_step():
    """NaN compares as worse than nothing; it must not pass for "no improvement"."""
    config = replace(CONFIG, validate_every=3)
    with pytest.raises(TrainingError, match="validation value is nan at step 3"):
        train(network(), batches_at, loss_sum, config, validate=lambda: math.nan)


def test_step_without_supervised_tokens_is_refused():
    """All labels masked is an error, never a loss of zero."""

    def masked(module, batch):
        return module(batch[0]).sum() * 0, 0

    with pytest.raises(TrainingError, match="step 1 has no supervised token in its 2 micro-batches"):
        train(network(), batches_at, masked, CONFIG)


def test_micro_batch_without_tokens_changes_nothing():
    """It adds neither loss nor tokens when others of its step have some."""
    alone, beside = network(dropout=0.0), network(dropout=0.0)
    empty = (INPUTS[:0], TARGETS[:0])
    train(alone, batches_at, loss_sum, CONFIG)
    train(beside, lambda step: [*batches_at(step), empty], loss_sum, CONFIG)
    assert are_same(alone, beside)


def test_loss_without_weights_is_refused():
    """A detached loss would train nothing."""

    def detached(module, batch):
        loss, count = loss_sum(module, batch)
        return loss.detach(), count

    with pytest.raises(TrainingError, match="does not depend on any trainable parameter"):
        train(network(), batches_at, detached, CONFIG)


def test_model_with_nothing_to_train_is_refused():
    """All parameters frozen: an adapter was forgotten."""
    module = network().requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing to train"):
        train(module, batches_at, loss_sum, CONFIG)


def test_low_precision_trainable_weights_are_refused():
    """Small updates vanish in bfloat16."""
    with pytest.raises(TrainingError, match=r"0\.weight is torch\.bfloat16"):
        train(network().to(torch.bfloat16), batches_at, loss_sum, CONFIG)


def test_frozen_parameters_keep_their_bits_and_any_type():
    """Only what requires a gradient is trained and kept in the checkpoint."""
    module = network()
    module[0].requires_grad_(False)
    before = weights(module)
    train(module, batches_at, loss_sum, CONFIG)
    changed = [not torch.equal(one, other) for one, other in zip(before, weights(module), strict=True)]
    assert changed == [False, False, True, True]


def test_autocast_runs_the_loss_in_bfloat16_and_keeps_float32_weights():
    """Half the precision in the products only."""
    module, kinds = network(), set()

    def watched(model, batch):
        kinds.add(model[0](batch[0]).dtype)
        return loss_sum(model, batch)

    train(module, batches_at, watched, CONFIG, autocast=torch.bfloat16)
    assert kinds == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_training_leaves_the_callers_random_state_alone():
    """The loop's own seeds must not make the caller's numbers repeat."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(network(), batches_at, loss_sum, CONFIG)
    assert torch.equal(before, torch.get_rng_state())


def test_seed_changes_dropout_and_nothing_else_repeats():
    """Two seeds give two trainings; one seed gives one."""
    one, again, other = network(), network(), network()
    train(one, batches_at, loss_sum, CONFIG)
    train(again, batches_at, loss_sum, CONFIG)
    train(other, batches_at, loss_sum, replace(CONFIG, seed=4))
    assert are_same(one, again)
    assert not are_same(one, other)


@pytest.mark.parametrize(("validate", "every"), [(None, 2), (lambda: 1.0, 0)])
def test_validation_function_and_interval_go_together(validate, every):
    """One without the other would be ignored silently."""
    with pytest.raises(ConfigError, match="go together"):
        train(network(), batches_at, loss_sum, replace(CONFIG, validate_every=every), validate=validate)


def test_all_faults_of_a_config_are_told_together():
    """One error, every field."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig(
            steps=0,
            learning_rate=math.nan,
            warmup_share=1.0,
            decay="square",
            decay_share=0.0,
            weight_decay=-1.0,
            betas=(0.9, 1.0),
            clip_norm=0.0,
            patience=2,
            seed=-1,
        )
    for name in (
        *("steps", "learning_rate", "warmup_share", "decay must", "decay_share", "weight_decay", "betas"),
        *("clip_norm", "patience", "seed"),
    ):
        assert name in str(caught.value)


def test_a_run_that_diverges_is_stopped():
    """The loss climbs without ever being infinite: stopped once it is far above where it began."""
    risen = iter(range(1000))

    def rising(module, batch):
        loss, tokens = loss_sum(module, batch)
        return loss * 0 + 0.5 * next(risen) * tokens, tokens

    with pytest.raises(TrainingError, match="training has diverged"):
        train(network(), batches_at, rising, replace(CONFIG, steps=100))


def test_a_batch_that_is_not_finite_is_named():
    """By what the caller says of it."""
    with pytest.raises(TrainingError, match=r"step 1, micro-batch 1 of \d+ \(rows a, b of step 0\)"):
        train(
            network(),
            batches_at,
            lambda module, batch: (loss_sum(module, batch)[0] * float("nan"), 1),
            CONFIG,
            name_batch=lambda step, index: f"rows a, b of step {step}",
        )
