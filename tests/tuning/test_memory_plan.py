"""Micro-batches from the estimate of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taskfit.strategy.contract import Budget
from taskfit.tuning import memory_plan
from taskfit.tuning.lora import Lora
from taskfit.tuning.memory_plan import TOKEN_BUDGET, MemoryPlan, can_recompute, plan_memory
from taskfit.tuning.settings import Schedule
from taskfit.tuning.training import Job, run
from tests.tuning.keyword_task import tiny_model


def test_less_memory_means_fewer_tokens_then_computing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never fewer than the longest row, and the same plan for the same machine."""
    model = tiny_model(tmp_path, "llama")
    plans = []
    with Lora().training(model, seed=0):
        for megabytes in (10_000, 30, 4, 0):
            monkeypatch.setattr(memory_plan, "_memory_bytes", lambda device, size=megabytes: size * 10**6)
            plans.append(plan_memory(model, 300))
            assert plan_memory(model, 300) == plans[-1]
    assert plans[0] == MemoryPlan(TOKEN_BUDGET, recomputes=False)
    assert 300 <= plans[1].token_budget < TOKEN_BUDGET and not plans[1].recomputes
    assert plans[2].recomputes
    assert plans[3] == MemoryPlan(300, recomputes=True)


def test_weights_laid_out_take_room_where_nothing_is_computed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is not packed gets more tokens from the same memory."""
    model = tiny_model(tmp_path, "llama")
    monkeypatch.setattr(memory_plan, "_memory_bytes", lambda device: 30 * 10**6)
    with Lora().training(model, seed=0):
        packed = plan_memory(model, 300)
        model.module.register_forward_hook(lambda *_: None)
        plain = plan_memory(model, 300)
    assert packed.token_budget < plain.token_budget and not plain.recomputes


def test_unknown_models_get_the_usual_plan(tmp_path: Path) -> None:
    """No estimate, no guess."""
    model = replace(tiny_model(tmp_path, "llama"), module=torch.nn.Linear(2, 2))
    assert plan_memory(model, 10) == MemoryPlan()
    assert not can_recompute(model.module)


def test_when_one_row_is_too_much_layers_are_computed_twice(tmp_path: Path) -> None:
    """It is said, training goes on, and afterwards the module is as it was."""
    module: Any = tiny_model(tmp_path, "llama").module.requires_grad_(True)
    said: list[str] = []

    def loss_sum(module: Any, rows: list[int]) -> tuple[torch.Tensor, int]:
        if not module.is_activation_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return module(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False).logits.sum() * 1e-3, len(rows)

    job = Job(module, (3, 3), list, loss_sum, None, 2, 1e-4, 0.0, Schedule(2, 1, 0, 0), None, "x", 0, token_budget=6)
    result, _ = run(job, Budget(say=said.append))
    assert result.steps_done == 2 and not module.is_activation_checkpointing
    assert "memory ran out with one row at a time; activations are computed twice from now on" in said
