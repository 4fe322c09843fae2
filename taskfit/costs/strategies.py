"""From a strategy's name to the job of a device: number format, kept activations and micro-batch as they fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from taskfit.costs.accelerator import Accelerator
from taskfit.costs.architecture import Architecture
from taskfit.costs.job import Job
from taskfit.costs.memory import memory
from taskfit.costs.need import Need
from taskfit.errors import ConfigError, nearest

__all__ = ["STRATEGIES", "fitting_batch", "format_of", "plan_job", "read_strategy"]

STRATEGIES: dict[str, dict[str, Any]] = {
    "pretraining": {"method": "pretraining"},
    "full": {"method": "full"},
    "continued-pretraining": {"method": "continued-pretraining"},
    "lora": {"method": "lora"},
    "qlora": {"method": "lora", "quantised": "nf4"},
    "dora": {"method": "dora"},
    "adapters": {"method": "adapters"},
    "ia3": {"method": "ia3"},
    "bitfit": {"method": "bitfit"},
    "layer-norm": {"method": "layer-norm"},
    "prefix": {"method": "prefix"},
    "soft-prompt": {"method": "soft-prompt"},
    "distillation": {"method": "distillation"},
    "zero-shot": {"method": "prompting"},
    "few-shot": {"method": "prompting"},
}
"""Strategies that can be estimated, and what they set."""

_MOST_DEVICES = 16_384


def read_strategy(text: str) -> tuple[str, dict[str, Any]]:
    """Return a strategy's name and settings: ``lora(rank=16, targets=qv)``.

    Raises:
        ConfigError: an unknown strategy or setting.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    name = match[1] if match else text
    if match is None or name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}; known are {', '.join(STRATEGIES)}")
    known = {one.name: str(one.type) for one in fields(Job) if one.name not in ("architecture", "teacher", "method")}
    settings: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in (match[2] or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if name == "few-shot" and key == "k":
            settings["k"] = _whole(key, value)
        elif key not in known:
            raise ConfigError(f"{name}: unknown setting {key!r}{nearest(key, known)}")
        else:
            settings[key] = _whole(key, value) if known[key] == "int" else value
    return name, settings


def _whole(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise ConfigError(f"{key} must be a whole number (got {value!r})") from error


def plan_job(
    architecture: Architecture, strategy: str, need: Need, device: Accelerator, *, number_format: str = ""
) -> Job:
    """Return the job of a strategy on a device: number format, kept activations and micro-batch as they fit.

    The format is bfloat16 where the device has it, else float16; float32 on processors. All weights are trained with
    float32 copies. Activations are kept where that fits, else computed again; the micro-batch is the largest that
    fits, and one row where nothing does.
    """
    name, settings = read_strategy(strategy)
    settings = {key: value for key, value in settings.items() if key != "k"}
    weights = number_format or format_of(device)
    device.peak(weights)
    trained = "float32" if STRATEGIES[name]["method"] in ("full", "pretraining", "continued-pretraining") else ""
    chosen: dict[str, Any] = {"weights": weights, "trained_weights": trained, "profile": "taskfit"}
    is_plain_text = name in ("pretraining", "continued-pretraining")
    chosen["supervised"] = 1.0 if is_plain_text else min(1.0, need.answer / need.length)
    if name == "distillation":
        chosen |= {"teacher": architecture, "architecture": _student(architecture)}
    if name in ("zero-shot", "few-shot"):
        chosen["new_tokens"] = 0 if architecture.kind == "encoder" else need.answer
    chosen = {"architecture": architecture, "length": need.length, **STRATEGIES[name], **chosen, **settings}
    job = Job(**{"batch": 1, **chosen})
    return _fitted(job, need.batch, device.memory_bytes)


def format_of(device: Accelerator) -> str:
    """Return the number format that models are computed in: float32 on processors, else bfloat16, else float16."""
    if device.key == "this-machine" or device.key.startswith("cpu"):
        return "float32"
    return "bfloat16" if "bfloat16" in device.flops_per_s else "float16"


def _student(teacher: Architecture) -> Architecture:
    """A student of a tenth of the teacher's parameters, where nothing else is said."""
    from taskfit.costs.catalogue import plain_size

    return plain_size(max(1e7, teacher.parameters.total / 10))


def _fitted(job: Job, batch: int, room: float) -> Job:
    """Choose devices, checkpointing and micro-batch."""
    for devices in _powers():
        sharded = replace(job, devices=devices, sharding="fsdp" if devices > 1 else job.sharding)
        for checkpointing in ("none", "full") if job.method != "prompting" else ("none",):
            tried = replace(sharded, checkpointing=checkpointing)
            most = fitting_batch(tried, room, most=max(1, batch // devices))
            if most:
                return replace(tried, batch=most)
    return replace(job, checkpointing="full" if job.method != "prompting" else "none")


def _powers() -> Iterator[int]:
    devices = 1
    while devices <= _MOST_DEVICES:
        yield devices
        devices *= 2


def fitting_batch(job: Job, room: float, *, most: int = 4096) -> int:
    """Return the largest micro-batch whose memory, as the system shows it, is within ``room`` bytes; 0: none."""
    if memory(replace(job, batch=1)).system > room:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if memory(replace(job, batch=middle)).system <= room else (low, middle - 1)
    return low
