"""Weights, gradients and averages in parts over the processes that train together: FSDP2.

``accelerate launch --use_fsdp --fsdp_version 2`` asks for it. Between computations a process holds its part of every
weight; a layer's weights are gathered when it computes and dropped afterwards, and gradients are summed and split in
one go (Zhao et al. 2023, "PyTorch FSDP", section 3; here by torch's ``fully_shard``). Checkpoints hold whole tensors,
and the module is made whole again when training ends, so nothing outside training knows of parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from taskfit.errors import ConfigError

__all__ = ["Shards", "is_asked_for", "part_of", "whole"]

T = TypeVar("T")

REFUSED = {
    "FSDP_OFFLOAD_PARAMS": "--fsdp_offload_params",
    "FSDP_ACTIVATION_CHECKPOINTING": "--fsdp_activation_checkpointing",
}
"""What the launcher may ask for and does not get; activations are computed twice where the plan of memory says so."""


def is_asked_for() -> bool:
    """Return whether the launcher wants weights in parts.

    Raises:
        ConfigError: it wants them in a way that is not supported.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    asked = os.environ.get("FSDP_VERSION", "1")
    if asked != "2":
        raise ConfigError(
            f"weights are sharded by FSDP of version 2 only (got {asked})",
            "Launch with: accelerate launch --use_fsdp --fsdp_version 2",
        )
    for name, option in REFUSED.items():
        if os.environ.get(name, "false").lower() == "true":
            raise ConfigError(f"the launcher's option {option} is not supported", "Leave it out.")
    return True


class Shards:
    """A module whose weights lie in parts on several processes, until :meth:`gather` makes it whole again.

    Args:
        module: computes through :meth:`compute` only, from now on.
    """

    def __init__(self, module: nn.Module) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._looks = {part: _Looks(part) for part in module.modules()}
        self._root = _Root(module)
        self._layers = list(_layers(module))
        mesh = init_device_mesh(next(module.parameters()).device.type, (torch.distributed.get_world_size(),))
        reshards = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
        for layer in self._layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshards)
        fully_shard(self._root, mesh=mesh)
        parts: list[Any] = [*self._layers, self._root]
        for part in parts:
            part.set_gradient_divide_factor(1.0)  # a step's loss is a sum, and is divided by all its tokens later
            part.set_force_sum_reduction_for_comms(True)
        for sharded, looks in self._looks.items():
            looks.added = set(vars(sharded)) - looks.entries  # what training adds later is not sharding's
            looks.drop_values()

    def compute(self, function: Callable[[], T]) -> T:
        """Return what the function computes with the module; all processes must call it equally often."""
        result: T = self._root(function)
        if not torch.is_grad_enabled():  # nothing goes backward, which would drop the gathered weights
            cast("Any", self._root).reshard()
        return result

    def gather(self) -> None:
        """Make the module whole again on every process, with the very parameter objects that it had before."""
        found: dict[nn.Parameter, Tensor] = {}
        for module, looks in self._looks.items():
            for name, before in looks.parameters.items():
                now = module._parameters[name]
                assert now is not None  # sharding replaces parameters and takes none away
                if before not in found:
                    found[before] = whole(now.detach())
        for module, looks in self._looks.items():
            looks.restore(module)
        for before, value in found.items():
            before.data = value
        self._forget()

    def _forget(self) -> None:
        """Let torch forget that the layers were sharded, or they could not be again."""
        from torch.distributed import _composable_state

        for layer in self._layers:
            _composable_state._module_state_mapping.pop(layer, None)


class _Root(nn.Module):
    """Gathers, while a function runs, the weights that belong to no layer."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], T]) -> T:
        return function()


class _Looks:
    """Class, hooks, entries and parameters of one module, none of its descendants'."""

    def __init__(self, module: nn.Module) -> None:
        self.kind = type(module)
        self.entries, self.added = set(vars(module)), set[str]()
        self.hooks = {name: dict(found) for name, found in vars(module).items() if "hooks" in name and found}
        self.parameters = {name: value for name, value in module._parameters.items() if value is not None}

    def drop_values(self) -> None:
        """Free the whole values; the parameter objects stay."""
        for value in self.parameters.values():
            value.data = value.data.new_empty(0)

    def restore(self, module: nn.Module) -> None:
        """Undo what sharding did to the module, but for the parameters' values."""
        module.__class__ = self.kind
        for name in self.added & set(vars(module)):
            del vars(module)[name]
        for name, hooks in vars(module).items():
            if "hooks" in name and hooks is not None:
                hooks.clear()
                hooks.update(self.hooks.get(name, {}))
        module._parameters.update(self.parameters)


def whole(value: Tensor) -> Tensor:
    """Return the whole tensor of which this process may hold a part; all processes must call it."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else cast("Tensor", gather())


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, split as ``like`` is; the tensor itself where that is whole."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The transformer layers, by what the model says itself; those that share a weight with others are left out."""
    names = {name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    named = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    names = {name.strip() for name in named.split(",")} if named else names
    uses: dict[Tensor, int] = {}
    for part in module.modules():
        for value in part._parameters.values():
            if value is not None:
                uses[value] = uses.get(value, 0) + 1
    inside: set[nn.Module] = set()
    for part in module.modules():
        if type(part).__name__ in names and part not in inside:
            own: dict[Tensor, int] = {}
            for child in part.modules():
                for value in child._parameters.values():
                    if value is not None:
                        own[value] = own.get(value, 0) + 1
            if own and all(uses[value] == count for value, count in own.items()):
                inside.update(part.modules())
                yield part
