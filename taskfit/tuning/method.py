"""What all tuning methods share: their pace, the training itself, and what a method must say of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from taskfit.strategy.space import Space, Times
from taskfit.strategy.table import name_of
from taskfit.tuning.settings import RateRule, learning_rate_for, training_format, width_of
from taskfit.tuning.taught import Taught

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Task

__all__ = ["Method", "Trainable", "count_line", "count_values"]


@dataclass(frozen=True)
class Trainable:
    """What a method has made ready: the parameters of the model's module that require gradients.

    Attributes:
        what: which weights change, in words.
        after_step: called after every optimiser step with the optimiser and the number of steps done and planned,
            while the gradients are still there. What it must remember it keeps in the optimiser's state of a
            parameter, as tensors: that is what a checkpoint holds.
        penalty: added to the mean loss of a step while training.
        virtual_tokens: vectors that stand before every prompt.
    """

    what: str
    after_step: Callable[[torch.optim.Optimizer, int, int], None] | None = None
    penalty: Callable[[], torch.Tensor] | None = None
    virtual_tokens: int = 0


@dataclass(frozen=True)
class Method(Taught, ABC):
    """A change of a model's weights by training: see :class:`taskfit.strategy.contract.WeightsChange`.

    A method says which weights train, and how they are saved and loaded; the training is the same for all.
    """

    trains: ClassVar[Literal["all", "adapter"]] = "adapter"
    """Whether every weight has a gradient or most are frozen: decides what a training step costs."""
    rate_at_768: ClassVar[float]
    """The learning rate of a model 768 wide."""
    rate_rule: ClassVar[RateRule] = "matrix"
    """How the rate follows the width; see :func:`taskfit.tuning.settings.learning_rate_for`."""

    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0)}
    """What ``tune`` may search: small, and declared beside the defaults that it surrounds."""

    suits_encoders: ClassVar[bool] = True
    """Whether the strategy ``encoder`` can tune its body with it."""

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Decoders and encoder–decoders: what :meth:`change` can train to answer."""
        return frozenset({"decoder", "encoder-decoder"})

    @abstractmethod
    def training(self, model: LanguageModel, *, seed: int) -> AbstractContextManager[Trainable]:
        """Make the method's weights trainable, in float32, and everything else frozen, while the context lasts.

        Afterwards nothing requires gradients, and the model predicts as it will when it is saved and loaded.

        Raises:
            ConfigError: the model has no such weights, or a parameter does not suit it.
        """

    @abstractmethod
    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write the changed weights into an existing folder."""

    @abstractmethod
    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's weights on the base model; what is missing, left over or misshaped is an error.

        Raises:
            PredictorError: a file is missing or damaged, or does not fit the model or the method's parameters.
        """

    @abstractmethod
    def merge(self, model: LanguageModel) -> LanguageModel:
        """Return the loaded or trained model as a plain one, its changes folded into the weights, in place.

        Raises:
            ConfigError: the method's changes cannot be folded into weights.
        """

    @abstractmethod
    def detach(self, model: LanguageModel) -> LanguageModel:
        """Take the changes of a loaded model off again: the base is as it was, to the bit, and can take others.

        Raises:
            ConfigError: the base's own weights are gone.
        """

    def rate(self, model: LanguageModel) -> float:
        """Return the peak learning rate: the parameter, or the method's own for this model."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.rate_rule == "fixed":  # for models whose width is not known, too
            return self.rate_at_768
        return learning_rate_for(width_of(model), at_768=self.rate_at_768, rule=self.rate_rule)

    def change(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget) -> Work:
        """Train the model's weights, in place, to give the target after the program's prompt.

        Raises:
            TrainingError: nothing is supervised, rows cannot be learned, or training has diverged.
            ConfigError: a parameter does not suit the model, or the model is in float16 or quantised.
        """
        from taskfit.tuning.answers import train_answers

        training_format(model)  # refuses before anything is changed
        with self.training(model, seed=seed) as trainable:
            budget.say(count_line(self, model, trainable))
            return train_answers(model, task, program, self, trainable, seed=seed, budget=budget)

    def preview(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int) -> list[str]:
        """Return lines that show what would be learned; the model is made ready for training, but not trained.

        Raises:
            TrainingError, ConfigError: as :meth:`change` would, before its first step.
        """
        from taskfit.tuning.preview import shown_lines
        from taskfit.tuning.training_set import build_training_set

        training_format(model)
        with self.training(model, seed=seed) as trainable:
            data = build_training_set(model, task, program, self, seed=seed)
            return [count_line(self, model, trainable), *shown_lines(model, data, self.batch, seed=seed)]


def count_line(method: Method, model: LanguageModel, trainable: Trainable) -> str:
    """Return a sentence for the user: which weights change, how many they are, and how fast."""
    trained, total = count_values(model.module)
    rate = method.rate(model)
    return (
        f"{name_of(type(method))} trains {trained:,} of {total:,} values ({trained / total:.2%}): {trainable.what}; "
        f"learning rate {rate:.2g}"
    )


def count_values(module: torch.nn.Module) -> tuple[int, int]:
    """Return (values that train, all values); a packed four-bit weight counts its values, not its bytes."""
    trained = total = 0
    for parameter in module.parameters():
        state = getattr(parameter, "quant_state", None)
        count = parameter.numel() if state is None else state.shape.numel()
        total += count
        trained += count if parameter.requires_grad else 0
    return trained, total
