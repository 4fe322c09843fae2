"""Several processes take the same steps as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taskfit.studies.fit import fit
from taskfit.tuning.batches import StepPlan
from taskfit.tuning.ranks import Ranks, join_ranks

SUPPORT = Path(__file__).parents[2] / "examples" / "support" / "task.yaml"

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from taskfit.strategy.contract import Budget
from taskfit.tuning.settings import Schedule
from taskfit.tuning.training import Job, run

torch.set_num_threads(1)
torch.manual_seed(0)
lengths = tuple(range(3, 40))
inputs, targets = torch.randn(len(lengths), 5), torch.randn(len(lengths), 2)
layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2))
module = torch.nn.ModuleDict({"layers": layers, "unused": torch.nn.Linear(2, 2)})

def loss_sum(module, rows):
    return ((module["layers"](inputs[rows]) - targets[rows]) ** 2).sum(), len(rows)

job = Job(
    module, lengths, list, loss_sum, None, batch=9, learning_rate=0.05, weight_decay=0.1,
    schedule=Schedule(12, 5, 0, 0), autocast=None, fingerprint="x", seed=3, packs=True,
)
result, _ = run(job, Budget(folder=Path(sys.argv[1])))
weights = [value.flatten().tolist() for name, value in module.named_parameters()]
print(json.dumps({"weights": weights, "curve": [point.loss for point in result.curve]}))
"""


def start(folder: Path, rank: int, count: int, port: int) -> subprocess.Popen[str]:
    where = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    where |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder)],
        env=os.environ | where,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path) -> None:
    """Both with the same bits, and within rounding of a single process; so do the losses of every step.

    A weight that no row uses stays where it was, however many processes there are.
    """
    port = 20000 + os.getpid() % 20000
    running = [start(tmp_path / "two", rank, 2, port) for rank in range(2)] + [start(tmp_path / "one", 0, 1, port)]
    first, second, alone = (json.loads(one.communicate(timeout=300)[0].splitlines()[-1]) for one in running)
    assert first == second
    for found, expected in zip(first["weights"], alone["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(first["curve"]), torch.tensor(alone["curve"]), rtol=1e-5, atol=1e-6)
    assert (tmp_path / "two" / "training" / "checkpoint.safetensors").exists()


def test_every_row_of_a_step_goes_to_one_process() -> None:
    """Whatever their number and the way rows are grouped; a process may get none."""
    for packs in (False, True):
        plan = StepPlan(tuple(range(1, 30)), 7, 64, seed=0, packs=packs)
        for count in (1, 2, 3, 8):
            parts = [plan.micro_batches_at(2, rank=rank, ranks=count) for rank in range(count)]
            assert sorted(row for part in parts for group in part for row in group) == sorted(plan.rows_at(2))


def test_only_the_first_process_measures_says_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would write the same folder at the same time."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    fit(SUPPORT, "majority", out=tmp_path / "saved", say=said.append)
    assert (list(tmp_path.glob("saved")), said) == ([], [])
    monkeypatch.setenv("RANK", "0")
    fit(SUPPORT, "majority", out=tmp_path / "saved", say=said.append)
    assert (tmp_path / "saved" / "predictor.json").exists() and said


def test_without_a_launcher_a_process_is_alone() -> None:
    """Nothing is joined, nothing is summed."""
    assert join_ranks(torch.device("cpu")) == Ranks(0, 1)
    parameter = torch.nn.Parameter(torch.ones(2))
    Ranks().add_gradients([parameter])
    assert parameter.grad is None
    assert Ranks().add(1.5, 2) == [1.5, 2]


def test_sums_over_processes_fill_in_gradients_that_another_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a group of one, sums are the values themselves; what another alone has is zeros here, in its own format."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert join_ranks(torch.device("cpu")) == Ranks(0, 1)
        parameters = [torch.nn.Parameter(torch.ones(2, 3, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
        parameters.append(torch.nn.Parameter(torch.ones(2)))
        parameters[0].grad = torch.full((2, 3), 0.5)
        monkeypatch.setattr(Ranks, "add", lambda ranks, *owners: [1.0, 1.0, 0.0])
        Ranks(0, 2).add_gradients(parameters)
        monkeypatch.undo()
        assert torch.equal(parameters[0].grad, torch.full((2, 3), 0.5))
        assert parameters[1].grad is not None and not parameters[1].grad.any()
        assert parameters[2].grad is None
        assert Ranks(0, 2).add(1.5, 2) == [1.5, 2]
    finally:
        torch.distributed.destroy_process_group()
