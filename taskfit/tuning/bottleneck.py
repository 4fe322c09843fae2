"""Bottleneck networks hung onto layers of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from taskfit.errors import ConfigError
from taskfit.tuning.layers import widths_of

__all__ = ["Bottleneck", "Bottlenecks"]

_NAME = "taskfit_bottlenecks"


class Bottleneck(torch.nn.Module):
    """Down, ReLU, up, in float32 whatever it reads; gives zero to begin with.

    Args:
        inputs: width of what it reads.
        inner: width inside.
        outputs: width of what it gives.
    """

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.down = torch.nn.Linear(inputs, inner)
        self.up = torch.nn.Linear(inner, outputs)
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what is to be added, in the format of ``hidden``."""
        added: Tensor = self.up(torch.relu(self.down(hidden.to(self.down.weight.dtype))))
        return added.to(hidden.dtype)


class Bottlenecks(torch.nn.Module):
    """All networks of one model.

    Args:
        inner: width inside each.
        device: where they stand.
    """

    def __init__(self, inner: int, device: torch.device) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList()
        self._names: list[str] = []
        self._handles: list[Any] = []
        self._inner, self._device = inner, device

    def add(self, name: str, layer: torch.nn.Module, reads: torch.nn.Module | None) -> None:
        """Hang a network onto ``layer``, whose outputs it adds to.

        It reads the inputs of ``reads``, which must run before ``layer`` in each pass; None: the layer's own outputs.
        """
        outputs = widths_of(layer)[1]
        network = Bottleneck(outputs if reads is None else widths_of(reads)[0], self._inner, outputs).to(self._device)
        self.networks.append(network)
        self._names.append(name)
        seen: list[Tensor] = []

        def remember(_layer: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
            seen[:] = [arguments[0]]

        def add(_layer: torch.nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            added: Tensor = network(seen.pop() if reads is not None else output)
            return output + added

        if reads is not None:
            self._handles.append(reads.register_forward_pre_hook(remember))
        self._handles.append(layer.register_forward_hook(add))

    def attach(self, module: Any) -> None:
        """Make the networks a part of the module, so that its parameters hold theirs."""
        module.add_module(_NAME, self)

    def detach(self, module: Any) -> None:
        """Take the networks out; the module is as it was."""
        for handle in self._handles:
            handle.remove()
        delattr(module, _NAME)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return the networks' tensors by the name of the layer they hang on."""
        return {
            f"{name}.{own}": value
            for name, network in zip(self._names, self.networks, strict=True)
            for own, value in network.state_dict().items()
        }

    @staticmethod
    def of(module: Any) -> Bottlenecks:
        """Return the networks of a module.

        Raises:
            ConfigError: there are none.
        """
        found = getattr(module, _NAME, None)
        if not isinstance(found, Bottlenecks):
            raise ConfigError("the model carries no bottleneck adapters")
        return found
