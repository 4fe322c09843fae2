"""Small networks inside every block, trained while the block stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.tuning.changed_weights import CHANGED_WEIGHTS_FILE, check_header, save_changed
from taskfit.tuning.layers import layers_of_role, nothing_matches
from taskfit.tuning.method import Method, Trainable
from taskfit.tuning.model_folder import copy_tensors
from taskfit.tuning.selective import refuse_changed

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel
    from taskfit.tuning.bottleneck import Bottlenecks

__all__ = ["Adapter"]


@dataclass(frozen=True)
class Adapter(Method):
    """Train a bottleneck (down, ReLU, up) after the sub-layers of every block, or beside its MLP.

    ``houlsby`` puts one after attention and one after the MLP, ``pfeiffer`` one after the MLP, each before the
    residual connection; ``parallel`` puts one beside the MLP, which reads what the MLP reads. They begin as nothing:
    the second matrix is zero. They stay in the model when it answers, and cost a little time there.

    Source: Houlsby et al. 2019, section 2.1; Pfeiffer et al. 2021 (AdapterFusion), appendix A; He et al. 2022, section
    4. Bottleneck 64 and rate 3e-4 are in the middle of what Houlsby et al. tried (8 to 256; 3e-5 to 3e-3).
    """

    kind: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """Where the networks stand."""
    bottleneck: int = 64
    """Width inside."""

    rate_at_768: ClassVar[float] = 3e-4
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "bottleneck": OneOf((16, 64, 256))}

    def check(self, faults: Faults) -> None:
        """Note a width below 1."""
        if self.bottleneck < 1:
            faults.add(f"bottleneck must be at least 1 (got {self.bottleneck})")

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Put fresh networks in; see :class:`taskfit.tuning.method.Method`."""
        import torch

        model.module.requires_grad_(False)
        with torch.random.fork_rng(devices=[] if model.device.type == "cpu" else None):
            torch.manual_seed(seed)
            made = self._put_in(model)
        yield Trainable(f"{len(made.networks)} networks of width {self.bottleneck} inside the blocks")
        made.requires_grad_(False)

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write the networks to ``changed_weights.safetensors``."""
        save_changed(folder, _found(model).named_tensors(), self._facts())

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's networks into the base model; see :class:`taskfit.tuning.method.Method`."""
        if model is None:
            raise PredictorError(f"{folder} holds adapters only; the base model they were trained in is needed")
        refuse_changed(model.module)
        check_header(folder / CHANGED_WEIGHTS_FILE, self._facts())
        try:
            made = self._put_in(model)
        except ConfigError as error:
            raise PredictorError(f"{folder} does not fit {model.name}: {error.message}", error.hint) from error
        made.requires_grad_(False)
        try:
            copy_tensors(folder / CHANGED_WEIGHTS_FILE, made.named_tensors())
        except PredictorError:
            made.detach(model.module)
            raise
        return model

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Refuse: between the two matrices stands a function that no weight can express.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("bottleneck adapters cannot be folded into weights", "Use lora where that is needed.")

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Take the networks out."""
        _found(model).detach(model.module)
        return model

    def _put_in(self, model: LanguageModel) -> Bottlenecks:
        from taskfit.tuning.bottleneck import Bottlenecks

        made = Bottlenecks(self.bottleneck, model.device)
        for name, (reads, layer) in self._places(model).items():
            made.add(name, layer, reads)
        made.attach(model.module)
        return made

    def _places(self, model: LanguageModel) -> Mapping[str, tuple[torch.nn.Module | None, Any]]:
        """Name of each place: (the layer whose inputs are read, or None for the outputs; the layer it adds to)."""
        ends = layers_of_role(model.module, "mlp-output")
        if not ends:
            raise nothing_matches("adapter (the MLP's second layer)", model)
        if self.kind == "parallel":
            begins = layers_of_role(model.module, "mlp-input")
            return {name: (_first_of_block(name, begins, model), layer) for name, layer in ends.items()}
        if self.kind == "houlsby":
            outputs = layers_of_role(model.module, "attention-output")
            if not outputs:
                raise nothing_matches("adapter(kind=houlsby) (the attention's last layer)", model)
            ends = outputs | ends
        return {name: (None, layer) for name, layer in ends.items()}

    def _facts(self) -> dict[str, object]:
        return {"method": "adapter", "kind": self.kind, "bottleneck": self.bottleneck}


def _first_of_block(end: str, begins: Mapping[str, torch.nn.Module], model: LanguageModel) -> torch.nn.Module:
    """The layer that begins the MLP which ``end`` ends: the one whose name shares most with it."""
    if not begins:
        raise nothing_matches("adapter(kind=parallel) (the MLP's first layer)", model)
    parts = end.split(".")

    def shared(name: str) -> int:
        return next(
            (place for place, (one, other) in enumerate(zip(name.split("."), parts, strict=False)) if one != other), 0
        )

    return begins[max(begins, key=shared)]


def _found(model: LanguageModel) -> Bottlenecks:
    from taskfit.tuning.bottleneck import Bottlenecks

    return Bottlenecks.of(model.module)
