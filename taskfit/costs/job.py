"""What is to be estimated: a model, a method, sizes and the software stack, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from taskfit.errors import ConfigError, Faults, nearest

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture, Linear

__all__ = ["FORMAT_BYTES", "METHODS", "QUANTISED_BITS", "Job", "targeted", "trainable_parameters"]

METHODS = {
    "prompting": "nothing is trained",
    "full": "all weights",
    "continued-pretraining": "all weights, on plain text in full-length rows",
    "pretraining": "all weights, from random ones",
    "lora": "low-rank updates of linear layers",
    "dora": "low-rank updates with a magnitude of their own",
    "adapters": "two thin layers after the attention and the MLP of each layer",
    "prefix": "keys and values before every layer's own",
    "soft-prompt": "vectors before the input",
    "ia3": "factors on keys, values and the MLP's inner activations",
    "bitfit": "biases",
    "layer-norm": "norms",
    "distillation": "all weights of a student; a teacher reads every row",
}
"""Methods by name, and what each trains."""

FORMAT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one value."""

QUANTISED_BITS = {"nf4": 4.127, "nf4-single": 4.5, "gptq-int4": 4.156, "int8": 8.0, "gptq-int8": 8.156, "hqq-int4": 4.5}
"""Bits of one quantised weight with its scales.

NF4: a 4-bit value, an 8-bit scale for 64 values, a 32-bit scale for 256 scales (Dettmers et al. 2023, section 3);
single: a 32-bit scale for 64 values. GPTQ: groups of 128 with a 16-bit scale and a packed zero.
"""

_OPTIMISER_BYTES = {
    "adamw": 2.0,
    "adamw-fused": 2.0,
    "adamw-8bit": 0.0,
    "sgd": 0.0,
    "momentum": 1.0,
    "lion": 1.0,
    "adafactor": 0.01,
}
_SHARDINGS = ("none", "ddp", "zero1", "zero2", "fsdp")
_PROFILES = ("eager", "fast-ce", "chunked", "fused", "taskfit")
_ATTENTIONS = ("flash", "eager")
_CHECKPOINTINGS = ("none", "selective", "full")


@dataclass(frozen=True)
class Job:
    """One training or prediction on one device, or on several alike.

    Attributes:
        architecture: of the model.
        method: a key of ``METHODS``.
        batch: rows of a micro-batch on one device.
        length: tokens of the longest row.
        new_tokens: tokens generated after it, when predicting.
        weights: number format of the model while it computes.
        trained_weights: number format of what is trained; float32 where a master copy of all weights is kept.
        quantised: a key of ``QUANTISED_BITS``, or empty; matrices of the layers only.
        optimiser: ``adamw`` (torch's default on a GPU, which updates lists of tensors together), ``adamw-fused``,
            ``adamw-8bit``, ``sgd``, ``momentum``, ``lion`` or ``adafactor``.
        checkpointing: ``none``, ``selective`` (every second matrix product is kept) or ``full`` (layers' inputs are).
        profile: how the loss is computed. ``eager``: float32 logits of all positions; ``fast-ce``: a kernel in
            place; ``chunked``: logits of all positions in their own format, float32 by parts; ``fused``: never all
            logits; ``taskfit``: only at ``supervised`` positions.
        attention: ``flash`` (linear memory) or ``eager`` (scores are kept).
        sharding: ``none``, ``ddp``, ``zero1``, ``zero2`` or ``fsdp`` (also ZeRO 3).
        devices: number of devices.
        supervised: share of the positions that the loss reads.
        rank, targets: of low-rank updates; ``attention``, ``qv``, ``mlp`` or ``all``.
        virtual_tokens: of a prefix or soft prompt.
        bottleneck: width of adapters.
        dropout: of adapters.
        teacher: of a distillation.
        optimiser_in_backward: each weight is updated as soon as its gradient is known.
        offloads: kept activations wait in the host's memory.
        compiled: layers are compiled; norms are then kept in the model's own format.
        keeps_quantised_inputs: quantised matrices keep a float32 copy of what they read, as old kernels did.
        k_bit_preparation: peft's ``prepare_model_for_kbit_training``, which turns the stream to float32.
    """

    architecture: Architecture
    method: str = "prompting"
    batch: int = 1
    length: int = 512
    new_tokens: int = 0
    weights: str = "bfloat16"
    trained_weights: str = ""
    quantised: str = ""
    optimiser: str = "adamw"
    checkpointing: Literal["none", "selective", "full"] = "none"
    profile: Literal["eager", "fast-ce", "chunked", "fused", "taskfit"] = "eager"
    attention: Literal["flash", "eager"] = "flash"
    sharding: Literal["none", "ddp", "zero1", "zero2", "fsdp"] = "none"
    devices: int = 1
    supervised: float = 1.0
    rank: int = 8
    targets: str = "all"
    virtual_tokens: int = 20
    bottleneck: int = 64
    dropout: float = 0.0
    teacher: Architecture | None = None
    optimiser_in_backward: bool = False
    offloads: bool = False
    compiled: bool = False
    keeps_quantised_inputs: bool = False
    k_bit_preparation: bool = False
    trainable: int = 0
    """Trained parameters, where known; 0: counted from the method."""

    def __post_init__(self) -> None:
        faults = Faults("estimate")
        for name in ("batch", "length", "devices", "rank", "virtual_tokens", "bottleneck"):
            value = getattr(self, name)
            if value < 1:
                faults.add(f"{name} must be at least 1 (got {value})")
        for name, known in self._choices().items():
            value = getattr(self, name)
            if value not in known:
                faults.add(f"unknown {name} {value!r}{nearest(str(value), known)}; known are {', '.join(known)}")
        if not 0 < self.supervised <= 1:
            faults.add(f"supervised must be above 0 and at most 1 (got {self.supervised})")
        if not faults.messages:
            self._check_fit(faults)
        faults.raise_as(ConfigError)

    def _choices(self) -> dict[str, tuple[str, ...]]:
        return {
            "method": tuple(METHODS),
            "weights": tuple(FORMAT_BYTES),
            "trained_weights": ("", *FORMAT_BYTES),
            "quantised": ("", *QUANTISED_BITS),
            "optimiser": tuple(_OPTIMISER_BYTES),
            "checkpointing": _CHECKPOINTINGS,
            "profile": _PROFILES,
            "attention": _ATTENTIONS,
            "sharding": _SHARDINGS,
            "targets": ("attention", "qv", "mlp", "all"),
        }

    def _check_fit(self, faults: Faults) -> None:
        """Refuse a method that the architecture does not allow."""
        if self.quantised and self.trains_all:
            faults.add(f"{self.method} cannot train quantised weights; choose lora, or leave quantised empty")
        if self.method == "distillation" and self.teacher is None:
            faults.add("distillation needs a teacher")
        if self.architecture.kind == "encoder" and (self.new_tokens or self.method in ("prefix", "soft-prompt")):
            what = "text cannot be generated by" if self.new_tokens else f"{self.method} is not offered for"
            faults.add(f"{what} an encoder ({self.architecture.family}); choose a decoder or an encoder-decoder")
        if self.method == "bitfit" and trainable_parameters(self) == 0:
            family = self.architecture.family
            faults.add(f"bitfit trains biases, and a {family} model has none; choose layer-norm or lora")
        if self.method in ("lora", "dora") and not targeted(self):
            what = f"{self.method} of {self.targets} changes no matrix of a {self.architecture.family} model"
            faults.add(f"{what}; choose attention or all")

    @property
    def trains_all(self) -> bool:
        """Whether all weights change."""
        return self.method in ("full", "continued-pretraining", "pretraining", "distillation")

    @property
    def value_bytes(self) -> int:
        """Bytes of one activation."""
        return FORMAT_BYTES[self.weights]

    @property
    def trained_bytes(self) -> int:
        """Bytes of one trained value: as the weights where all are trained, else float32 as peft keeps adapters."""
        default = self.weights if self.trains_all else "float32"
        return FORMAT_BYTES[self.trained_weights or default]

    @property
    def state_bytes(self) -> float:
        """Bytes of the optimiser's state for one trained value."""
        if self.optimiser == "adamw-8bit":
            return 2 + 8 / 256  # two bytes, and two float32 scales for blocks of 256 (Dettmers et al. 2022)
        return _OPTIMISER_BYTES[self.optimiser] * self.trained_bytes


_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "c_attn", "query_key_value", "qkv_proj", "Wqkv"}
_ATTENTION |= {"query", "key", "value", "q", "k", "v", "o"}
_QUERY_VALUE = {"q_proj", "v_proj", "q", "v", "query", "value", "c_attn", "query_key_value", "qkv_proj", "Wqkv"}


def targeted(job: Job) -> tuple[tuple[Linear, int], ...]:
    """Return the matrices that a low-rank update changes, each with the number of layers that have it."""
    architecture = job.architecture
    pairs = [(one, architecture.layers) for one in architecture.linears]
    pairs += [(one, architecture.decoder_layers) for one in architecture.decoder_linears]
    return tuple((one, layers) for one, layers in pairs if _is_target(one.name, job.targets))


def _is_target(name: str, targets: str) -> bool:
    if name == "gate":  # a router keeps its choices
        return False
    if targets == "all":
        return True
    if targets == "mlp":
        return name not in _ATTENTION | {"dense"}
    return name in (_QUERY_VALUE if targets == "qv" else _ATTENTION)


def trainable_parameters(job: Job) -> int:
    """Return how many parameters the method trains.

    Sources: Hu et al. 2021, section 4 (LoRA); Liu et al. 2024 (DoRA); Houlsby et al. 2019; Li and Liang 2021 (without
    the reparametrisation, which is dropped after training); Lester et al. 2021; Liu et al. 2022 (IA3); Zaken et al.
    2022 (BitFit).
    """
    architecture = job.architecture
    if job.trainable:
        return job.trainable
    if job.trains_all:
        return architecture.parameters.total
    adapter = 2 * architecture.hidden * job.bottleneck + job.bottleneck + architecture.hidden
    counts = {
        "prompting": 0,
        "adapters": 2 * architecture.depth * adapter,
        "prefix": 2 * architecture.depth * architecture.key_value_width * job.virtual_tokens,
        "soft-prompt": architecture.hidden * job.virtual_tokens,
        "ia3": architecture.depth * (2 * architecture.key_value_width + architecture.mlp_width),
        "bitfit": architecture.biases,
        "layer-norm": architecture.norms,
    }
    if job.method in counts:
        return counts[job.method]
    magnitudes = 1 if job.method == "dora" else 0
    return sum(
        layers * one.copies * (job.rank * (one.inputs + one.outputs) + magnitudes * one.outputs)
        for one, layers in targeted(job)
    )
