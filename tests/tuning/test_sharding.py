"""Weights in parts over two processes: the weights of one process, whole on disk, and a killed fit goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from taskfit.errors import ConfigError, StudyError, TrainingError
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tuning import sharding, training
from taskfit.tuning.ranks import Ranks
from taskfit.tuning.train_config import TrainConfig
from tests.tuning.keyword_task import keyword_task, rows, tiny_model
from tests.tuning.sharded_fits import fit_all

PACE = "epochs=1, min_steps=4, batch=4"  # 9 rows: every third step has one, which only one process learns
LORA, FULL, T5 = f"llama:lora(rank=2, {PACE})", f"llama:full({PACE})", f"t5:full({PACE})"
TOLERANCE = 1e-4
"""Of weights, against the largest of their tensor: sums in another order, through Adam's division."""

ASKED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def started(folder: Path, strategies: list[str], port: int, killed_at: str = "") -> list[subprocess.Popen[str]]:
    """Two processes as the launcher starts them."""
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.tuning.sharded_fits", str(folder), *strategies]
    return [
        subprocess.Popen(
            command,
            env=os.environ | ASKED | where | {"RANK": str(rank), "LOCAL_RANK": str(rank), "KILLED_AT": killed_at},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def largest_gap(one: Path, other: Path) -> float:
    """Largest difference of a weight, as a share of its tensor's largest."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max() / first[key].abs().max()) for key in first)


def test_two_sharded_processes_end_with_the_weights_of_one_even_when_killed(tmp_path: Path) -> None:
    """Lora, then an encoder–decoder, then every weight of a decoder, killed by SIGKILL after its second step.

    Made again through accelerate's own launcher, the last fit goes on and ends where one process does. Six processes
    that load torch take half a minute; nothing less shows that it works.
    """
    port = 20000 + os.getpid() % 20000
    for family in ("llama", "t5"):
        tiny_model(tmp_path / "models", family)  # type: ignore[arg-type]
    running = started(tmp_path / "two", [LORA, T5, FULL], port, killed_at="2")
    fit_all(tmp_path / "one", [LORA, T5, FULL])
    told = [one.communicate(timeout=300) for one in running]
    assert [one.returncode for one in running] == [-signal.SIGKILL] * 2, told
    curves = [[json.loads(line) for line in out.splitlines()] for out, _ in told]
    assert curves[0] == curves[1] and len(curves[0]) == 2
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--use_fsdp", "--fsdp_version", "2"]
    finished = subprocess.run(
        [sys.executable, *launch, "-m", "tests.tuning.sharded_fits", str(tmp_path / "two"), FULL],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    resumed = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("[")]
    assert len(resumed) == 2 and len(resumed[0]) == 2  # steps 3 and 4 were left
    for file in ("llama-lora/adapter_model", "t5-full/model", "llama-full/model"):
        one, two = (tmp_path / side / f"{file}.safetensors" for side in ("one", "two"))
        assert largest_gap(one, two) < TOLERANCE
    answers = [
        [one.answer for one in load_predictor(tmp_path / side / "llama-full").predict(rows(6))]
        for side in ("one", "two")
    ]
    assert answers[0] == answers[1]


def test_a_checkpoint_of_sharded_processes_is_no_other_runs(tmp_path: Path) -> None:
    """Sums come in another order, so it would not be the same run; what differs is named."""
    budget = Budget(folder=tmp_path / "fit")
    strategy, model = parse(f"lora(rank=2, {PACE})"), tiny_model(tmp_path, "llama")
    strategy.fit(model, keyword_task(9, 4), seed=1, budget=budget)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StudyError, match="processes was 1, now 2"):
        patch.setattr("taskfit.tuning.train_run.join_ranks", lambda device: Ranks(0, 2))
        strategy.fit(tiny_model(tmp_path, "llama"), keyword_task(9, 4), seed=1, budget=budget)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"FSDP_VERSION": "1"}, "version 2 only .got 1."),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "--fsdp_offload_params is not supported"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "--fsdp_activation_checkpointing is not supported"),
    ],
)
def test_other_ways_of_sharding_are_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], message: str
) -> None:
    """Instead of doing something else in silence."""
    assert not sharding.is_asked_for()
    for name, value in (ASKED | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        sharding.is_asked_for()


def test_a_method_that_changes_whole_weights_between_steps_is_not_sharded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdaLoRA reads and masks whole matrices."""
    monkeypatch.setattr(training, "join_ranks", lambda device: Ranks(0, 2, shards=True))
    with pytest.raises(ConfigError, match="cannot be sharded"):
        parse(f"adalora({PACE})").fit(tiny_model(tmp_path, "llama"), keyword_task(9, 4), seed=0, budget=Budget())


def test_a_whole_module_looks_as_it_did_before_sharding() -> None:
    """In a group of one: classes, hooks, parameters and ties are those from before; it can be sharded again."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 5, bias=False))
        model[2].weight = model[0].weight
        model._no_split_modules = ["Linear"]  # type: ignore[assignment]
        kept = model[1].register_forward_hook(lambda module, given, made: made * 2)
        before, values = dict(model.named_parameters()), {k: v.clone() for k, v in model.state_dict().items()}
        ids = torch.tensor([0, 3])
        expected = model(ids)
        for _ in range(2):
            shards = sharding.Shards(model)
            assert shards._layers == [model[1]]  # the other shares its weight
            loss = shards.compute(lambda: model(ids))
            torch.testing.assert_close(loss, expected)
            loss.sum().backward()
            with torch.no_grad():
                shards.compute(lambda: model(ids))
            shards.gather()
            assert type(model[1]) is torch.nn.Linear and len(model[1]._forward_hooks) == 1
            assert all(value is before[name] for name, value in model.named_parameters())
            assert model[2].weight is model[0].weight
            for name, value in model.state_dict().items():
                assert torch.equal(value, values[name])
            torch.testing.assert_close(model(ids), expected)
        kept.remove()
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def alone_in_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as the only one of a sharded training: every step of the way, without a second process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    for place in ("train_run", "training", "answers"):
        monkeypatch.setattr(f"taskfit.tuning.{place}.join_ranks", lambda device: Ranks(0, 1, shards=True))
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", [f"lora(rank=2, {PACE})", f"full({PACE})"])
def test_a_sharded_fit_that_stops_and_goes_on_ends_as_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, name: str
) -> None:
    """Checkpoints, the best weights and the way back to whole ones."""
    monkeypatch.setattr("taskfit.tuning.train_report.SAY_EVERY_S", -1.0)
    monkeypatch.setattr(training, "TrainConfig", partial(TrainConfig, checkpoint_every_s=1e-9))

    class StopError(Exception):
        pass

    def fit(scratch: str, stop_at: str = "never") -> dict[str, torch.Tensor]:
        def say(line: str) -> None:
            if line.startswith(f"step {stop_at} of"):
                raise StopError

        budget = Budget(folder=tmp_path / scratch, say=say)
        model = tiny_model(tmp_path, "llama")
        made = parse(name).fit(model, keyword_task(9, 4), seed=1, budget=budget)
        made.save(tmp_path / f"{scratch}-saved")
        file = "model" if name.startswith("full") else "adapter_model"
        return load_file(tmp_path / f"{scratch}-saved" / f"{file}.safetensors")

    plain = fit("plain")
    request.getfixturevalue("alone_in_shards")
    with pytest.raises(StopError):
        fit("sharded", stop_at="3")
    sharded = fit("sharded")
    assert plain.keys() == sharded.keys()
    for key, value in plain.items():
        gap = float((sharded[key] - value).abs().max() / value.abs().max())
        assert gap < 5 * TOLERANCE  # the plain one computes packed rows in fused layers


@pytest.mark.usefixtures("alone_in_shards")
def test_an_error_in_a_sharded_training_is_the_one_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one of putting the module back."""

    def broken(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        return sum(value.sum() for value in module.parameters() if value.requires_grad) * float("nan"), 1

    monkeypatch.setattr("taskfit.tuning.answers.gathered_loss", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        parse(f"full({PACE})").fit(tiny_model(tmp_path, "llama"), keyword_task(9, 4), seed=0, budget=Budget())
