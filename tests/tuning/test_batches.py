"""Which rows go through the model together."""

from __future__ import annotations

from itertools import chain, product

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.tuning.batches import CALL_OVERHEAD_TOKENS, StepPlan, split_by_length

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)


def work(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(CALL_OVERHEAD_TOKENS + len(group) * max(lengths[row] for row in group) for group in groups)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 2000))
def test_every_row_is_in_one_group_within_the_budget(lengths: list[int], budget: int) -> None:
    """Groups are a partition; only a row that is alone may exceed the budget."""
    groups = split_by_length(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 600), min_size=1, max_size=8), st.integers(1, 2000))
def test_the_split_has_the_least_work_of_all_splits(lengths: list[int], budget: int) -> None:
    """Compared with every way to cut the sorted rows into groups."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    possible = []
    for cuts in product((False, True), repeat=len(order) - 1):
        groups = [[order[0]]]
        for is_cut, row in zip(cuts, order[1:], strict=True):
            if is_cut:
                groups.append([row])
            else:
                groups[-1].append(row)
        if all(len(group) == 1 or len(group) * lengths[group[0]] <= budget for group in groups):
            possible.append(work(groups, lengths))
    assert work(split_by_length(lengths, budget), lengths) == min(possible)


def test_no_rows_make_no_groups() -> None:
    """A validation set may be empty."""
    assert split_by_length([], 100) == []


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 10), st.integers(0, 3))
def test_an_epoch_sees_every_row_once(lengths: list[int], batch: int, epoch: int) -> None:
    """Whatever the size of the last step."""
    plan = StepPlan(tuple(lengths), batch, 1000, seed=7)
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    assert sorted(row for step in steps for row in plan.rows_at(step)) == list(range(len(lengths)))


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 100))
def test_the_rows_of_a_step_do_not_depend_on_the_memory(lengths: list[int], step: int) -> None:
    """Halved micro-batches keep the effective batch."""
    wide = StepPlan(tuple(lengths), 8, 4096, seed=1).micro_batches_at(step)
    narrow = StepPlan(tuple(lengths), 8, 64, seed=1).micro_batches_at(step)
    assert sorted(chain(*wide)) == sorted(chain(*narrow))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    """The order is shuffled anew."""
    plan = StepPlan((5,) * 50, 50, 4096, seed=0)
    assert plan.rows_at(0) != plan.rows_at(1)
    assert plan.rows_at(0) != StepPlan((5,) * 50, 50, 4096, seed=1).rows_at(0)
    assert plan.rows_at(0) == StepPlan((5,) * 50, 50, 4096, seed=0).rows_at(0)
