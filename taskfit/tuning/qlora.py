"""LoRA beside a base whose weights are packed into four or eight bits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from taskfit.errors import ConfigError, MissingExtraError
from taskfit.tuning.layers import linear_layers, widths_of
from taskfit.tuning.lora import LowRank

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["QLora", "quantise"]


@dataclass(frozen=True)
class QLora(LowRank):
    """Quantise the linear layers of the base, and train low-rank updates beside them.

    Four bits: NF4 with double quantisation; eight: rows and columns scaled apart. The base is loaded in its own
    format first and packed layer by layer, both when it is fitted and when it is loaded again, always to the same
    values; embeddings, normalisations and the output layer stay. Prefer it to ``lora`` where the base does not fit;
    it is slower, most of all on a CPU. The updates belong to the packed base, so they are never merged.

    Source: Dettmers et al. 2023 (QLoRA), section 3, with updates on all layers (section 4); eight bits: Dettmers et
    al. 2022 (LLM.int8()). Rates: 2e-4 for models 4096 wide, where ``lora``'s rule gives 1e-4.
    """

    bits: Literal[4, 8] = 4
    """Bits of a packed weight."""

    rate_at_768: ClassVar[float] = 1e-3

    def prepare_base(self, model: LanguageModel) -> None:
        """Pack the linear layers, unless they are packed already.

        Raises:
            MissingExtraError: bitsandbytes is not installed. ConfigError: they are packed into other bits.
        """
        quantise(model, self.bits)


def quantise(model: LanguageModel, bits: Literal[4, 8]) -> None:
    """Replace the model's linear layers, but not its output layer, by packed ones, in place.

    Raises:
        MissingExtraError: bitsandbytes is not installed. ConfigError: the model is packed into other bits.
    """
    # Packing eight-bit inputs, bitsandbytes says in each call that they pass through float16: once is enough, here.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    module: Any = model.module
    packed = getattr(module, "taskfit_bits", None)
    if packed == bits:
        return
    if packed is not None:
        raise ConfigError(f"{model.name} is packed into {packed} bits already (wanted {bits})", "Load it again.")
    kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())  # T5 reads the number format of such a layer
    for name, layer in linear_layers(module, "all").items():
        if name.rpartition(".")[2] in kept:
            continue
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent) if parent else module, own, _packed(layer, bits, model.dtype))
    module.taskfit_bits = bits
    module.is_loaded_in_4bit, module.is_loaded_in_8bit = bits == 4, bits == 8  # what peft asks


def _packed(layer: torch.nn.Module, bits: Literal[4, 8], dtype: torch.dtype) -> torch.nn.Module:
    """The layer with packed weights, on its device, frozen."""
    import torch

    try:
        from bitsandbytes import nn
    except ImportError as error:
        raise MissingExtraError(
            "qlora needs bitsandbytes, which is not installed. Run: pip install 'taskfit[qlora]'"
        ) from error
    packing: Any = nn
    source: Any = layer
    inputs, outputs = widths_of(layer)
    weight = source.weight if isinstance(layer, torch.nn.Linear) else source.weight.T.contiguous()
    options: dict[str, Any] = {"bias": source.bias is not None, "device": "meta"}
    if bits == 4:
        made: Any = packing.Linear4bit(
            inputs, outputs, compute_dtype=dtype, quant_type="nf4", compress_statistics=True, **options
        )
        made.weight = packing.Params4bit(
            weight.detach(), requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        # On processors with bfloat16 arithmetic bitsandbytes would repack the weights at the first prediction, undo
        # the double quantisation, compute in bfloat16 whatever the format, and fail for widths that 32 or 64 do not
        # divide.
        made.support_avx512bf16_for_cpu = False
    else:
        made = packing.Linear8bitLt(inputs, outputs, has_fp16_weights=False, threshold=6.0, **options)
        made.weight = packing.Int8Params(weight.detach(), requires_grad=False, has_fp16_weights=False)
    made.bias = source.bias
    packed: torch.nn.Module = made.to(weight.device).requires_grad_(False).eval()
    return packed  # packing happens when the weights are put in place
