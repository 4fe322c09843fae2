"""Methods of the peft library: wrap, train, save in its format, load strictly, merge, take off. One way for all."""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.tuning.method import Method, Trainable
from taskfit.tuning.model_folder import copy_tensors
from taskfit.tuning.selective import refuse_changed
from taskfit.tuning.settings import refuse_merging_into_packed

if TYPE_CHECKING:
    import peft
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["CONFIG_FILE", "TASK_TYPES", "WEIGHTS_FILE", "PeftMethod", "check_config", "write_adapter"]

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

TASK_TYPES = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION"}


@dataclass(frozen=True)
class PeftMethod(Method):
    """A method of the peft library whose modules replace layers of the model.

    A new one says its configuration; everything else is done here.
    """

    agreed: ClassVar[tuple[str, ...]] = ("peft_type", "target_modules")
    """Entries of a saved configuration that must be what the parameters give."""

    @abstractmethod
    def config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return peft's configuration for this model, as it is saved.

        Raises:
            ConfigError: a parameter does not suit the model.
        """

    def training_config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return the configuration to train with, where that is another."""
        return self.config(model, seed=seed)

    def what(self, wrapped: peft.PeftModel) -> str:
        """Return in words which weights change."""
        return f"updates of {', '.join(sorted(wrapped.peft_config['default'].target_modules))}"

    def prepare_base(self, model: LanguageModel) -> None:
        """Change the base before anything is put on it, in training and in loading alike."""

    def ready(self, wrapped: peft.PeftModel) -> Trainable:
        """Return what training needs to know of the wrapped module."""
        return Trainable(self.what(wrapped))

    def finish(self, model: LanguageModel) -> None:
        """Bring the trained module into the form that is saved."""

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Wrap the module; see :class:`taskfit.tuning.method.Method`."""
        self.prepare_base(model)
        wrapped = wrap(model, self.training_config(model, seed=seed), seed=seed)
        model.module = wrapped
        yield self.ready(wrapped)
        self.finish(model)
        model.module.requires_grad_(False)

    def wrap(self, model: LanguageModel, *, seed: int) -> peft.PeftModel:
        """Return the model's module with fresh updates, in the form in which they are saved.

        Raises:
            ConfigError: a parameter does not suit the model.
        """
        self.prepare_base(model)
        return wrap(model, self.config(model, seed=seed), seed=seed)

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json`` into an existing folder, as peft does."""
        module = cast("peft.PeftModel", model.module)
        write_adapter(folder, _adapter_values(module), module.peft_config["default"])

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's updates on the base model.

        The update's shape comes from the method's own parameters; the folder's configuration must agree with them.

        Raises:
            PredictorError: a file is missing or damaged; weights are missing, superfluous or of another shape; the
                configuration differs.
        """
        if model is None:
            raise PredictorError(f"{folder} holds an adapter only; the base model it was trained on is needed")
        refuse_changed(model.module)
        try:
            wrapped = self.wrap(model, seed=0)
        except ConfigError as error:
            raise PredictorError(f"{folder} does not fit {model.name}: {error.message}", error.hint) from error
        check_config(folder / CONFIG_FILE, wrapped.peft_config["default"], self.agreed)
        copy_tensors(folder / WEIGHTS_FILE, _adapter_values(wrapped))
        wrapped.requires_grad_(False)
        wrapped.eval()
        return replace(model, module=wrapped)

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Fold the updates into the weights, in place, in the weights' own number format.

        Raises:
            ConfigError: the weights are packed into fewer bits.
        """
        refuse_merging_into_packed(model.module)
        wrapped: Any = model.module
        return replace(model, module=wrapped.merge_and_unload(safe_merge=True))

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Take the updates off; the base is as it was."""
        wrapped: Any = model.module
        return replace(model, module=wrapped.unload())


def wrap(model: LanguageModel, config: peft.PeftConfig, *, seed: int) -> peft.PeftModel:
    """Return the model's module inside peft's wrapper; random starts come from ``seed`` alone."""
    import peft
    import torch

    with torch.random.fork_rng(devices=[] if model.device.type == "cpu" else None):
        torch.manual_seed(seed)
        with warnings.catch_warnings():  # peft reads a name that transformers has renamed
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            wrapped = peft.get_peft_model(model.module, config)
    config.base_model_name_or_path = model.name  # peft put the folder's path here
    wrapped.eval()
    return cast("peft.PeftModel", wrapped)


def write_adapter(folder: Path, values: Mapping[str, torch.Tensor], config: peft.PeftConfig) -> None:
    """Write tensors and configuration as peft does; it loads them, for inference."""
    from safetensors.torch import save_file

    contiguous = {name: value.detach().cpu().contiguous() for name, value in values.items()}
    save_file(contiguous, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config.inference_mode = True
    config.save_pretrained(str(folder))


def check_config(path: Path, expected: peft.PeftConfig, agreed: tuple[str, ...]) -> None:
    """Refuse a configuration that differs from what the strategy's parameters give.

    Raises:
        PredictorError: the file cannot be read, or entries differ; all together.
    """
    wanted = {key: _plain(getattr(expected, key)) for key in agreed}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = {key: _plain(values[key]) for key in agreed}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PredictorError(f"{path} cannot be read as an adapter's configuration ({error!r})") from error
    faults = Faults(str(path))
    for key, value in wanted.items():
        if found[key] != value:
            faults.add(f"{key} must be {value} as the strategy's name says (got {found[key]})")
    faults.raise_as(PredictorError)


def _plain(value: object) -> object:
    """The value as JSON has it: sets are lists in order, enumerations their texts."""
    if isinstance(value, set | list | tuple):
        return sorted(value)
    return getattr(value, "value", value)


def _adapter_values(module: peft.PeftModel) -> dict[str, torch.Tensor]:
    """The updates' tensors under the names of peft's files."""
    from peft.utils import get_peft_model_state_dict

    return cast("dict[str, torch.Tensor]", get_peft_model_state_dict(module, save_embedding_layers=False))
