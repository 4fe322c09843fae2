"""Low-rank updates whose ranks are taken from the layers that need them least while training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from taskfit.errors import Faults
from taskfit.tuning.layers import Targets
from taskfit.tuning.lora import common_options, target_layers
from taskfit.tuning.method import Trainable
from taskfit.tuning.peft_method import PeftMethod

if TYPE_CHECKING:
    import peft
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["AdaLora"]

WARMUP_SHARE = 0.1
"""Share of the steps before the first rank is taken."""

FINAL_SHARE = 0.3
"""Share of the steps that train with the final ranks."""

ORTHOGONALITY = 0.1
"""Weight of the penalty that keeps the factors orthogonal: the coefficient most used in Zhang et al. 2023, table 8."""


@dataclass(frozen=True)
class AdaLora(PeftMethod):
    """Train a singular value decomposition of each update and drop the singular values that matter least.

    It starts with ``initial_rank`` everywhere and ends with ``rank`` on average; layers that matter keep more. The
    dropped values are saved as zeros, so the file has the size of ``initial_rank``.

    Source: Zhang et al. 2023 (AdaLoRA), sections 3.1 to 3.3, with initial rank 1.5 times the final one and a cubic
    schedule; rates 5e-4 to 1.2e-3 for a model 768 wide in its appendix D.
    """

    rank: int = 8
    """Mean rank at the end."""
    initial_rank: int = 12
    """Rank of every layer at the start."""
    alpha: int = 16
    """The update is scaled by alpha / initial_rank."""
    targets: Targets = "all"
    """Layers that get an update: ``attention``, ``mlp`` or ``all``."""
    dropout: float = 0.0
    """Share of the update's inputs dropped in training."""

    agreed: ClassVar[tuple[str, ...]] = ("peft_type", "init_r", "target_r", "lora_alpha", "target_modules")
    rate_at_768: ClassVar[float] = 8e-4

    def check(self, faults: Faults) -> None:
        """Note ranks, scales and shares outside their range."""
        if not 1 <= self.rank <= self.initial_rank:
            faults.add(f"rank must be between 1 and initial_rank={self.initial_rank} (got {self.rank})")
        if self.alpha < 1:
            faults.add(f"alpha must be at least 1 (got {self.alpha})")
        if not 0 <= self.dropout < 1:
            faults.add(f"dropout must be at least 0 and below 1 (got {self.dropout})")

    def config(self, model: LanguageModel, *, seed: int) -> peft.PeftConfig:
        """Return peft's configuration; the schedule is set when the number of steps is known.

        Raises:
            ConfigError: the initial rank is larger than a layer, or no layer matches ``targets``.
        """
        import peft

        layers = target_layers(model, self.targets, rank=self.initial_rank)
        return peft.AdaLoraConfig(
            init_r=self.initial_rank,
            target_r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            total_step=1_000_000,
            **common_options(layers, model),
        )

    def ready(self, wrapped: peft.PeftModel) -> Trainable:
        """Return the hook that takes ranks, and the penalty.

        The number of ranks, a scale, is frozen: peft leaves it trainable beside a base in bfloat16, and never saves it.
        """
        for name, value in wrapped.named_parameters():
            if ".ranknum." in name:
                value.requires_grad_(False)
        return Trainable(self.what(wrapped), _RankSchedule(wrapped), lambda: _orthogonality(wrapped))

    def finish(self, model: LanguageModel) -> None:
        """Keep the shape of the initial rank: zeros stand where ranks were taken."""
        module: Any = model.module
        module.peft_config["default"].rank_pattern = None


class _RankSchedule:
    """Calls peft's allocator after every step; its running means live in the optimiser's state.

    The allocator keeps sensitivity and uncertainty of every parameter in dictionaries of its own, which no checkpoint
    would hold; so they are handed to it before each call and taken back afterwards.
    """

    def __init__(self, wrapped: peft.PeftModel) -> None:
        self._tuner: Any = wrapped.base_model

    def __call__(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        tuner, config = self._tuner, self._tuner.peft_config["default"]
        config.total_step, config.tinit = steps, int(WARMUP_SHARE * steps)
        config.tfinal, config.deltaT = int(FINAL_SHARE * steps), max(1, steps // 100)
        allocator = tuner.rankallocator
        if step == 1:  # a training that ran out of memory may have begun before
            allocator.reset_ipt()
        parameters = {name: value for name, value in tuner.model.named_parameters() if value.requires_grad}
        tables = {"importance": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
        for name, value in parameters.items():
            for key, table in tables.items():
                if key in optimizer.state[value]:
                    table[name] = optimizer.state[value][key]
            if name in allocator.exp_avg_ipt:
                allocator.ipt.setdefault(name, value.detach().clone())  # overwritten before it is read
        singular = {name: optimizer.state[value] for name, value in parameters.items() if ".lora_E." in name}
        if step > steps - config.tfinal:
            config.rank_pattern = {name: state["kept"].flatten().tolist() for name, state in singular.items()}
        tuner.update_and_allocate(step)
        if step == steps - config.tfinal:
            for name, state in singular.items():
                state["kept"] = parameters[name].detach() != 0  # from now on, what is zero stays zero
        for key, table in (("importance", allocator.exp_avg_ipt), ("uncertainty", allocator.exp_avg_unc)):
            for name, value in table.items():
                optimizer.state[parameters[name]][key] = value


def _orthogonality(module: torch.nn.Module) -> torch.Tensor:
    """Mean distance of the factors from orthogonal ones (Zhang et al. 2023, equation 4), weighted."""
    import torch

    distances = []
    for name, value in module.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            gram = value @ value.T if ".lora_A." in name else value.T @ value
            distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
    return ORTHOGONALITY * torch.stack(distances).mean()
