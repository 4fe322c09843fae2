"""Low-rank updates of linear layers, in their usual form and with another scale, split, start or sharing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from taskfit.errors import ConfigError, Faults
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.tuning.layers import Targets, linear_layers, nothing_matches, suffixes, widths_of
from taskfit.tuning.peft_method import TASK_TYPES, PeftMethod

if TYPE_CHECKING:
    import peft
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["Dora", "Lora", "LowRank", "RsLora", "Targets", "Vera", "linear_layers", "target_layers"]


@dataclass(frozen=True)
class LowRank(PeftMethod):
    """What the low-rank methods share: two thin matrices a layer, whose product is added to its weights."""

    rank: int = 8
    """Width of the update; trainable values per layer: rank x (inputs + outputs). 8 did as well as 64 in Hu et al.
    2021, section 7.2."""
    alpha: int = 16
    """The update is scaled by alpha / rank; twice the rank, as in Biderman et al. 2024 ("LoRA learns less and forgets
    less")."""
    targets: Targets = "all"
    """Layers that get an update: ``attention``, ``mlp`` or ``all``. All did best in Dettmers et al. 2023, section 4."""
    dropout: float = 0.0
    """Share of the update's inputs dropped in training: 0 to 0.1 in Hu et al. 2021, appendix D."""

    agreed: ClassVar[tuple[str, ...]] = ("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "use_dora")
    rate_at_768: ClassVar[float] = 5e-4
    """Ten times the rate of full tuning: the ratio found best over models and data by Schulman et al. 2025, "LoRA
    without regret"; a model 4096 wide gets about 1e-4, between the rates of Hu et al. 2021 (appendix D) and of QLoRA.
    """
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "rank": OneOf((4, 8, 16, 32))}

    def check(self, faults: Faults) -> None:
        """Note ranks, scales and shares outside their range."""
        if self.rank < 1:
            faults.add(f"rank must be at least 1 (got {self.rank})")
        if self.alpha < 1:
            faults.add(f"alpha must be at least 1 (got {self.alpha})")
        if not 0 <= self.dropout < 1:
            faults.add(f"dropout must be at least 0 and below 1 (got {self.dropout})")

    def options(self, layers: Mapping[str, torch.nn.Module], model: LanguageModel) -> dict[str, Any]:
        """Return what the method adds to peft's usual configuration for these layers."""
        return {}

    def config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return peft's configuration.

        Raises:
            ConfigError: the rank is larger than a layer, or no layer matches ``targets``.
        """
        import peft

        layers = target_layers(model, self.targets, rank=self.rank)
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            **common_options(layers, model),
            **self.options(layers, model),
        )


@dataclass(frozen=True)
class Lora(LowRank):
    """Train two thin matrices for each chosen layer, whose product is added to its weights (scaled by alpha / rank).

    Prefer it to ``full`` where memory is short, where many tasks share one model, or where little may be forgotten.
    The updates are trained in float32 whatever the format of the base, and saved in the format of the peft library.

    Source: Hu et al. 2021, section 4.
    """

    ranks: str = ""
    """Other ranks for some layers, as ``mlp:4 layers.0:16``: every layer whose full name holds that part, whole words
    between dots, gets that rank; where several parts fit, the last one counts. Alpha stays, so a layer's update is
    scaled by alpha / its own rank."""

    agreed: ClassVar[tuple[str, ...]] = (*LowRank.agreed, "rank_pattern")

    def check(self, faults: Faults) -> None:
        """Note also ranks of layers that cannot be read."""
        super().check(faults)
        for word in self.ranks.split():
            if not re.fullmatch(r"[^:]+:[1-9][0-9]*", word):
                faults.add(f"ranks must be words like mlp:4, a part of a layer's name and its rank (got {word!r})")

    def options(self, layers: Mapping[str, torch.nn.Module], model: LanguageModel) -> dict[str, Any]:
        """Return the ranks of the layers that have one of their own.

        Raises:
            ConfigError: a part of a name matches no layer, or a rank is larger than its layer.
        """
        own: dict[str, int] = {}
        for word in self.ranks.split():
            part, _, rank = word.rpartition(":")
            chosen = {name: layer for name, layer in layers.items() if f".{part}." in f".{name}."}
            if not chosen:
                raise nothing_matches(f"ranks={part}", model)
            _check_rank(chosen, int(rank), model)
            own.update(dict.fromkeys(chosen, int(rank)))
        return {"rank_pattern": {re.escape(name): rank for name, rank in own.items()}}


@dataclass(frozen=True)
class RsLora(LowRank):
    """LoRA whose update is scaled by alpha / sqrt(rank), so that large ranks learn as fast as small ones.

    Prefer it to ``lora`` for ranks of 32 and more. With the defaults the scale is 2, as with those of ``lora``.

    Source: Kalajdzievski 2023, section 3.1; best of the LoRA runs in peft's comparison (rank 64, rate 1e-4 at 3072
    wide, which is 4e-4 at 768).
    """

    rank: int = 16
    """Width of the update."""
    alpha: int = 8
    """The update is scaled by alpha / sqrt(rank)."""
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "rank": OneOf((8, 16, 32, 64))}

    def options(self, layers: Mapping[str, torch.nn.Module], model: LanguageModel) -> dict[str, Any]:
        """Return the other scale."""
        return {"use_rslora": True}


@dataclass(frozen=True)
class Dora(LowRank):
    """LoRA of a weight's direction, with its column-wise length trained beside it.

    It costs a fifth more time than ``lora`` in peft's comparison. It works with ranks half as large.

    Source: Liu et al. 2024 (DoRA), section 4; their rates, 1e-4 to 2e-4 for models 4096 wide, are those of ``lora``.
    """

    def options(self, layers: Mapping[str, torch.nn.Module], model: LanguageModel) -> dict[str, Any]:
        """Return the split into direction and length."""
        return {"use_dora": True}


@dataclass(frozen=True)
class Vera(PeftMethod):
    """Train two vectors a layer that scale the rows and columns of two random matrices shared by all layers.

    Ten times fewer trained values than ``lora``, and files that are mostly the random matrices. Prefer it where very
    many tasks share one model.

    Source: Kopiczko et al. 2024, section 3; rank 256 and rates ten times those of LoRA, 4e-3 for RoBERTa-base, in its
    appendix A; peft's comparison took 1e-3 at 3072 wide, which is the same.
    """

    rank: int = 256
    """Width of the shared matrices."""
    initial: float = 0.1
    """Start of the vector that scales the columns."""
    targets: Targets = "all"
    """Layers that get an update: ``attention``, ``mlp`` or ``all``."""
    dropout: float = 0.0
    """Share of the update's inputs dropped in training."""

    agreed: ClassVar[tuple[str, ...]] = ("peft_type", "r", "target_modules")
    rate_at_768: ClassVar[float] = 4e-3
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "initial": OneOf((0.01, 0.1, 1.0))}

    def check(self, faults: Faults) -> None:
        """Note ranks, starts and shares outside their range."""
        if self.rank < 1:
            faults.add(f"rank must be at least 1 (got {self.rank})")
        if not 0 < self.initial < 10:
            faults.add(f"initial must be above 0 and below 10 (got {self.initial})")
        if not 0 <= self.dropout < 1:
            faults.add(f"dropout must be at least 0 and below 1 (got {self.dropout})")

    def config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return peft's configuration; the random matrices are saved with the vectors."""
        import peft

        layers = target_layers(model, self.targets)
        return peft.VeraConfig(
            r=self.rank,
            d_initial=self.initial,
            vera_dropout=self.dropout,
            projection_prng_key=seed,
            save_projection=True,
            **common_options(layers, model),
        )


def target_layers(model: LanguageModel, targets: Targets, *, rank: int = 1) -> dict[str, torch.nn.Module]:
    """Return the layers to change, by full name.

    Raises:
        ConfigError: there are none, or the rank is larger than one of them.
    """
    layers = linear_layers(model.module, targets)
    if not layers:
        raise nothing_matches(f"targets={targets}", model)
    _check_rank(layers, rank, model)
    return layers


def common_options(layers: Mapping[str, torch.nn.Module], model: LanguageModel) -> dict[str, Any]:
    """Return the entries of peft's configuration that say which layers are meant."""
    import torch

    return {
        "task_type": TASK_TYPES[model.architecture],
        "target_modules": suffixes(layers, linear_layers(model.module, "all", with_output=True)),
        "fan_in_fan_out": any(not isinstance(layer, torch.nn.Linear) for layer in layers.values()),
    }


def _check_rank(layers: Mapping[str, torch.nn.Module], rank: int, model: LanguageModel) -> None:
    widths = {name: min(widths_of(layer)) for name, layer in layers.items()}
    name = min(widths, key=widths.__getitem__)
    narrowest = widths[name]
    if rank > narrowest:
        raise ConfigError(
            f"rank must be between 1 and {narrowest} for {model.name} (got {rank})",
            f"The narrowest chosen layer is {name}; lower rank, or choose other targets.",
        )
