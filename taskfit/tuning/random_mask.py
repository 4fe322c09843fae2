"""Train a random share of a model's weights: the least that a method of choosing weights must beat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from taskfit.errors import Faults, PredictorError
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.tuning.changed_weights import CHANGED_WEIGHTS_FILE, check_header, save_changed
from taskfit.tuning.layers import Targets, linear_layers, nothing_matches
from taskfit.tuning.method import Method, Trainable
from taskfit.tuning.model_folder import are_numbers, read_tensors
from taskfit.tuning.selective import forget_originals, refuse_changed, remember_originals
from taskfit.tuning.settings import refuse_quantised

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["RandomMask"]

_PLACES = "taskfit_places"
"""Attribute of a module: where in each layer's weights the trained values stand."""


@dataclass(frozen=True)
class RandomMask(Method):
    """Train a random share of the weights of every linear layer, drawn once from the seed.

    Only the drawn values are held, trained and saved, so memory is that of ``lora`` with as many values.

    Source: Xu and Zhang 2024, "Random masking finds winning tickets", section 3, which also finds that few weights
    need large rates. Rate: 3e-4 at 3072 wide in peft's comparison (SHiRA with random places), which is 1.2e-3 at 768.
    """

    share: float = 0.01
    """Share of each layer's weights that train."""
    targets: Targets = "all"
    """Layers whose weights train: ``attention``, ``mlp`` or ``all``."""

    rate_at_768: ClassVar[float] = 1.2e-3
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "share": OneOf((0.001, 0.01, 0.1))}

    def check(self, faults: Faults) -> None:
        """Note a share outside its range."""
        if not 0 < self.share <= 1:
            faults.add(f"share must be above 0 and at most 1 (got {self.share})")

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Make the drawn values trainable; see :class:`taskfit.tuning.method.Method`."""
        from torch.nn.utils import parametrize

        from taskfit.tuning.masked_weight import MaskedWeight

        refuse_quantised(model.module)
        layers = self._layers(model)
        model.module.requires_grad_(False)
        places = {name: self._draw(layer, f"{seed}/{name}") for name, layer in layers.items()}
        for name, layer in layers.items():
            masked = MaskedWeight(_weight(layer), places[name])
            parametrize.register_parametrization(layer, "weight", masked, unsafe=True)
        try:
            count = sum(len(chosen) for chosen in places.values())
            yield Trainable(f"{count:,} weights drawn at random from {len(layers)} layers")
        finally:
            for name, layer in layers.items():
                values = _masked_values(layer)
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
                weight = _weight(layer)
                weight.view(-1)[places[name]] = values.to(weight.dtype)
            object.__setattr__(model.module, _PLACES, places)
            model.module.requires_grad_(False)
            model.module.eval()

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write places and values of every layer to ``changed_weights.safetensors``."""
        places: dict[str, torch.Tensor] = getattr(model.module, _PLACES)
        layers = dict(model.module.named_modules())
        tensors = {f"{name}.places": chosen for name, chosen in places.items()}
        tensors |= {f"{name}.values": _weight(layers[name]).view(-1)[chosen] for name, chosen in places.items()}
        save_changed(folder, tensors, self._facts())

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's values at their places; see :class:`taskfit.tuning.method.Method`."""
        if model is None:
            raise PredictorError(f"{folder} holds some weights only; the base model they belong to is needed")
        path = folder / CHANGED_WEIGHTS_FILE
        refuse_changed(model.module)
        check_header(path, self._facts())
        layers = self._layers(model)
        found = read_tensors(path)
        self._check(path, found, layers)
        places = {name: found[f"{name}.places"].to(model.device) for name in layers}
        remember_originals(
            model.module, {name: _weight(layer).view(-1)[places[name]].clone() for name, layer in layers.items()}
        )
        for name, layer in layers.items():
            weight = _weight(layer)
            weight.view(-1)[places[name]] = found[f"{name}.values"].to(weight)
        object.__setattr__(model.module, _PLACES, places)
        return model

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Return the model itself: its weights are the changed ones."""
        return model

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Put the base's values back; they were kept when the changes were loaded."""
        places: dict[str, torch.Tensor] = getattr(model.module, _PLACES)
        layers = dict(model.module.named_modules())
        for name, values in forget_originals(model.module).items():
            _weight(layers[name]).view(-1)[places[name]] = values
        return model

    def _layers(self, model: LanguageModel) -> dict[str, torch.nn.Module]:
        layers = linear_layers(model.module, self.targets)
        if not layers:
            raise nothing_matches(f"targets={self.targets}", model)
        return layers

    def _count(self, layer: torch.nn.Module) -> int:
        return max(1, round(self.share * _weight(layer).numel()))

    def _draw(self, layer: torch.nn.Module, key: str) -> torch.Tensor:
        """Places in the flattened weight, in order, drawn from the key alone."""
        import torch

        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
        weight = _weight(layer)
        order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(seed))
        return order[: self._count(layer)].sort().values.to(weight.device)

    def _facts(self) -> dict[str, object]:
        return {"method": "random-mask", "share": self.share, "targets": self.targets}

    def _check(self, path: Path, found: dict[str, torch.Tensor], layers: dict[str, torch.nn.Module]) -> None:
        """Refuse tensors that are missing, left over, misshaped, out of place or not finite."""
        import torch

        faults = Faults(str(path))
        expected = {f"{name}.{part}" for name in layers for part in ("places", "values")}
        for word, names in (("missing", expected - found.keys()), ("superfluous", found.keys() - expected)):
            if names:
                faults.add(f"{len(names)} tensors are {word}, first {min(names)}")
        faults.raise_as(PredictorError)
        for name, layer in layers.items():
            places, values = found[f"{name}.places"], found[f"{name}.values"]
            shape = (self._count(layer),)
            if places.dtype != torch.int64 or places.shape != shape or values.shape != shape:
                got = f"{places.dtype} {tuple(places.shape)} and {tuple(values.shape)}"
                faults.add(f"{name} must have {shape[0]} places and values (got {got})")
            elif bool((places.diff() <= 0).any()) or places[0] < 0 or places[-1] >= _weight(layer).numel():
                faults.add(f"{name} names places that are not in its weights, or not in order")
            elif not are_numbers(values):
                faults.add(f"{name} holds values that are not finite, or in no number format of weights")
        faults.raise_as(PredictorError)


def _weight(layer: Any) -> torch.Tensor:
    """The layer's weight without its history of gradients."""
    weight: torch.Tensor = layer.weight.detach()
    return weight


def _masked_values(layer: Any) -> torch.Tensor:
    values: torch.Tensor = layer.parametrizations.weight[0].values.detach()
    return values
