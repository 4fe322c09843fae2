"""The optimisers: Muon for the layers' matrices, AdamW for embeddings and norms, or AdamW for all.

Muon makes each matrix's averaged gradient nearly orthogonal before it is applied. Its sources find that it needs fewer
tokens than AdamW for the same loss; its own products are 4 % of a step of 16,384 tokens at 6 million weights, and 17 %
of one of 4,096 (counted: 5 rounds of ``4 m m n + 2 m m m`` for a matrix of m by n).
Sources: Jordan et al. 2024 ("Muon"); Liu et al. 2025 ("Muon is Scalable for LLM Training"), section 2.2: updates scaled
by 0.2 sqrt(larger side), so that AdamW's rate and weight decay serve both. AdamW: Loshchilov and Hutter 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Kind", "optimizers", "restore", "set_rate", "states"]

Kind = Literal["muon", "adamw"]

BETAS = (0.9, 0.95)
MOMENTUM = 0.95
WEIGHT_DECAY = 0.1


def optimizers(model: nn.Module, kind: Kind, rate: float) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together train every weight of the model once.

    Args:
        model: its tied weights count once.
        kind: whose layers' matrices are trained by Muon or, as all others, by AdamW.
        rate: the peak rate.
    """
    named = list(model.named_parameters())
    inner = [value for name, value in named if value.ndim == 2 and ".layers." in name and kind == "muon"]
    known = {id(value) for value in inner}
    rest = [value for _, value in named if id(value) not in known]
    groups = [
        {"params": [value for value in rest if value.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [value for value in rest if value.ndim < 2], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)]
    if inner:
        muon = torch.optim.Muon(
            inner, lr=rate, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
        )
        found.append(muon)
    return found


def set_rate(found: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Set the rate of the next step."""
    for one in found:
        for group in one.param_groups:
            group["lr"] = rate


def states(found: Sequence[torch.optim.Optimizer], model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return what the optimisers remember, by the name of the weight; all of it tensors."""
    names = {id(value): name for name, value in model.named_parameters()}
    return {names[id(value)]: dict(state) for one in found for value, state in one.state.items()}


def restore(found: Sequence[torch.optim.Optimizer], model: nn.Module, kept: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give back to the optimisers what :func:`states` returned."""
    parameters = dict(model.named_parameters())
    for one in found:
        own = {id(value) for group in one.param_groups for value in group["params"]}
        for name, state in kept.items():
            value = parameters[name]
            if id(value) in own:
                one.state[value] = {key: held.to(value.device, copy=True) for key, held in state.items()}
