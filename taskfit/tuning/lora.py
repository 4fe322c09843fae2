"""Train low-rank updates of a model's linear layers; the model's own weights stay as they are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.strategy.parameters import check_types
from taskfit.tuning.model_folder import copy_tensors
from taskfit.tuning.settings import check_schedule, learning_rate_for, training_format, width_of

if TYPE_CHECKING:
    import peft
    import torch

    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Task

__all__ = ["Lora", "Targets", "linear_layers"]

Targets = Literal["attention", "mlp", "all"]
"""Which linear layers get an update."""

LEARNING_RATE_AT_768 = 5e-4
"""Ten times the rate of full tuning: the ratio found best over models and data by Schulman et al. 2025, "LoRA without
regret"; a model 4096 wide gets about 1e-4, between the rates of Hu et al. 2021 (appendix D) and of QLoRA."""

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

_TASK_TYPES = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}


@dataclass(frozen=True)
class Lora:
    """Train two thin matrices for each chosen layer, whose product is added to its weights (scaled by alpha / rank).

    Prefer it to ``full`` where memory is short, where many tasks share one model, or where little may be forgotten.
    The updates are trained in float32 whatever the format of the base, and saved in the format of the peft library.

    Source: Hu et al. 2021, section 4.
    """

    rank: int = 8
    """Width of the update; trainable values per layer: rank x (inputs + outputs). 8 did as well as 64 in Hu et al.
    2021, section 7.2."""
    alpha: int = 16
    """The update is scaled by alpha / rank."""
    targets: Targets = "all"
    """Layers that get an update: ``attention``, ``mlp`` or ``all``. All did best in Dettmers et al. 2023, section 4."""
    dropout: float = 0.0
    """Share of the update's inputs dropped in training."""
    learning_rate: float | None = None
    """Peak learning rate; none chooses it from the model's width: 5e-4 x 768 / width."""
    epochs: int = 3
    """Passes over the training rows."""
    batch: int = 16
    """Rows of one optimiser step."""
    min_steps: int = 60
    """Small sets are passed over more often, until this many steps."""

    def __post_init__(self) -> None:
        faults = Faults("lora")
        check_types(self, faults)
        if not faults.messages:
            if self.rank < 1:
                faults.add(f"rank must be at least 1 (got {self.rank})")
            if self.alpha < 1:
                faults.add(f"alpha must be at least 1 (got {self.alpha})")
            if not 0 <= self.dropout < 1:
                faults.add(f"dropout must be at least 0 and below 1 (got {self.dropout})")
            check_schedule(self, faults)
        faults.raise_as(ConfigError)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Decoders and encoder–decoders."""
        return frozenset({"decoder", "encoder-decoder"})

    def change(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget) -> Work:
        """Wrap ``model.module`` with updates and train them to give the target after the program's prompt.

        Raises:
            ConfigError: the rank is larger than a layer, no layer matches ``targets``, or the model is in float16.
            TrainingError: nothing is supervised, rows cannot be learned, or training has diverged.
        """
        from taskfit.tuning.answers import Pace, train_answers

        training_format(model)  # refuses before the module is wrapped
        rate = self.learning_rate or learning_rate_for(width_of(model), at_768=LEARNING_RATE_AT_768)
        wrapped = self.wrap(model, seed=seed)
        trainable = sum(value.numel() for value in wrapped.parameters() if value.requires_grad)
        total = sum(value.numel() for value in wrapped.parameters())
        budget.say(f"lora trains {trainable:,} of {total:,} values ({trainable / total:.1%}), learning rate {rate:.2g}")
        model.module = wrapped
        return train_answers(
            model,
            task,
            program,
            Pace(rate, self.epochs, self.batch, self.min_steps),
            method=repr(self),
            trains="adapter",
            seed=seed,
            budget=budget,
        )

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json`` into an existing folder, as peft does."""
        from safetensors.torch import save_file

        module = cast("peft.PeftModel", model.module)
        values = {name: value.detach().cpu().contiguous() for name, value in _adapter_values(module).items()}
        save_file(values, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        config = module.peft_config["default"]
        config.inference_mode = True
        config.save_pretrained(str(folder))

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's updates on the base model.

        The update's shape comes from this strategy's own parameters; the folder's configuration must agree with them.

        Raises:
            PredictorError: a file is missing or damaged; weights are missing, superfluous or of another shape; the
                configuration differs.
        """
        if model is None:
            raise PredictorError(f"{folder} holds an adapter only; the base model it was trained on is needed")
        try:
            wrapped = self.wrap(model, seed=0)
        except ConfigError as error:
            raise PredictorError(f"{folder} does not fit {model.name}: {error.message}", error.hint) from error
        _check_config(folder / CONFIG_FILE, wrapped.peft_config["default"])
        copy_tensors(folder / WEIGHTS_FILE, _adapter_values(wrapped))
        wrapped.requires_grad_(False)
        wrapped.eval()
        return replace(model, module=wrapped)

    def wrap(self, model: LanguageModel, *, seed: int) -> peft.PeftModel:
        """Return the model's module with fresh updates: the first factor random, the second zero, so nothing changes.

        Raises:
            ConfigError: the rank is larger than a layer, or no layer matches ``targets``.
        """
        import peft
        import torch

        layers = linear_layers(model.module, self.targets)
        self._check_layers(layers, model)
        config = peft.LoraConfig(
            task_type=_TASK_TYPES[model.architecture],
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=_suffixes(layers, linear_layers(model.module, "all", with_output=True)),
            fan_in_fan_out=any(not isinstance(layer, torch.nn.Linear) for layer in layers.values()),
        )
        with torch.random.fork_rng(devices=[] if model.device.type == "cpu" else None):
            torch.manual_seed(seed)
            with warnings.catch_warnings():  # peft reads a name that transformers has renamed
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
                wrapped = peft.get_peft_model(model.module, config)
        config.base_model_name_or_path = model.name  # peft put the folder's path here
        return cast("peft.PeftModel", wrapped)

    def _check_layers(self, layers: Mapping[str, torch.nn.Module], model: LanguageModel) -> None:
        if not layers:
            existing = sorted({name.rpartition(".")[2] for name in linear_layers(model.module, "all")})
            raise ConfigError(
                f"targets={self.targets} matches no layer of {model.name}",
                f"Its linear layers are {', '.join(existing) or 'none'}; choose targets=all or another model.",
            )
        widths = {name: min(cast("torch.Tensor", layer.weight).shape) for name, layer in layers.items()}
        name = min(widths, key=widths.__getitem__)
        narrowest = widths[name]
        if self.rank > narrowest:
            raise ConfigError(
                f"rank must be between 1 and {narrowest} for {model.name} (got {self.rank})",
                f"The narrowest chosen layer is {name}; lower rank, or choose other targets.",
            )


def linear_layers(
    module: torch.nn.Module, targets: Targets, *, with_output: bool = False
) -> dict[str, torch.nn.Module]:
    """Return the linear layers by full name; the output layer to the vocabulary only where ``with_output`` asks.

    A layer belongs to attention when the name of a module around it says so (``self_attn``, ``attention``,
    ``EncDecAttention``); all others are ``mlp``.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    find_output = getattr(module, "get_output_embeddings", None)
    output = find_output() if find_output is not None else None
    found = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and (with_output or layer is not output)
    }
    if targets == "all":
        return found
    return {name: layer for name, layer in found.items() if _is_attention(name) == (targets == "attention")}


def _is_attention(name: str) -> bool:
    return any("attn" in part or "attention" in part for part in name.lower().split(".")[:-1])


def _suffixes(wanted: Mapping[str, object], existing: Mapping[str, object]) -> list[str]:
    """The shortest ends of names that mean the wanted layers and no others, as peft and its readers match them."""
    others = [name for name in existing if name not in wanted]
    suffixes: set[str] = set()
    for name in wanted:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            suffix = ".".join(parts[-length:])
            if not any(other == suffix or other.endswith("." + suffix) for other in others):
                break
        suffixes.add(suffix)
    return sorted(suffixes)


def _adapter_values(module: peft.PeftModel) -> dict[str, torch.Tensor]:
    """The updates' tensors under the names of peft's files."""
    from peft.utils import get_peft_model_state_dict

    return cast("dict[str, torch.Tensor]", get_peft_model_state_dict(module, save_embedding_layers=False))


def _check_config(path: Path, expected: peft.LoraConfig) -> None:
    """Refuse a configuration that differs from what the strategy's parameters give."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        targets = sorted(found["target_modules"])
        known = {"peft_type": found["peft_type"], "r": found["r"], "lora_alpha": found["lora_alpha"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PredictorError(f"{path} cannot be read as an adapter's configuration ({error!r})") from error
    wanted = {"peft_type": "LORA", "r": expected.r, "lora_alpha": expected.lora_alpha}
    faults = Faults(str(path))
    for key, value in (wanted | {"target_modules": sorted(expected.target_modules)}).items():
        came = (known | {"target_modules": targets})[key]
        if came != value:
            faults.add(f"{key} must be {value} as the strategy's name says (got {came})")
    faults.raise_as(PredictorError)
