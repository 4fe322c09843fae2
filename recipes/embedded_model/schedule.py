"""The whole of a training as a list of steps: which tokens, in what rows, at what rate. All of it known beforehand.

Warm-up, stable, decay (Hu et al. 2024, section 4): most of the tokens at a constant rate, the last part down to zero,
in longer rows and with the best data mixed in. Batches begin small, where the gradient points the same way in all of
them, and grow (McCandlish et al. 2018, section 2.2).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Plan", "Step", "beginning_of", "steps_of"]


@dataclass(frozen=True)
class Plan:
    """What decides a training, besides its data and the model's first weights.

    Attributes:
        size: name of the shape.
        tokens: to be read in all.
        rate: the peak learning rate.
        optimizer: see ``optimizer.py``.
        first_batch, batch: tokens of a step at the beginning, and in the end.
        growth_tokens: over which the batch doubles from the one to the other. A number, not a share: a plan of more
            tokens then begins with the same steps, and can go on where the decay of the shorter one set in.
        warmup_steps: over which the rate rises.
        decay_share: of the tokens, over which the rate falls to zero.
        length, decay_length: tokens of a row before and in the decay.
        instruction_share: of the rows in the decay, taken from the instruction text.
        seed: of weights and data order.
    """

    size: str
    tokens: int
    rate: float = 4e-3
    optimizer: str = "muon"
    first_batch: int = 4096
    batch: int = 16384
    growth_tokens: int = 8_000_000
    warmup_steps: int = 100
    decay_share: float = 0.25
    length: int = 512
    decay_length: int = 1024
    instruction_share: float = 0.25
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values, to be kept and compared."""
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        text_rows, instruction_rows: taken from the text and from the instructions.
        first_text, first_instruction: number of the first of each among all rows of its stage.
        length: tokens of a row.
        rate_share: of the peak rate.
        is_decay: whether it is of the second stage.
        tokens_before: read in the steps before it.
    """

    text_rows: int
    instruction_rows: int
    first_text: int
    first_instruction: int
    length: int
    rate_share: float
    is_decay: bool
    tokens_before: int


def beginning_of(tokens: int, batch: int = Plan.batch) -> dict[str, int]:
    """Return ``warmup_steps`` and ``growth_tokens`` of a plan: those of a long one, or a tenth and three of a short."""
    return {
        "warmup_steps": max(1, min(Plan.warmup_steps, tokens // batch // 10)),
        "growth_tokens": min(Plan.growth_tokens, tokens * 3 // 10),
    }


def steps_of(plan: Plan) -> list[Step]:
    """Return all steps of a plan; at least one before the decay and one in it."""
    steps: list[Step] = []
    done, stable = 0, round(plan.tokens * (1 - plan.decay_share))
    rows = 0
    while done < stable or not steps:
        count = max(1, _batch(plan, done) // plan.length)
        share = min(1.0, (len(steps) + 1) / plan.warmup_steps)
        steps.append(Step(count, 0, rows, 0, plan.length, share, False, done))
        rows, done = rows + count, done + count * plan.length
    count = max(2, plan.batch // plan.decay_length)
    of_instructions = round(count * plan.instruction_share)
    total = max(1, round((plan.tokens - done) / (count * plan.decay_length)))
    peak = min(1.0, (len(steps) + 1) / plan.warmup_steps)
    for number in range(total):
        texts = count - of_instructions
        share = peak * (total - number) / total
        places = (number * texts, number * of_instructions)
        steps.append(Step(texts, of_instructions, *places, plan.decay_length, share, True, done))
        done += count * plan.decay_length
    return steps


def _batch(plan: Plan, done: int) -> int:
    """Return the tokens of a step: doubled at equal distances over ``growth_tokens``."""
    if done >= plan.growth_tokens:
        return plan.batch
    doublings = max(0, math.ceil(math.log2(plan.batch / plan.first_batch)))
    return min(plan.batch, plan.first_batch << int(done / plan.growth_tokens * doublings))
