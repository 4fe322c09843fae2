"""Keeping within memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from taskfit.errors import ResourceError
from taskfit.strategy.contract import Budget
from taskfit.tuning import memory_retry, plain_attention, train_report, training
from taskfit.tuning.settings import Schedule
from taskfit.tuning.training import Job, run

LENGTHS = tuple(200 + 50 * index for index in range(12))
INPUTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]])


class Limited:
    """A loss that has memory for so many tokens, padding included."""

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self.seen: list[int] = []

    def __call__(self, module: torch.nn.Module, rows: Sequence[int]) -> tuple[Tensor, int]:
        tokens = len(rows) * max(LENGTHS[row] for row in rows)
        if tokens > self.most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(tokens)
        return ((module(INPUTS[list(rows)]) - TARGETS[list(rows)]) ** 2).sum(), len(rows)


def job(loss: Limited, steps: int = 6, **changes: object) -> Job:
    torch.manual_seed(0)
    made = Job(
        module=torch.nn.Linear(3, 1),
        lengths=LENGTHS,
        collate=list,
        loss_sum=loss,
        validate=None,
        batch=6,
        learning_rate=0.1,
        weight_decay=0.0,
        schedule=Schedule(steps, 2, 0, 0),
        autocast=None,
        fingerprint="test",
        seed=0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_when_memory_runs_out_micro_batches_are_halved_and_the_result_is_the_same() -> None:
    """The same rows a step, the same weights at the end, and it is said."""
    said: list[str] = []
    roomy, tight = job(Limited(10**9)), job(Limited(1100))
    _, plan = run(roomy, Budget())
    _, halved = run(tight, Budget(say=said.append))
    assert (plan.token_budget, halved.token_budget) == (4096, 1024)
    assert plan.rows_at(3) == halved.rows_at(3)
    assert_close(roomy.module.weight, tight.module.weight)
    assert said[0] == "memory ran out; micro-batches halved to 2048 tokens, 6 rows a step kept"


def test_a_row_that_does_not_fit_is_an_error_not_a_loop() -> None:
    """Down to one row, then it ends."""
    with pytest.raises(ResourceError, match="ran out of memory"):
        run(job(Limited(100)), Budget())


def test_without_room_for_a_copy_there_is_no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU a copy of large weights could itself exhaust memory."""
    monkeypatch.setattr(memory_retry, "SPARE_COPY_BYTES", 1)
    with pytest.raises(ResourceError, match="with 4096 tokens at a time"):
        run(job(Limited(1100)), Budget())


def test_other_errors_pass() -> None:
    """A bug is no lack of memory."""

    def broken(module: torch.nn.Module, rows: Sequence[int]) -> tuple[Tensor, int]:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(job(Limited(1), loss_sum=broken), Budget())


@pytest.mark.parametrize("with_folder", [True, False])
def test_when_time_is_up_training_stops_with_its_best_weights(
    tmp_path: Path, with_folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation was best after step 2; step 4 was the last one that time allowed."""
    made = job(Limited(10**9), steps=1000)
    module, seen, values = made.module, [], iter([3.0, 1.0, 2.0, 2.5, 2.0])
    clock = [0.0]
    for module_of_time in (training, train_report):
        monkeypatch.setattr(module_of_time, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def validate() -> float:
        seen.append(module.weight.detach().clone())
        if len(seen) == 4:
            clock[0] = 60.0
        return next(values)

    said: list[str] = []
    made = replace(made, validate=validate, schedule=Schedule(1000, 2, 1, 0))
    budget = Budget(wall_s=60, folder=tmp_path if with_folder else None, say=said.append)
    result, _ = run(made, budget)
    assert result.stopped_early
    assert (result.steps_done, result.best_step, result.best_validation) == (4, 2, 1.0)
    assert [point.validation for point in result.curve] == [3.0, 1.0, 2.0, 2.5]
    assert torch.equal(module.weight, seen[1])
    assert said[-1] == "stopped after 4 steps: 60 s were allowed; weights of step 2 kept"
    assert not module.training


def test_progress_names_step_loss_and_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations and the last step are always said, the others once in a while."""
    said: list[str] = []
    made = replace(job(Limited(10**9)), validate=lambda: 0.5, schedule=Schedule(6, 2, 4, 0))
    run(made, Budget(say=said.append))
    assert [line.split(":")[0] for line in said] == ["step 4 of 6", "step 6 of 6"]
    assert "validation 0.5000" in said[0] and "s left" in said[0]
    monkeypatch.setattr(train_report, "SAY_EVERY_S", -1.0)
    run(job(Limited(10**9)), Budget(say=said.append))
    assert len(said) == 8


def test_heads_are_counted_where_a_configuration_names_them() -> None:
    """Layers without a configuration of their own say nothing; a model with few heads has few."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert plain_attention._known_heads(model) == []
    model.config = SimpleNamespace(num_attention_heads=4)
    assert plain_attention._known_heads(model) == [4]
