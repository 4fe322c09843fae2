"""From a name to a device: an accelerator, a rented machine, or the machine at hand as it was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from taskfit.costs.accelerator import Accelerator, accelerator, accelerators, find_accelerator
from taskfit.costs.prices import DEFAULT_MACHINE, Machine, PriceTable, load_prices
from taskfit.errors import ConfigError, nearest

__all__ = ["Device", "find_device"]

_SHARE_REACHED = (0.5, 0.82, 1.1)  # of the modelled rate, by stacks of the benchmark: low, middle, high
_SHARE_PROBED = (0.5, 0.75, 1.0)  # of probed rates, by whole models


@dataclass(frozen=True)
class Device:
    """A device, what an hour of it costs, and how much of its modelled rate is reached.

    ``probed`` is true for this machine after ``taskfit doctor`` measured it.
    """

    accelerator: Accelerator
    price: Machine | None
    probed: bool = False

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the modelled rate: low, middle, high."""
        return _SHARE_PROBED if self.probed else _SHARE_REACHED


def find_device(hardware: str, prices: PriceTable | None = None) -> Device:
    """Return the device that a name means: an accelerator, a machine with a price, or ``this-machine``.

    Raises:
        ConfigError: none of them; this machine, and it has not been measured; a machine with a price, of which nothing
            else is known.
    """
    prices = prices or load_prices()
    if hardware in (DEFAULT_MACHINE, "this machine"):
        from taskfit.costs.probe import load_probe

        probe = load_probe()
        if probe is None:
            raise ConfigError("this machine has not been measured", "run `taskfit doctor` once; it takes 5 seconds")
        return Device(probe.as_accelerator(), prices.machines.get(DEFAULT_MACHINE), probed=True)
    machine = prices.machines.get(hardware)
    if machine is not None and not machine.gpu:
        core, cores = accelerator("cpu-core"), machine.cores
        if not cores or not machine.memory_gb:
            raise ConfigError(
                f"the price table does not say what {machine.name} has",
                "give cores and memory_gb, or gpu and gpu_memory_gb, in the price file",
            )
        rates = {name: rate * cores for name, rate in core.flops_per_s.items()}
        held = replace(core, key=hardware, name=hardware, memory_bytes=machine.memory_gb * 1e9, flops_per_s=rates)
        return Device(replace(held, bytes_per_s=core.bytes_per_s * min(cores, 16), watts=core.watts * cores), machine)
    found = find_accelerator(machine.gpu if machine is not None else hardware)
    if found is None:
        known = [*prices.machines, *accelerators()]
        raise ConfigError(f"unknown hardware {hardware!r}{nearest(hardware, known)}; known are {', '.join(known)}")
    priced = machine or next((one for one in prices.machines.values() if find_accelerator(one.name) == found), None)
    return Device(found, priced)
