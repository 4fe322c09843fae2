"""From a strategy's name to the job of a device: number format, kept activations and micro-batch as they fit."""

from __future__ import annotations

import math
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

__all__ = ["SHOTS", "STRATEGIES", "fitting_batch", "format_of", "plan_job", "read_strategy"]

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

SHOTS = 4
"""Worked examples of ``few-shot`` where it does not say how many."""

_MOST_DEVICES = 16_384

_SAID_ELSEWHERE = {
    "architecture": "the model",
    "teacher": "the model",
    "method": "the strategy's name",
    "batch": "batch",
    "length": "length",
    "new_tokens": "answer",
    "weights": "format",
    "devices": "devices",
    "sharding": "sharding",
    "trainable": "the other settings",
}
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def read_strategy(text: str) -> tuple[str, dict[str, Any]]:
    """Return a strategy's name and settings: ``lora(rank=16, targets=qv)``.

    Raises:
        ConfigError: an unknown strategy or setting, or a value that is none.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    name = match[1] if match else text
    if match is None or name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}; known are {', '.join(STRATEGIES)}")
    known = {one.name: str(one.type) for one in fields(Job) if one.name not in _SAID_ELSEWHERE}
    if name == "few-shot":
        known["k"] = "int"
    settings: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in (match[2] or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key in _SAID_ELSEWHERE:
            raise ConfigError(f"{name}: {key} is said by {_SAID_ELSEWHERE[key]}, not in brackets")
        if key not in known:
            raise ConfigError(f"{name}: unknown setting {key!r}{nearest(key, known)}; known are {', '.join(known)}")
        settings[key] = _read_value(key, value, known[key])
    if settings.get("k", 1) < 1:
        raise ConfigError(f"k must be at least 1 (got {settings['k']})")
    return name, settings


def _read_value(key: str, value: str, kind: str) -> Any:  # int, float, bool or str, as the field's annotation says
    wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(kind)
    try:
        if kind == "bool":
            return _TRUTH[value.lower()]
        found = int(value) if kind == "int" else float(value) if kind == "float" else value
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{key} must be {wanted} (got {value!r})") from error
    if isinstance(found, float) and not math.isfinite(found):
        raise ConfigError(f"{key} must be finite (got {value!r})")
    return found


def plan_job(
    architecture: Architecture,
    strategy: str,
    need: Need,
    device: Accelerator,
    *,
    number_format: str = "",
    devices: int = 0,
    sharding: str = "",
) -> Job:
    """Return the job of a strategy on a device: number format, kept activations and micro-batch as they fit.

    The format is bfloat16 where the device has it, else float16; float32 on processors. All weights are trained with
    float32 copies. Activations are kept where that fits, else computed again; the micro-batch is the largest that
    fits, and one row where nothing does. Worked examples of a prompt take as many tokens as a row each.

    ``devices`` is how many work at least (0: as few as the memory allows), ``sharding`` how they share the states;
    empty: with that many devices, the least of ``ddp``, ``zero1``, ``zero2`` and ``fsdp`` that fits, else ``fsdp``.

    Raises:
        ConfigError: something unknown, or a method that the architecture or device does not allow.
    """
    if devices < 0:
        raise ConfigError(f"estimate: devices must be at least 0 (got {devices})")
    name, settings = read_strategy(strategy)
    shots = settings.pop("k", SHOTS) if name == "few-shot" else 0
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
    length = need.length * (shots + 1)  # a worked example is as long as a row
    chosen = {"architecture": architecture, "length": length, **STRATEGIES[name], **chosen, **settings}
    if sharding:
        chosen["sharding"] = sharding  # checked with the rest
    job = Job(**{"batch": 1, **chosen})
    return _fitted(job, need.batch, device.memory_bytes, devices, sharding, settings.get("checkpointing", ""))


def format_of(device: Accelerator) -> str:
    """Return the number format that models are computed in: float32 on processors, else bfloat16, else float16."""
    if device.key == "this-machine" or device.key.startswith("cpu"):
        return "float32"
    return "bfloat16" if "bfloat16" in device.flops_per_s else "float16"


def _student(teacher: Architecture) -> Architecture:
    """A student of a tenth of the teacher's parameters, where nothing else is said."""
    from taskfit.costs.catalogue import plain_size

    return plain_size(max(1e7, teacher.parameters.total / 10))


def _fitted(job: Job, batch: int, room: float, least: int, sharding: str, checkpointing: str) -> Job:
    """Choose devices, sharding, checkpointing and micro-batch; checkpointing is left alone where it is said."""
    ways = (checkpointing,) if checkpointing else ("none",) if job.method == "prompting" else ("none", "full")
    for devices, shared in _layouts(least, sharding):
        for way in ways:
            tried = replace(job, devices=devices, sharding=shared, checkpointing=way)  # type: ignore[arg-type]
            most = fitting_batch(tried, room, most=max(1, batch // devices))
            if most:
                return replace(tried, batch=most)
    devices, shared = next(_layouts(least, sharding))
    return replace(job, devices=devices, sharding=shared, checkpointing=ways[-1])  # type: ignore[arg-type]


def _layouts(least: int, sharding: str) -> Iterator[tuple[int, str]]:
    """Numbers of devices and ways to share, the one to prefer first."""
    devices = max(1, least)
    if devices > 1:
        yield from ((devices, one) for one in ([sharding] if sharding else _SHARDINGS))
        devices *= 2
    while devices <= _MOST_DEVICES:
        yield devices, (sharding or "fsdp") if devices > 1 else "none"
        devices *= 2


_SHARDINGS = ("ddp", "zero1", "zero2", "fsdp")
"""From the one that communicates least to the one that holds least."""


def fitting_batch(job: Job, room: float, *, most: int = 4096) -> int:
    """Return the largest micro-batch whose memory, as the system shows it, is within ``room`` bytes; 0: none."""
    if memory(replace(job, batch=1)).system > room:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if memory(replace(job, batch=middle)).system <= room else (low, middle - 1)
    return low
