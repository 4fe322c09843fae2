"""LoRA that starts from the largest singular directions of the weights, saved as plain LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from taskfit.strategy.space import Space, Times
from taskfit.tuning.lora import LowRank, target_layers
from taskfit.tuning.peft_method import wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    import peft
    import torch

    from taskfit.models.language_model import LanguageModel
    from taskfit.tuning.method import Trainable

__all__ = ["Pissa"]


@dataclass(frozen=True)
class Pissa(LowRank):
    """Train the ``rank`` largest singular directions of each weight; the rest of the weight stays.

    Training moves the base's own weights apart into two factors and a rest. What is saved is the difference to the
    base as plain LoRA of twice the rank (the trained factors, and the first ones with the other sign), so that any
    reader puts it on the base as it was published.

    Source: Meng et al. 2024 (PiSSA), section 3, and its appendix C for the conversion; alpha is the rank there, and
    the rate 2e-5 for models 4096 wide, which is 1e-4 at 768.
    """

    alpha: int = 8
    """The factors are multiplied by alpha / rank, and start divided by it."""

    rate_at_768: ClassVar[float] = 1e-4
    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0)}

    def config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return the configuration of the saved form: twice the rank and twice alpha, so the scale is the same."""
        target_layers(model, self.targets, rank=self.rank)  # the check is of the trained rank
        config: Any = super().config(model, seed=seed)
        config.r, config.lora_alpha = 2 * self.rank, 2 * self.alpha
        return cast("peft.PeftConfig", config)

    def training_config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return the configuration that splits the weights."""
        config: Any = super().config(model, seed=seed)
        config.init_lora_weights = "pissa"
        return cast("peft.PeftConfig", config)

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Split the weights, train the factors, and put their change on the weights as they were."""
        layers = target_layers(model, self.targets, rank=self.rank)
        originals = {name: cast("torch.Tensor", layer.weight).detach().clone() for name, layer in layers.items()}
        with super().training(model, seed=seed) as trainable:
            first = _factors(model.module)
            yield trainable
            self._convert(model, originals, first, seed)

    def _convert(
        self,
        model: LanguageModel,
        originals: Mapping[str, torch.Tensor],
        first: Mapping[str, torch.Tensor],
        seed: int,
    ) -> None:
        """Replace the split weights by the original ones with a plain update of twice the rank."""
        import torch

        last = _factors(model.module)
        wrapped: Any = model.module
        base = wrapped.unload()
        with torch.no_grad():
            for name, weight in originals.items():
                base.get_submodule(name).weight.copy_(weight)
        plain = wrap(replace(model, module=base), self.config(replace(model, module=base), seed=seed), seed=seed)
        with torch.no_grad():
            for name, value in plain.named_parameters():
                if ".lora_A." in name:
                    value.copy_(torch.cat([last[name], first[name]], dim=0))
                elif ".lora_B." in name:
                    value.copy_(torch.cat([last[name], -first[name]], dim=1))
        model.module = plain


def _factors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all factors by parameter name."""
    return {name: value.detach().clone() for name, value in module.named_parameters() if ".lora_" in name}
