"""Train some of the model's own weights and leave the others: biases, normalisations, last blocks, the output layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.strategy.table import name_of
from taskfit.tuning.changed_weights import CHANGED_WEIGHTS_FILE, check_header, save_changed
from taskfit.tuning.layers import blocks, norm_names
from taskfit.tuning.method import Method, Trainable
from taskfit.tuning.model_folder import copy_tensors
from taskfit.tuning.settings import RateRule

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = [
    "BitFit",
    "HeadOnly",
    "LastLayers",
    "Norms",
    "Selective",
    "forget_originals",
    "refuse_changed",
    "remember_originals",
]

_ORIGINALS = "taskfit_originals"
"""Attribute of a module that carries loaded changes: what stood in their place."""

_ADDED = ("taskfit_bottlenecks", "taskfit_virtual_tokens")
"""Attributes of a module that carries networks or vectors of a predictor."""


@dataclass(frozen=True)
class Selective(Method):
    """A method that trains some parameters whole.

    They train in float32 and go back to the format of the model; the file holds them and nothing else. In a model in
    bfloat16, changes of less than 0.4 % of a weight are lost at the end: small rates want a model in float32.
    """

    @abstractmethod
    def chosen(self, model: LanguageModel) -> list[str]:
        """Return the full names of the parameters that train.

        Raises:
            ConfigError: the model has none.
        """

    @abstractmethod
    def what(self, model: LanguageModel) -> str:
        """Return in words which weights change."""

    def prepare_base(self, model: LanguageModel) -> None:
        """Change the base before weights are chosen, in training and in loading alike."""

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Make the chosen parameters trainable; see :class:`taskfit.tuning.method.Method`."""
        self.prepare_base(model)
        parameters = self._parameters(model)
        widened = [*parameters.values(), *_beside(model.module, parameters.values())]
        formats = [value.dtype for value in widened]
        model.module.requires_grad_(False)
        for value in widened:
            value.data = value.data.float()
        for value in parameters.values():
            value.requires_grad_(True)
        try:
            yield Trainable(self.what(model))
        finally:
            for value, dtype in zip(widened, formats, strict=True):
                value.requires_grad_(False)
                value.data = value.data.to(dtype)
            model.module.eval()

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write ``changed_weights.safetensors`` into an existing folder."""
        save_changed(folder, self._parameters(model), {"method": name_of(type(self))})

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's weights in place of the base's; see :class:`taskfit.tuning.method.Method`."""
        if model is None:
            raise PredictorError(f"{folder} holds some weights only; the base model they belong to is needed")
        refuse_changed(model.module)
        try:
            self.prepare_base(model)
            parameters = self._parameters(model)
        except ConfigError as error:
            raise PredictorError(f"{folder} does not fit {model.name}: {error.message}", error.hint) from error
        check_header(folder / CHANGED_WEIGHTS_FILE, {"method": name_of(type(self))})
        originals = {name: value.detach().clone() for name, value in parameters.items()}
        copy_tensors(folder / CHANGED_WEIGHTS_FILE, parameters)
        remember_originals(model.module, originals)
        return model

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Return the model itself: its weights are the changed ones."""
        return model

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Put the base's weights back; they were kept when the changes were loaded."""
        parameters = dict(model.module.named_parameters())
        for name, value in forget_originals(model.module).items():
            parameters[name].data.copy_(value)
        return model

    def _parameters(self, model: LanguageModel) -> dict[str, torch.nn.Parameter]:
        existing = dict(model.module.named_parameters())
        found = {name: existing[name] for name in self.chosen(model)}
        packed = [name for name, value in found.items() if not value.is_floating_point()]
        if packed:
            raise ConfigError(
                f"{packed[0]} is quantised and cannot be trained", "Load the model in bfloat16, or use qlora."
            )
        return found


@dataclass(frozen=True)
class BitFit(Selective):
    """Train the bias vectors, all of them, and nothing else.

    Only for families that have biases (GPT-2, OPT, BERT, Qwen's attention); Llama's and T5's have none.

    Source: Ben Zaken et al. 2022, section 3; rates between 1e-4 and 1e-3 in its appendix A.2.
    """

    rate_at_768: ClassVar[float] = 1e-3
    rate_rule: ClassVar[RateRule] = "fixed"

    def chosen(self, model: LanguageModel) -> list[str]:
        """Return the names of the biases."""
        found = [name for name, _ in model.module.named_parameters() if name.rpartition(".")[2] == "bias"]
        if not found:
            kinds = sorted({name.rpartition(".")[2] for name, _ in model.module.named_parameters()})
            raise ConfigError(
                f"bitfit trains biases, and {model.name} has none; its parameters are called {', '.join(kinds)}",
                "Use norms, which trains vectors that every model has, or lora.",
            )
        return found

    def what(self, model: LanguageModel) -> str:
        """Return in words which weights change."""
        return f"{len(self.chosen(model))} bias vectors"


@dataclass(frozen=True)
class Norms(Selective):
    """Train the scales (and shifts) of the normalisation layers and nothing else.

    Source: Zhao et al. 2024, "Tuning LayerNorm in attention", section 3. Rate: peft's comparison learned nothing at
    1e-4; ten times that is the largest rate of Ben Zaken et al. 2022 for vectors.
    """

    rate_at_768: ClassVar[float] = 1e-3
    rate_rule: ClassVar[RateRule] = "vector"

    def chosen(self, model: LanguageModel) -> list[str]:
        """Return the names of the normalisations' parameters."""
        found = norm_names(model.module)
        if not found:
            raise ConfigError(f"norms trains normalisation layers, and {model.name} has none with weights")
        return found

    def what(self, model: LanguageModel) -> str:
        """Return in words which weights change."""
        return f"{len(self.chosen(model))} vectors of normalisation layers"


@dataclass(frozen=True)
class LastLayers(Selective):
    """Train the last blocks of the model (of an encoder–decoder: of its decoder) and nothing else.

    Source: Howard and Ruder 2018, section 3.3 (the top layers are the most task-specific). Rate: that of ``full``.
    """

    n: int = 2
    """Number of blocks."""

    rate_at_768: ClassVar[float] = 5e-5
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "n": OneOf((1, 2, 3, 4))}

    def check(self, faults: Faults) -> None:
        """Note a number of blocks below 1."""
        if self.n < 1:
            faults.add(f"n must be at least 1 (got {self.n})")

    def chosen(self, model: LanguageModel) -> list[str]:
        """Return the names of the blocks' parameters."""
        name, found = _own_blocks(model)
        if self.n > len(found):
            raise ConfigError(f"n must be between 1 and {len(found)}, the blocks of {model.name} (got {self.n})")
        first = len(found) - self.n
        numbered = [(number, block) for number, block in enumerate(found) if number >= first]
        return [f"{name}.{number}.{own}" for number, block in numbered for own, _ in block.named_parameters()]

    def what(self, model: LanguageModel) -> str:
        """Return in words which weights change."""
        name, found = _own_blocks(model)
        return f"the last {self.n} of {len(found)} blocks in {name}"


def _beside(module: torch.nn.Module, chosen: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Return the vectors that a normalisation reads together with chosen ones: torch wants them in one format."""
    known = {id(value) for value in chosen}
    owned = (list(part.parameters(recurse=False)) for part in module.modules())
    vectors = (own for own in owned if all(value.ndim == 1 for value in own))
    return [value for own in vectors if any(id(one) in known for one in own) for value in own if id(value) not in known]


def _own_blocks(model: LanguageModel) -> tuple[str, list[torch.nn.Module]]:
    """Name and members of the model's list of blocks; of an encoder–decoder its decoder's, however short that is."""
    if model.architecture != "encoder-decoder":
        return blocks(model.module)
    module: Any = model.module
    decoder = module.get_decoder()
    prefix = next(name for name, part in module.named_modules() if part is decoder)
    name, found = blocks(decoder)
    return f"{prefix}.{name}", found


@dataclass(frozen=True)
class HeadOnly(Selective):
    """Train the layer that gives the answer and nothing below it.

    Of a model that generates it is the output layer to the vocabulary; where that shares its weights with the input
    embeddings, it gets a copy of its own. Of an encoder it is the linear layer on top (a linear probe).

    Source: Kumar et al. 2022, section 2 (linear probing). Rate: logistic regression with Adam's usual 1e-3.
    """

    rate_at_768: ClassVar[float] = 1e-3
    rate_rule: ClassVar[RateRule] = "fixed"

    def prepare_base(self, model: LanguageModel) -> None:
        """Give the output layer weights of its own."""
        import torch

        if model.architecture == "encoder":
            return
        module: Any = model.module
        output = module.get_output_embeddings()
        if output.weight is module.get_input_embeddings().weight:
            output.weight = torch.nn.Parameter(output.weight.detach().clone(), requires_grad=False)
            module.taskfit_is_untied = True

    def chosen(self, model: LanguageModel) -> list[str]:
        """Return the names of the output layer's parameters; none of an encoder's body."""
        if model.architecture == "encoder":
            return []
        module: Any = model.module
        output = module.get_output_embeddings()
        prefix = next(name for name, part in module.named_modules() if part is output)
        return [f"{prefix}.{own}" for own, _ in output.named_parameters()]

    def what(self, model: LanguageModel) -> str:
        """Return in words which weights change."""
        return "the head alone" if model.architecture == "encoder" else "the output layer"

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Return the model itself.

        Raises:
            ConfigError: its configuration says that output layer and embeddings are one, which they no longer are;
                saved as a plain model, it would lose the trained layer.
        """
        if getattr(model.module, "taskfit_is_untied", False):
            raise ConfigError(
                f"{model.name} shares its output layer with its embeddings; a plain model cannot hold the trained one",
                "Keep the predictor as it is, or use a model whose output layer is its own.",
            )
        return model

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Put the base's output layer back, shared as it was."""
        model = super().detach(model)
        module: Any = model.module
        if getattr(module, "taskfit_is_untied", False):
            module.get_output_embeddings().weight = module.get_input_embeddings().weight
            del module.taskfit_is_untied
        return model


def refuse_changed(module: torch.nn.Module) -> None:
    """Check that a module is a base as it was published: changes on top of others predict what was never evaluated.

    Raises:
        PredictorError: the module carries the changes of another predictor.
    """
    is_wrapped = any(hasattr(part, "base_layer") for part in module.modules())  # peft's layers stand in the base itself
    if is_wrapped or any(hasattr(module, name) for name in (_ORIGINALS, *_ADDED)):
        raise PredictorError(
            "the base model carries the changes of another predictor",
            "Load the base once more for this predictor, or take the other's changes off first: detach.",
        )


def remember_originals(module: torch.nn.Module, originals: dict[str, torch.Tensor]) -> None:
    """Keep with the module what loaded changes have replaced."""
    object.__setattr__(module, _ORIGINALS, originals)


def forget_originals(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what :func:`remember_originals` kept, and keep it no longer.

    Raises:
        ConfigError: nothing was kept: the changes were trained here, not loaded.
    """
    if not hasattr(module, _ORIGINALS):
        raise ConfigError(
            "the base's own weights were not kept, as the changes were trained here", "Load the base again."
        )
    originals = cast("dict[str, torch.Tensor]", getattr(module, _ORIGINALS))
    object.__delattr__(module, _ORIGINALS)
    return originals
