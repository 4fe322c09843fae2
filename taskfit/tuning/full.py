"""Train all weights of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, Faults
from taskfit.strategy.parameters import check_types
from taskfit.tuning.model_folder import load_model_folder, save_model_folder
from taskfit.tuning.settings import check_schedule, learning_rate_for, training_format, weights_in_float32, width_of

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Task

__all__ = ["Full"]

LEARNING_RATE_AT_768 = 5e-5
"""The usual rate for a model 768 wide (Devlin et al. 2019, appendix A.3)."""


@dataclass(frozen=True)
class Full:
    """Train every weight, in float32, and give the model back in the number format in which it came.

    Prefer it to ``lora`` for small models, for much data, and where the task is far from what the model knows; it
    takes 16 bytes of memory a weight and can forget more.

    Source: Howard and Ruder 2018, section 3.
    """

    learning_rate: float | None = None
    """Peak learning rate; none chooses it from the model's width: 5e-5 x 768 / width."""
    epochs: int = 3
    """Passes over the training rows."""
    batch: int = 16
    """Rows of one optimiser step."""
    min_steps: int = 60
    """Small sets are passed over more often, until this many steps."""

    def __post_init__(self) -> None:
        faults = Faults("full")
        check_types(self, faults)
        if not faults.messages:
            check_schedule(self, faults)
        faults.raise_as(ConfigError)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Decoders and encoder–decoders."""
        return frozenset({"decoder", "encoder-decoder"})

    def change(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget) -> Work:
        """Train the model's weights, in place, to give the target after the program's prompt.

        Raises:
            TrainingError: nothing is supervised, rows cannot be learned, or training has diverged.
            ConfigError: the model is in float16.
        """
        from taskfit.tuning.answers import Pace, train_answers

        training_format(model)  # refuses before the weights are converted
        rate = self.learning_rate or learning_rate_for(width_of(model), at_768=LEARNING_RATE_AT_768)
        budget.say(f"training all weights, learning rate {rate:.2g}")
        with weights_in_float32(model.module):
            return train_answers(
                model,
                task,
                program,
                Pace(rate, self.epochs, self.batch, self.min_steps),
                method=repr(self),
                trains="all",
                seed=seed,
                budget=budget,
            )

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write a complete model folder: configuration, safetensors weights, tokenizer."""
        save_model_folder(model, folder)

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Load the folder's model, in the number format in which it was saved.

        Args:
            model: not needed; its device is used where it is given.
            folder: what ``save`` wrote.

        Raises:
            PredictorError: the folder holds no complete model.
        """
        loaded = load_model_folder(folder, device="auto" if model is None else str(model.device))
        return loaded if model is None else replace(loaded, name=model.name)
