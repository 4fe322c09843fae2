"""Rationales as a second target: the model also learns to say why.

Label and rationale are two tasks told apart by a prefix (Hsieh et al. 2023, Distilling step-by-step, section 3.2):
the rationale is what follows the row's prompt with :data:`RATIONALE_PREFIX` before it; the label follows the prompt as
it will be asked later, without any prefix, so predicting costs nothing more. The loss is the mean over the labels'
tokens plus ``weight`` times the mean over the rationales' tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from taskfit.errors import TrainingError
from taskfit.tuning.examples import encode_example

if TYPE_CHECKING:
    from torch import Tensor, nn

    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.prompt import Prompt
    from taskfit.tasks.task import Row
    from taskfit.tuning.examples import Example
    from taskfit.tuning.loss import LossSum

__all__ = ["RATIONALE_PREFIX", "balanced", "rationale_example", "rationale_prompt", "weigh", "weighted"]

RATIONALE_PREFIX = "[rationale] "
"""Stands before a question whose answer is the rationale."""


def rationale_prompt(prompt: Prompt) -> Prompt:
    """Return the prompt that is answered by the rationale; worked examples are left out, for they show labels."""
    return replace(prompt, text=RATIONALE_PREFIX + prompt.text, shots=())


def rationale_example(model: LanguageModel, definition: TaskDefinition, row: Row, prompt: Prompt) -> Example | None:
    """Return the row's rationale as an example; None where the row has none.

    Args:
        model: encodes it.
        definition: its ``rationale`` renders the text.
        row: the row.
        prompt: of its label.

    Raises:
        TrainingError: the rationale does not fit into the context.
    """
    text = definition.rationale_text(row)
    if not text:
        return None
    return encode_example(model, f"{row.id}, rationale", rationale_prompt(prompt), text)


def weigh(
    labels: Sequence[Example], rationales: Sequence[Example], weight: float
) -> tuple[list[Example], list[Example]]:
    """Weigh both so that the labels' tokens together count 1 and the rationales' ``weight``.

    The weights are the same in every batch and their mean over all tokens is 1, so the summed loss of a step, divided
    by its tokens, is in expectation (mean over labels + weight x mean over rationales) / (1 + weight).

    Args:
        labels: examples of answers.
        rationales: examples of rationales.
        weight: of all rationales against all labels, above 0.

    Raises:
        TrainingError: there is no rationale.
    """
    if not rationales:
        raise TrainingError(
            "no training row has a rationale", "Name the field under `rationale` in the task file, or leave it out."
        )
    whole = sum(example.learned for example in (*labels, *rationales)) / (1 + weight)
    return balanced(labels, whole), balanced(rationales, weight * whole)


def balanced(examples: Sequence[Example], total: float | None = None) -> list[Example]:
    """Return the examples with weights so scaled that their tokens together weigh ``total``; None: their number.

    Raises:
        TrainingError: all of them weigh nothing.
    """
    found = sum(example.weight * example.learned for example in examples)
    if not found > 0:
        raise TrainingError("all examples weigh nothing, so there is nothing to learn", "Take weight=none.")
    wanted = sum(example.learned for example in examples) if total is None else total
    return [replace(example, weight=example.weight * (wanted / found)) for example in examples]


def weighted(loss_sum: LossSum) -> LossSum:
    """Return the loss with each example's tokens weighed by the batch's ``weights``, where it has some.

    Rows of equal weight go through the model together, so any loss can be weighed as it is.
    """

    def weighed(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        if "weights" not in batch:
            return loss_sum(module, batch)
        losses, tokens = [], 0
        for weight in sorted(set(batch["weights"].tolist())):
            rows = batch["weights"] == weight
            loss, count = loss_sum(module, {name: value[rows] for name, value in batch.items() if name != "weights"})
            if count:
                losses.append(weight * loss)
            tokens += count
        return sum(losses[1:], losses[0]), tokens

    return weighed
