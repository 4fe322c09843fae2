"""The processes that train one model together: each computes a part of every step's rows, and gradients are summed.

A step's loss is a sum over tokens, so the sum of the processes' gradients is the gradient of the whole step, whatever
part each of them had: several processes take the same steps as one. This is data parallelism in its plainest form (Li
et al. 2020, "PyTorch Distributed", section 2.2), with one sum a step after all micro-batches; where weights are
sharded, gradients are summed layer by layer instead (:mod:`taskfit.tuning.sharding`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from taskfit.tuning.launched import is_launched
from taskfit.tuning.sharding import is_asked_for

__all__ = ["Ranks", "join_ranks"]


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: number of this process, from 0; the first writes the files.
        count: processes in all.
        shards: whether each holds a part of the weights only; see :mod:`taskfit.tuning.sharding`.
    """

    rank: int = 0
    count: int = 1
    shards: bool = False

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by the sum over the processes; one that only some of them have counts as zeros.

        One that none has stays missing, so that no weight decay moves what nothing was learnt of. Sharded ones are
        sums already.
        """
        if self.count == 1 or self.shards:
            return
        owners = self.add(*(float(parameter.grad is not None) for parameter in parameters))
        for parameter, having in zip(parameters, owners, strict=True):
            if having and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for _, alike in groupby(gradients, key=lambda gradient: gradient.dtype):
            group = list(alike)
            flat = torch.cat([gradient.flatten() for gradient in group])  # one message for many small tensors
            torch.distributed.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in group])
            for gradient, part in zip(group, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def add(self, *numbers: float) -> list[float]:
        """Return each number's sum over the processes."""
        if self.count == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        if torch.distributed.get_backend() == "nccl":
            values = values.cuda()
        torch.distributed.all_reduce(values)
        return [float(value) for value in values.tolist()]


def join_ranks(device: torch.device) -> Ranks:
    """Return this process's place among those that a launcher has started; alone without one.

    Raises:
        ConfigError: the launcher asks for a way of sharding that is not supported.
    """
    if not torch.distributed.is_initialized():
        if not is_launched():
            return Ranks()
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")
    count = torch.distributed.get_world_size()
    shards = count > 1 and is_asked_for()
    if shards:  # or transformers would load weights in the first process only, and leave the others' unset
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    return Ranks(torch.distributed.get_rank(), count, shards)
