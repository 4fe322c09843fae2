"""From a name to an architecture: well-known models, plain sizes such as ``10B``, and folders with a configuration."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from taskfit.costs.architecture import Architecture
from taskfit.errors import ConfigError, ModelError, nearest

__all__ = ["architecture_named", "catalogue", "find_architecture", "plain_size"]

_FILE = Path(__file__).with_name("architectures.yaml")
_DROPPED = re.compile(
    r"(-(hf|instruct|it|chat|base|gptq|awq|gguf|uncased|cased|v\d+(\.\d+)?|bf16|fp16|\d+bit|deduped))+$"
)
_ALIASES = {
    "bert": "bert-base",
    "tiny-llama": "tinyllama-1.1b",
    "tinyllama": "tinyllama-1.1b",
    "gpt-bigcode-santacoder": "santacoder",
    "gpt3": "gpt3-175b",
    "gpt-3-175b": "gpt3-175b",
    "t5-xl": "t5-3b",
    "t5-xxl": "t5-11b",
    "t0-3b": "flan-t5-xl",  # T0 is T5 v1.1 in its language-model adaptation, the layout of FLAN-T5
    "t0-11b": "flan-t5-xxl",
    "t0": "flan-t5-xxl",
    "phi-3": "phi-3-mini",
    "phi-3-mini-4k": "phi-3-mini",
    "qwen-7b": "qwen2.5-7b",
    "llama-30b": "llama-33b",
}
_PLAIN = re.compile(r"(\d+(?:\.\d+)?)\s*([mbt])", re.IGNORECASE)
_UNITS = {"m": 1e6, "b": 1e9, "t": 1e12}
_DEPTHS = ((7e7, 6), (1.25e8, 12), (3.5e8, 24), (2.7e9, 32), (7e9, 32), (1.3e10, 40), (3.3e10, 60), (7e10, 80))
_DEEPEST = ((1.75e11, 96), (4.05e11, 126))
_LEAST, _MOST = 5e6, 1e13


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Return the shipped configurations by name."""
    import yaml

    models: dict[str, dict[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["models"]
    return models


def architecture_named(name: str) -> Architecture | None:
    """Return the architecture of a well-known model, of a plain size, or None.

    Names are compared without the owner before the slash, without case, and without endings that do not change the
    architecture (``-hf``, ``-instruct``, ``-v0.1``, ``-GPTQ``, ...).
    """
    known = catalogue()
    short = re.sub(r"[\s_]+", "-", name.strip().lower().rsplit("/", 1)[-1])
    for word in (short, _DROPPED.sub("", short)):
        for form in (word, word.removeprefix("meta-")):
            found = _ALIASES.get(form, form)
            if found in known:
                return Architecture.from_config(known[found])
    match = _PLAIN.fullmatch(short)
    return plain_size(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def find_architecture(model: str) -> Architecture:
    """Return the architecture of a folder with a ``config.json``, a well-known name, or a plain size.

    Raises:
        ModelError: none of them; the message names the nearest name and says how to get a configuration.
    """
    path = Path(model)
    if path.is_dir() or path.suffix == ".json":
        return Architecture.from_config(_read(path / "config.json" if path.is_dir() else path))
    found = architecture_named(model)
    if found is not None:
        return found
    hint = (
        "give a folder that holds the model's config.json (one small file, also without the weights: "
        f"`hf download {model} config.json --local-dir FOLDER`), a name that is known, or a plain size such as 7B"
    )
    short = model.rsplit("/", 1)[-1].lower()
    raise ModelError(f"no configuration of {model!r} at hand{nearest(short, catalogue())}", hint)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}", "give a folder that holds a model's config.json") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} must hold an object (got {type(values).__name__})")
    return values


def plain_size(parameters: float) -> Architecture:
    """Return a decoder of about that many parameters (within 1 %) in the layout of Llama, vocabulary 32,000.

    Depth is interpolated between published models over the logarithm of the size, heads have 128 values (64 below a
    billion), the MLP is 8/3 as wide as the stream, and from 30 billion on there are eight key-value heads.

    Raises:
        ConfigError: below 5 million or above 10 trillion.
    Source of the depths: Brown et al. 2020, table 2.1; Touvron et al. 2023; Grattafiori et al. 2024.
    """
    if not _LEAST <= parameters <= _MOST:
        raise ConfigError(f"a plain size must be between 5M and 10T (got {parameters:.3g} parameters)")
    layers = _depth(parameters)
    head_size = 128 if parameters >= 1e9 else 64
    width = head_size
    while _sized(width + head_size, layers, head_size, parameters).parameters.total <= parameters:
        width += head_size
    below, above = (_sized(size, layers, head_size, parameters) for size in (width, width + head_size))
    is_below_nearer = parameters - below.parameters.total <= above.parameters.total - parameters
    return _trimmed(below if is_below_nearer else above, parameters)


def _depth(parameters: float) -> int:
    points = _DEPTHS + _DEEPEST
    if parameters <= points[0][0]:
        return points[0][1]
    for (low, shallow), (high, deep) in pairwise(points):
        if parameters <= high:
            share = math.log(parameters / low) / math.log(high / low)
            return round(shallow + share * (deep - shallow))
    return points[-1][1]


def _sized(hidden: int, layers: int, head_size: int, parameters: float, mlp_width: int = 0) -> Architecture:
    heads = hidden // head_size
    values = {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": mlp_width or round(hidden * 8 / 3 / 64) * 64,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": head_size,
        "num_key_value_heads": min(8, heads) if parameters >= 3e10 else heads,
        "tie_word_embeddings": parameters < 3e8,
        "max_position_embeddings": 4096,
    }
    return Architecture.from_config(values)


def _trimmed(found: Architecture, parameters: float) -> Architecture:
    """Make the MLP wider or narrower until the total is right."""
    step = 3 * found.hidden * found.layers  # parameters of one more value of the MLP's width
    mlp_width = max(8, found.mlp_width + round((parameters - found.parameters.total) / step / 8) * 8)
    return _sized(found.hidden, found.layers, found.head_size, parameters, mlp_width)
