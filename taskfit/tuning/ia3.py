"""Train one scale for every key, value and inner activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from taskfit.tuning.layers import layers_of_role, linear_layers, nothing_matches, suffixes
from taskfit.tuning.peft_method import TASK_TYPES, PeftMethod
from taskfit.tuning.settings import RateRule

if TYPE_CHECKING:
    import peft

    from taskfit.models.language_model import LanguageModel

__all__ = ["Ia3"]


@dataclass(frozen=True)
class Ia3(PeftMethod):
    """Multiply keys, values and the inner activations of each MLP by trained vectors, which start at one.

    Very few values (a hundredth of ``lora``), and no cost when merged. Where a family makes queries, keys and values
    in one layer (GPT-2), the queries are scaled too, as peft does.

    Source: Liu et al. 2022 ((IA)³), section 3.3; of the rates in peft's comparison, 1e-4, 1e-3 and 5e-3, the largest
    did best by far.
    """

    agreed: ClassVar[tuple[str, ...]] = ("peft_type", "target_modules", "feedforward_modules")
    rate_at_768: ClassVar[float] = 5e-3
    rate_rule: ClassVar[RateRule] = "vector"

    def config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return peft's configuration.

        Raises:
            ConfigError: no layer is known to make keys and values, or to end an MLP.
        """
        import peft
        import torch

        attention = layers_of_role(model.module, "keys-and-values")
        inner = layers_of_role(model.module, "mlp-output")
        if not attention or not inner:
            raise nothing_matches("ia3 (keys, values and the MLP's second layer)", model)
        existing = linear_layers(model.module, "all", with_output=True)
        after = suffixes(inner, existing)
        return peft.IA3Config(
            task_type=TASK_TYPES[model.architecture],
            target_modules=[*suffixes(attention, existing), *after],
            feedforward_modules=after,
            fan_in_fan_out=any(not isinstance(layer, torch.nn.Linear) for layer in inner.values()),
        )
