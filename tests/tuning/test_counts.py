"""Work of a training against plain loops."""

from __future__ import annotations

import pytest

from taskfit.models.work import Work
from taskfit.tuning.batches import StepPlan
from taskfit.tuning.counts import batches_work, cut_work, fit_work
from taskfit.tuning.examples import Example
from taskfit.tuning.train_run import CurvePoint, TrainResult

SHAPES = [(5, 2), (7, 1), (3, 3), (4, 4), (9, 2)]


@pytest.mark.parametrize(
    ("architecture", "pairs"),
    [("decoder", lambda length: sum(range(1, length + 1))), ("encoder", lambda length: length * length)],
)
def test_a_batch_counts_its_padding(architecture: str, pairs: object) -> None:
    """Two rows of 7 and 8 tokens are two rows of 8."""
    work = batches_work([SHAPES[:2]], architecture, gathers=True)  # type: ignore[arg-type]
    assert work.computed_tokens == 16
    assert work.attended_pairs == 2 * pairs(8)  # type: ignore[operator]
    assert (work.prompt_tokens, work.answer_tokens, work.head_tokens) == (12, 3, 3)
    assert batches_work([SHAPES[:2]], architecture, gathers=False).head_tokens == 16  # type: ignore[arg-type]


def test_an_encoder_decoder_pads_each_side() -> None:
    """Encoder by prompts, decoder by answers, and the decoder attends to the encoder."""
    work = batches_work([SHAPES[:2]], "encoder-decoder", gathers=True)
    assert (work.computed_tokens, work.decoder_tokens, work.head_tokens) == (2 * 7, 2 * 2, 2 * 2)
    by_hand = 0
    for _ in range(2):
        by_hand += sum(7 for _ in range(7)) + sum(own + 1 for own in range(2)) + sum(7 for _ in range(2))
    assert work.attended_pairs == by_hand


@pytest.mark.parametrize("trains", ["all", "adapter"])
def test_a_fit_counts_steps_and_validations(trains: str) -> None:
    """Three steps went forward and backward, two validations forward only."""
    plan = StepPlan(tuple(sum(shape) for shape in SHAPES), 2, 1000, seed=0)
    curve = (CurvePoint(1, 1.0, None), CurvePoint(2, 1.0, 0.5), CurvePoint(3, 1.0, 0.4))
    result = TrainResult(3, 3, 0.4, False, curve)
    held_out = [[(6, 1)]]
    work = fit_work(plan, result, SHAPES, held_out, "decoder", trains=trains, gathers=True)  # type: ignore[arg-type]
    steps = [[SHAPES[row] for row in group] for step in range(3) for group in plan.micro_batches_at(step)]
    once = batches_work(held_out, "decoder", gathers=True)
    forward = batches_work(steps, "decoder", gathers=True)
    trained = {"all": "trained_tokens", "adapter": "trained_frozen_tokens"}[trains]
    assert work == forward + once + once + Work(**{trained: forward.computed_tokens})


def test_cut_rows_are_counted_once() -> None:
    """However often the row is trained on."""
    examples = [Example("a", (1,), (2,), 5, 0), Example("b", (1,), (2,), 0, 2), Example("c", (1,), (2,))]
    assert cut_work(examples) == Work(cut_tokens=5, cut_rows=1, dropped_shots=2)
