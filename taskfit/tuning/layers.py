"""The parts of a transformer by what they do: linear layers, their roles, blocks, normalisations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, cast

from taskfit.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = [
    "Role",
    "Targets",
    "blocks",
    "layers_of_role",
    "linear_layers",
    "norm_names",
    "nothing_matches",
    "suffixes",
    "widths_of",
]

Targets = Literal["attention", "mlp", "all"]
"""Which linear layers a method works on."""

Role = Literal["keys-and-values", "attention-output", "mlp-input", "mlp-output"]
"""What a linear layer does in its block."""

_ATTENTION_ROLES: dict[str, Role] = {
    **dict.fromkeys(("k_proj", "v_proj", "key", "value", "k", "v", "k_lin", "v_lin"), "keys-and-values"),
    **dict.fromkeys(("key_proj", "value_proj", "qkv_proj", "c_attn", "query_key_value", "Wqkv"), "keys-and-values"),
    **dict.fromkeys(("o_proj", "out_proj", "c_proj", "dense", "o", "out_lin", "Wo"), "attention-output"),
}

_MLP_ROLES: dict[str, Role] = {
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "wi", "wi_0", "wi_1"), "mlp-input"),
    **dict.fromkeys(("intermediate.dense", "lin1", "w1", "w3", "dense_h_to_4h", "fc_in", "Wi"), "mlp-input"),
    **dict.fromkeys(("down_proj", "c_proj", "fc2", "wo", "output.dense", "lin2", "w2"), "mlp-output"),
    **dict.fromkeys(("dense_4h_to_h", "fc_out", "Wo"), "mlp-output"),
}


def linear_layers(
    module: torch.nn.Module, targets: Targets, *, with_output: bool = False
) -> dict[str, torch.nn.Module]:
    """Return the linear layers by full name; the output layer to the vocabulary only where ``with_output`` asks.

    A layer belongs to attention when the name of a module around it says so (``self_attn``, ``attention``,
    ``EncDecAttention``); all others are ``mlp``.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    find_output = getattr(module, "get_output_embeddings", None)
    output = find_output() if find_output is not None else None
    found = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and (with_output or layer is not output)
    }
    if targets == "all":
        return found
    return {name: layer for name, layer in found.items() if _is_attention(name) == (targets == "attention")}


def layers_of_role(module: torch.nn.Module, role: Role) -> dict[str, torch.nn.Module]:
    """Return the linear layers of all blocks that have this role, by full name; told by the names families use."""
    return {name: layer for name, layer in linear_layers(module, "all").items() if _role(name) == role}


def blocks(module: torch.nn.Module) -> tuple[str, list[torch.nn.Module]]:
    """Return the name and the members of the longest list of blocks; of equal ones the last: a decoder's.

    Raises:
        ConfigError: the module holds no list of blocks.
    """
    import torch

    lists = [(name, part) for name, part in module.named_modules() if isinstance(part, torch.nn.ModuleList)]
    outer = [(name, part) for name, part in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    if not outer:
        raise ConfigError(f"{type(module).__name__} holds no list of blocks", "Choose a method that needs none: lora.")
    longest = max(len(part) for _, part in outer)
    name, found = [(name, part) for name, part in outer if len(part) == longest][-1]
    return name, list(found)


def norm_names(module: torch.nn.Module) -> list[str]:
    """Return the full names of the parameters of all normalisation layers (LayerNorm, RMSNorm and their like)."""
    parts = [(name, part) for name, part in module.named_modules() if "norm" in type(part).__name__.lower()]
    return [f"{name}.{own}" for name, part in parts for own, _ in part.named_parameters(recurse=False)]


def widths_of(layer: torch.nn.Module) -> tuple[int, int]:
    """Return (inputs, outputs) of a linear layer; a quantised one's weights do not tell."""
    import torch

    if isinstance(layer, torch.nn.Linear):
        return layer.in_features, layer.out_features
    inputs, outputs = cast("torch.Tensor", layer.weight).shape  # transformers' Conv1D
    return inputs, outputs


def suffixes(wanted: Iterable[str], existing: Mapping[str, object]) -> list[str]:
    """Return the shortest ends of names that mean the wanted layers and no others, as peft and its readers match."""
    names = set(wanted)
    others = [name for name in existing if name not in names]
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            suffix = ".".join(parts[-length:])
            if not any(other == suffix or other.endswith("." + suffix) for other in others):
                break
        found.add(suffix)
    return sorted(found)


def nothing_matches(what: str, model: LanguageModel) -> ConfigError:
    """Return the error of a choice that matches no layer; its hint says which layers there are."""
    existing = sorted({name.rpartition(".")[2] for name in linear_layers(model.module, "all")})
    return ConfigError(
        f"{what} matches no layer of {model.name}",
        f"Its linear layers are {', '.join(existing) or 'none'}; choose targets=all or another model.",
    )


def _is_attention(name: str) -> bool:
    return any("attn" in part or "attention" in part for part in name.lower().split(".")[:-1])


def _role(name: str) -> Role | None:
    last_two = ".".join(name.split(".")[-2:])
    last = name.rpartition(".")[2]
    table = _ATTENTION_ROLES if _is_attention(name) else _MLP_ROLES
    return table.get(last_two) or table.get(last)
