"""Train all weights of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from taskfit.errors import ConfigError
from taskfit.tuning.method import Method, Trainable
from taskfit.tuning.model_folder import load_model_folder, save_model_folder
from taskfit.tuning.settings import RateRule, weights_in_float32

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["Full"]


@dataclass(frozen=True)
class Full(Method):
    """Train every weight, in float32, and give the model back in the number format in which it came.

    Prefer it to ``lora`` for small models, for much data, and where the task is far from what the model knows; it
    takes 16 bytes of memory a weight and can forget more.

    Source: Howard and Ruder 2018, section 3. Rate: the usual one for a model 768 wide (Devlin et al. 2019, appendix
    A.3).
    """

    trains: ClassVar[Literal["all", "adapter"]] = "all"
    rate_at_768: ClassVar[float] = 5e-5
    rate_rule: ClassVar[RateRule] = "whole"

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Make every weight trainable; see :class:`taskfit.tuning.method.Method`."""
        with weights_in_float32(model.module):
            yield Trainable("all weights")

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

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Return the model itself: its weights are the changed ones."""
        return model

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Refuse: no weight of the base is left.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("full has changed every weight; nothing of the base is left", "Load the base model again.")
