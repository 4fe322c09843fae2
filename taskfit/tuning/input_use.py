"""Has a tuned model learned to look at its rows, or only how the labels are written and how frequent they are?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tuning.examples import Example
    from taskfit.tuning.loss import Chosen

__all__ = ["input_finding", "swapped"]

ROWS = 64
"""Most validation rows that are looked at."""

LEAST_ROWS = 8
"""Fewer tell nothing."""

LEAST_GAP = 0.1
"""Share of its loss that a row's own answer must be better than another row's."""


def input_finding(model: LanguageModel, examples: Sequence[Example], chosen: Chosen) -> tuple[str | None, Work]:
    """Return a warning where the answers hardly depend on the rows, and the work of finding out.

    A model that has learned only the labels' wording and shares gives every row's own answer the same loss as that of
    a row with another label. Soft prompts on small models stay there for long, and their loss falls all the same.

    Args:
        model: tuned.
        examples: of validation rows of a task with labels.
        chosen: how the loss is computed.
    """
    from taskfit.tuning.answers import mean_loss
    from taskfit.tuning.counts import batches_work

    own, others = swapped(examples[:ROWS])
    if len(own) < LEAST_ROWS:
        return None, Work()
    right, wrong = mean_loss(model, own, chosen), mean_loss(model, others, chosen)
    shapes = [[(one.length - one.learned, one.learned)] for one in (*own, *others)]
    work = batches_work(shapes, model.architecture, gathers=chosen.gathers, packs=True)
    if wrong - right >= LEAST_GAP * right:
        return None, work
    return (
        f"warning: the probabilities of answers hardly depend on the rows yet: {right:.3f} nats a token for a row's "
        f"own answer, {wrong:.3f} for that of a row with another label. What was learned is how labels are written and "
        "how frequent they are; train longer (min_steps), at a higher learning_rate, or with lora"
    ), work


def swapped(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return the examples, and each with the answer of one whose answer is another; those that find none are left out.

    The answers stay the same in number, so that the frequent ones are no easier in one list than in the other.
    """
    plain = sorted((one for one in examples if not one.read), key=lambda one: one.answer)
    if not plain:
        return [], []
    shift = max(Counter(one.answer for one in plain).values())  # past the most frequent one
    pairs = [(one, plain[(place + shift) % len(plain)]) for place, one in enumerate(plain)]
    pairs = [(one, other) for one, other in pairs if one.answer != other.answer]
    return [one for one, _ in pairs], [replace(one, answer=other.answer) for one, other in pairs]
