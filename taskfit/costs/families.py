"""Readers of configurations by family: one row each."""

from __future__ import annotations

from collections.abc import Callable

from taskfit.costs.architecture import Architecture
from taskfit.costs.family_encoder import bert, t5
from taskfit.costs.family_plain import falcon, gpt2, gpt_neox, mpt, opt, phi, phi3
from taskfit.costs.family_rotary import rotary_decoder
from taskfit.costs.sizes import Sizes

__all__ = ["FAMILIES"]

_ROTARY = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text")

FAMILIES: dict[str, Callable[[str, Sizes], Architecture]] = {
    **dict.fromkeys(_ROTARY, rotary_decoder),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), gpt2),
    "gpt_neox": gpt_neox,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "falcon": falcon,
    "mpt": mpt,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "distilbert"), bert),
    **dict.fromkeys(("t5", "mt5"), t5),
}
"""Readers by ``model_type``."""
